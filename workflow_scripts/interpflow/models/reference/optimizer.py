"""Muon for matrices and AdamW for the rest, with one schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

from interpflow.models.reference.recipe import OptimizerConfig

# Quintic Newton–Schulz coefficients of Jordan et al. (2024), "Muon".
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
NORM_FLOOR = 1e-7


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Nearest-to-orthogonal factor of each matrix, [n, rows, columns], by Newton–Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp_min(NORM_FLOOR)[:, None, None]
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), in float32 and batched over equal shapes.

    torch.optim.Muon orthogonalises in bfloat16, which CPUs without bfloat16 units emulate at a
    thirtieth of the speed and with results that depend on the CPU.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                self._step_shape(group, shape, parameters)

    def _step_shape(self, group: dict, shape: torch.Size, parameters: list[nn.Parameter]) -> None:
        directions = []
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None  # chosen so by the caller
            state = self.state[parameter]
            buffer = state.setdefault("momentum", torch.zeros_like(parameter))
            buffer.lerp_(gradient, 1 - group["momentum"])
            directions.append(gradient.lerp(buffer, group["momentum"]))
        updates = orthogonalize(torch.stack(directions))
        scale = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-scale)


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the blocks, AdamW on embeddings and norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside_block = ".layers." in name and parameter.ndim == 2
        (matrices if inside_block else others).append(parameter)
    return [
        Muon(matrices, config.muon_lr, config.muon_momentum, config.weight_decay),
        torch.optim.AdamW(
            others,
            lr=config.adamw_lr,
            betas=(config.adamw_beta1, config.adamw_beta2),
            weight_decay=config.weight_decay,
        ),
    ]


def rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """Share of the full rate at a step: linear warm-up, then cosine to zero."""
    warmup = max(1, round(warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
