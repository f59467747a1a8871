"""The tuned lens: an affine map per depth, then the model's own norm and unembedding.

Belrose et al. (2023), https://arxiv.org/abs/2303.08112: logits at depth d are
W_U · norm(h + A_d h + b_d). With A = 0 and b = 0 that is the logit lens, bit for bit. There is no
map at the last depth: there the lens is the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interpflow.engine.model import Model

# affine: A and b are learnt; bias: b alone.
LensKind = Literal["affine", "bias"]


@dataclass(frozen=True, eq=False)
class TunedLens:
    """weight: A of each depth but the last, float32 [depth, d_model, d_model], None for a lens
    without; bias: b, float32 [depth, d_model]."""

    weight: Tensor | None
    bias: Tensor

    @classmethod
    def identity(cls, model: Model, kind: LensKind = "affine") -> TunedLens:
        """The lens before training, equal to the logit lens."""
        n, d, device = model.n_layers, model.d_model, model.device
        weight = torch.zeros(n, d, d, device=device) if kind == "affine" else None
        return cls(weight, torch.zeros(n, d, device=device))

    @property
    def kind(self) -> LensKind:
        return "bias" if self.weight is None else "affine"

    @property
    def n_depths(self) -> int:
        """Depths that have a map: the number of blocks."""
        return len(self.bias)

    def translated(self, depth: int, states: Tensor) -> Tensor:
        """What norm and unembedding read of states [..., d_model] at a depth; of their type."""
        if not 0 <= depth <= self.n_depths:
            raise IndexError(f"depth {depth} of a lens of {self.n_depths} blocks")
        if depth == self.n_depths:
            return states
        # Narrow states are moved in float32, wide ones as they are.
        wide = states.to(torch.promote_types(states.dtype, self.bias.dtype))
        moved = wide
        if self.weight is not None:
            moved = wide + wide @ self.weight[depth].to(wide.dtype).t()
        return (moved + self.bias[depth].to(wide.dtype)).to(states.dtype)

    def logits(self, model: Model, depth: int, states: Tensor) -> Tensor:
        """Logits [..., vocab] that the lens reads from states [..., d_model] at a depth."""
        return model.unembed(self.translated(depth, states))
