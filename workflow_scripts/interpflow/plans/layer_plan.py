"""A layer plan: the steps that a residual stream goes through instead of all blocks in order.

A plan is data. `interpflow.engine.layers` executes it; the model's own list of blocks stays as it
is. Written out, the steps stand in a row: "0 1 3" skips block 2 of four, "0 (1|2) 3" runs two
blocks side by side, "0 1~zero_mlp 2 3" and "0 1*0.5 2 3" change what one block writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from interpflow.errors import UserError

Part = Literal["attention", "mlp", "head", "block"]
# zero: nothing is written; mean: what is written on average over neutral text; resample: what is
# written in another text at the same position; patch: what is written in the item's donor.
Method = Literal["zero", "mean", "resample", "patch"]
PARTS: tuple[Part, ...] = get_args(Part)
METHODS: tuple[Method, ...] = get_args(Method)
# A plan longer than this many blocks for each block of the model is a slip of the finger.
MAX_LENGTH = 8

_STEP = re.compile(
    r"^(?P<block>\d+)(?:~(?P<method>[a-z]+)_(?P<part>[a-z]+?)(?P<head>\d+)?)?"
    r"(?:\*(?P<factor>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?))?$"
)
_SIDE_BY_SIDE = re.compile(r"^\((?P<blocks>\d+(?:\|\d+)+)\)$")


@dataclass(frozen=True)
class Ablation:
    """What replaces the work of a part of a block: of its attention, one head of it, its MLP, or
    all that the block adds to the residual stream."""

    part: Part
    method: Method
    head: int | None = None

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.method not in METHODS:
            raise UserError(
                f"there is no ablation {self}",
                where="layer plan",
                remedy=f"use one of {', '.join(METHODS)} with one of {', '.join(PARTS)}",
            )
        if (self.head is None) == (self.part == "head"):
            raise UserError(
                "a head is named exactly where a head is ablated",
                where=f"ablation {self}",
            )

    def __str__(self) -> str:
        return f"{self.method}_{self.part}{'' if self.head is None else self.head}"


@dataclass(frozen=True)
class Step:
    """One step: a block, or several blocks that read the same residual stream and all add to it.

    factor: what the block adds is multiplied by it. An ablation and a factor belong to one block.
    """

    blocks: tuple[int, ...]
    ablation: Ablation | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        alone = len(self.blocks) == 1
        if not self.blocks or (not alone and (self.ablation or self.factor != 1.0)):
            raise UserError(
                "a step is one block, or several side by side that are left as they are",
                where=f"layer plan, blocks {list(self.blocks)}",
            )
        if not math.isfinite(self.factor):
            raise UserError(
                f"a block cannot be multiplied by {self.factor}",
                where=f"layer plan, block {self.blocks[0]}",
                remedy="use a number",
            )

    @property
    def is_plain(self) -> bool:
        """Whether it is one block as the model has it."""
        return len(self.blocks) == 1 and self.ablation is None and self.factor == 1.0

    def __str__(self) -> str:
        blocks = "|".join(map(str, self.blocks))
        if len(self.blocks) > 1:
            return f"({blocks})"
        change = "" if self.ablation is None else f"~{self.ablation}"
        # The shortest decimal that is this very number, so that no two plans are written alike.
        factor = "" if self.factor == 1.0 else f"*{float(self.factor)!r}".removesuffix(".0")
        return f"{blocks}{change}{factor}"


@dataclass(frozen=True)
class LayerPlan:
    """Steps in their order; none at all is the embedding, read out as it is."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """The plan written out; "-" for no step. `parse` reads it."""
        return " ".join(map(str, self.steps)) or "-"

    @classmethod
    def of(cls, blocks: Iterable[int]) -> LayerPlan:
        """Plain blocks in this order."""
        return cls(tuple(Step((block,)) for block in blocks))

    @classmethod
    def parse(cls, text: str) -> LayerPlan:
        """The plan whose `str()` is `text`. Raises UserError naming the step that is none."""
        if not text.strip():
            raise UserError(
                "no step is written", where="layer plan", remedy='write "-" for a plan of no step'
            )
        if text.strip() == "-":
            return cls(())
        return cls(tuple(_step(part) for part in text.split()))

    @property
    def n_blocks(self) -> int:
        """Blocks that are run, side by side or one after another."""
        return sum(len(step.blocks) for step in self.steps)

    @property
    def blocks(self) -> tuple[int, ...]:
        """All blocks that are run, in their order."""
        return tuple(block for step in self.steps for block in step.blocks)

    def is_identity(self, n_layers: int) -> bool:
        """Whether it is the model as it is."""
        return self == LayerPlan.of(range(n_layers))

    def check(self, n_layers: int, n_heads: int, *, where: str = "layer plan") -> None:
        """Raise UserError for a block or head that the model does not have, and for a plan of
        unreasonable length."""
        for step in self.steps:
            for block in step.blocks:
                if not 0 <= block < n_layers:
                    raise UserError(
                        f"there is no block {block}",
                        where=f"{where}: {self}",
                        remedy=f"this model has {n_layers} blocks, counted from 0",
                    )
            head = step.ablation.head if step.ablation else None
            if head is not None and not 0 <= head < n_heads:
                raise UserError(
                    f"there is no head {head}",
                    where=f"{where}: {self}",
                    remedy=f"this model has {n_heads} heads in a block, counted from 0",
                )
        if self.n_blocks > MAX_LENGTH * n_layers:
            raise UserError(
                f"a plan of {self.n_blocks} blocks for a model of {n_layers}",
                where=where,
                remedy=f"run at most {MAX_LENGTH * n_layers}",
            )


def _step(text: str) -> Step:
    together = _SIDE_BY_SIDE.match(text)
    if together is not None:
        return Step(tuple(int(block) for block in together["blocks"].split("|")))
    one = _STEP.match(text)
    if one is None:
        raise UserError(
            f"{text!r} is no step of a layer plan",
            where="layer plan",
            remedy='write blocks as in "0 1 3", "0 (1|2) 3", "0 1~zero_mlp 2" or "0 1*0.5 2"',
        )
    ablation = None
    if one["method"] is not None:
        head = one["head"]
        part, method = one["part"], one["method"]
        ablation = Ablation(part, method, None if head is None else int(head))  # type: ignore[arg-type]
    factor = 1.0 if one["factor"] is None else float(one["factor"])
    return Step((int(one["block"]),), ablation, factor)
