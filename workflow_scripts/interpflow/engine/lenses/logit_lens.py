"""The logit lens, and the gate that it reads what the model itself would read.

nostalgebraist (2020): norm and unembedding applied to the residual stream of any depth. The norm's
statistics are those of the state it is given, never those of the last depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.lenses.depth_states import depth_states
from interpflow.engine.model import Model, full_precision
from interpflow.engine.passes.forward import run_forward
from interpflow.stats.record import Gate

# Largest difference of logits at the last depth, float32 and wider.
IDENTITY_TOLERANCE = 1e-4
GATE_NAME = "lens at the last depth is the model"


@dataclass(frozen=True)
class LogitLens:
    """The lens that changes nothing before norm and unembedding."""

    def translated(self, _depth: int, states: Tensor) -> Tensor:
        """The states themselves."""
        return states


def lens_identity(model: Model, rows: Sequence[Sequence[int]]) -> Gate:
    """Whether norm and unembedding of the last depth's states give the model's logits, on rows of
    token ids, each run by itself. See `identity_gate`."""
    if not rows:
        return identity_gate(torch.full((1, 1), math.nan), torch.zeros(1, 1))
    gates = []
    for found in depth_states(model, rows):
        ids = torch.tensor([list(rows[found.number])], device=model.device)
        own = run_forward(model.module, model.architecture, ids).logits[0]
        gates.append(identity_gate(model.unembed(found.states[-1]), own))
    return max(gates, key=lambda gate: math.inf if math.isnan(gate.value) else gate.value)


def identity_gate(found: Tensor, own: Tensor) -> Gate:
    """Whether logits [n, vocab] of a lens are the model's own.

    States that went through the last norm already (`hidden_states[-1]` of transformers) fail.
    Narrow types: the tolerance is four units in the last place of the largest logit.
    """
    narrow = own.dtype in (torch.bfloat16, torch.float16)
    largest = float(own.abs().max()) if narrow else 1.0
    tolerance = 4 * torch.finfo(own.dtype).eps * largest if narrow else IDENTITY_TOLERANCE
    value = float((full_precision(found) - full_precision(own)).abs().max())
    passed = value <= tolerance  # NaN does not pass
    return Gate(
        name=GATE_NAME,
        passed=passed,
        value=value,
        threshold=tolerance,
        reason=""
        if passed
        else "another norm or unembedding lies between the last block "
        "and the logits, or the states were normed before",
    )
