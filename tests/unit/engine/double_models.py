"""Tiny decoders whose norms, too, are computed in float64, so that differences of small steps are
not drowned by the float32 that transformers uses there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tiny_models import tiny_module
from torch import Tensor, nn

from interpflow.engine import Model, load


def double_model(kind: str, **changes: object) -> Model:
    module = tiny_module(kind, **changes).double()
    for part in module.modules():
        if type(part).__name__.endswith("RMSNorm"):
            part.forward = _rms_norm(part, type(part).__name__.startswith("Gemma"))
    return load(module, dtype="float64")


def _rms_norm(norm: nn.Module, from_one: bool) -> Callable[[Tensor], Tensor]:
    epsilon = getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", 0.0)

    def forward(x: Tensor) -> Tensor:
        gain = norm.weight + 1 if from_one else norm.weight
        return gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)

    return forward
