"""Claims as data: which anomaly of which blocks, and the test that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interpflow.errors import UserError

Kind = Literal["no_op", "duplicated", "swapped", "scaled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What all of them are seen by.
MEASURE = "text"
METRIC = "delta_loss"


@dataclass(frozen=True)
class AnomalyClaim:
    """An anomaly of blocks, counted from 0.

    no_op: without the block the loss stays the same. duplicated: without it the loss falls.
    swapped: with the two blocks exchanged the loss falls. scaled: with what the block writes
    multiplied by `factor` the loss falls.
    """

    kind: Kind
    blocks: tuple[int, ...]
    factor: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> AnomalyClaim:
        """Raises UserError for a wrong number of blocks, or a factor where none belongs."""
        kind, factor = given["kind"], given.get("factor")
        blocks = tuple(sorted(given["blocks"]))
        wanted = 2 if kind == "swapped" else 1
        if len(set(blocks)) != wanted:
            raise UserError(
                f"a claim {kind} names {wanted} block{'s' if wanted > 1 else ''}",
                where="claim.blocks",
            )
        if (factor is None) == (kind == "scaled"):
            raise UserError("a factor belongs to the claim scaled, and only to it", where="claim")
        return cls(kind, blocks, None if factor is None else float(factor))

    def to_dict(self) -> dict[str, Any]:
        """JSON of the claim."""
        factor = {} if self.factor is None else {"factor": self.factor}
        return {"kind": self.kind, "blocks": list(self.blocks), **factor}

    @property
    def plan(self) -> dict[str, Any]:
        """The request of the plan whose test decides the claim."""
        if self.kind == "swapped":
            return {"kind": "swap", "block": self.blocks[0], "with_block": self.blocks[1]}
        if self.kind == "scaled":
            return {"kind": "scale", "block": self.blocks[0], "factor": self.factor}
        return {"kind": "skip", "blocks": list(self.blocks)}

    def prediction(self, smallest_effect: float) -> dict[str, Any]:
        """The prediction that the claim makes of `plan` against the intact model."""
        if self.kind == "no_op":
            return {"within": [-smallest_effect, smallest_effect]}
        return {"sign": "decrease", "smallest_effect": smallest_effect}

    def __str__(self) -> str:
        named = " and ".join(map(str, self.blocks))
        factor = "" if self.factor is None else f" by {self.factor:g}"
        return f"{self.kind} {named}{factor}"
