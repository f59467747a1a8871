"""Anomalies of a model's blocks, as they are planted and as they are claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from interpflow.errors import UserError
from interpflow.plans.layer_plan import LayerPlan

# no_op: the block adds nothing. swapped: two blocks stand in each other's place. scaled: what the
# block's parts write is multiplied by a factor. duplicated: the block is there twice in a row.
AnomalyKind = Literal["no_op", "swapped", "scaled", "duplicated"]
ANOMALY_KINDS: tuple[AnomalyKind, ...] = get_args(AnomalyKind)


@dataclass(frozen=True)
class Anomaly:
    """An anomaly of the blocks of a model, counted in the model before it was planted.

    factor: of a scaled block. Raises UserError where kind, number of blocks and factor do not fit.
    """

    kind: AnomalyKind
    blocks: tuple[int, ...]
    factor: float = 1.0

    def __post_init__(self) -> None:
        n_blocks = 2 if self.kind == "swapped" else 1
        if self.kind not in ANOMALY_KINDS:
            problem = f"there is no anomaly {self.kind!r}"
        elif len(set(self.blocks)) != n_blocks or len(self.blocks) != n_blocks:
            problem = f"{n_blocks} different blocks make it"
        elif (self.kind == "scaled") == (self.factor == 1.0):
            problem = "a factor other than 1 belongs to a scaled block, and to no other"
        else:
            return
        raise UserError(
            problem,
            where=f"anomaly {self.kind} of blocks {list(self.blocks)}, factor {self.factor:g}",
            remedy=f"use one of {', '.join(ANOMALY_KINDS)}",
        )

    def __str__(self) -> str:
        """As in "swapped 3 4" or "scaled 2 ×0.25"."""
        factor = f" ×{self.factor:g}" if self.kind == "scaled" else ""
        return f"{self.kind} {' '.join(map(str, self.blocks))}{factor}"

    def plan(self, n_layers: int) -> LayerPlan | None:
        """The plan that does to the model as it was what the anomaly does to it.

        None for a scaled block: each of its parts is scaled, so that its MLP reads what its scaled
        attention wrote, while a plan scales what both together add.
        """
        order = list(range(n_layers))
        first = self.blocks[0]
        if self.kind == "scaled":
            return None
        if self.kind == "no_op":
            order.remove(first)
        elif self.kind == "duplicated":
            order.insert(first, first)
        else:
            second = self.blocks[1]
            order[first], order[second] = second, first
        return LayerPlan.of(order)
