"""The best linear layer of this core: the yardstick for the rate that a sweep achieves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.clock import timed
from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.shapes import Shape
from tests.benchmarks.works import LinearWork, SweepWork

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]


def linears(work: LinearWork, place: Place) -> Job:
    """Every linear in turn on the block's matrices, about `tera_flops` each per round."""
    shapes = matrices(work.shape)
    dtype = getattr(torch, place.dtype)
    generator = torch.Generator(place.device).manual_seed(0)
    random = {"generator": generator, "device": place.device, "dtype": dtype}
    inputs = [
        (
            torch.randn(work.rows, inside, **random),
            torch.randn(outside, inside, **random) / inside**0.5,
            torch.randn(outside, **random),
        )
        for outside, inside in shapes
    ]
    once = sum(2 * work.rows * outside * inside for outside, inside in shapes)
    # A GPU would be done with so few before it is warm.
    factor = 100 if place.device == "cuda" else 1
    repeats = max(1, round(factor * work.tera_flops * 1e12 / once))
    rates: dict[str, list[float]] = {}
    gaps: dict[str, float] = {}
    synchronize = torch.cuda.synchronize if place.device == "cuda" else None

    def run(linear: Linear) -> Callable[[], None]:
        def every() -> None:
            with torch.inference_mode():
                for _ in range(repeats):
                    for x, weight, bias in inputs:
                        linear(x, weight, bias)

        return every

    ways = available(place.device)
    for name, linear in ways.items():
        gaps[name] = max(
            float((linear(x, w, b) - torch.nn.functional.linear(x, w, b)).abs().max())
            for x, w, b in inputs
        )

    def facts() -> dict[str, Any]:
        return {
            "gflops_per_s": {name: round(float(np.median(r)), 1) for name, r in rates.items()},
            "max_difference": gaps,
            "rows": work.rows,
        }

    def measured(name: str, linear: Linear) -> Callable[[], None]:
        clock = "wall_s" if synchronize else "cpu_s"

        def once_more() -> None:
            spent = timed(run(linear), synchronize)[clock]
            rates.setdefault(name, []).append(once * repeats / spent / 1e9)

        return once_more

    parts = [Part(name, measured(name, linear)) for name, linear in ways.items()]
    return Job(parts, lambda: np.zeros(0), facts=facts)


def sweep_linears(work: SweepWork, place: Place) -> Job:
    """The linears between the rounds of a sweep, so that both see the same machine."""
    return linears(LinearWork(work.shape), place)


def matrices(shape: Shape) -> list[tuple[int, int]]:
    """(out, in) of the matrices of a block."""
    heads = shape.n_heads * shape.head_dim
    mlp = [(shape.d_mlp, shape.d_model)] * (shape.mlp_matrices - 1)
    return [
        (heads + 2 * shape.n_kv_heads * shape.head_dim, shape.d_model),
        (shape.d_model, heads),
        *mlp,
        (shape.d_model, shape.d_mlp),
    ]


def available(device: str) -> dict[str, Linear]:
    """The linears of this torch: MKL by way of torch.linear, and oneDNN where it is built in."""
    ways: dict[str, Linear] = {"torch.linear": torch.nn.functional.linear}
    if device == "cpu" and torch.backends.mkldnn.is_available():
        pointwise = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        if pointwise is not None:
            ways["oneDNN"] = lambda x, w, b: pointwise(x, w, b, "none", [], "")
    return ways
