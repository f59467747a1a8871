"""Which float32 linear of this processor to use for how many rows, and what each of them reaches.

The choice depends on the processor's maker and on the shape, never on a clock: a result must be the
same bytes from run to run. Measured by `linear_rates` on one core, torch 2.13, GFLOP/s, weights
[out, in] that come from memory as they do in a model:

- Intel Sapphire Rapids: torch's own linear (MKL) and oneDNN both reach 145-150 from 200 rows on.
  For 4 to 200 rows of a weight of more than two million numbers oneDNN is ahead (2048 x 8192:
  8 rows 33 against 17, 32 rows 87 against 60, 128 rows 136 against 122); for smaller weights not.
  MKL's product in the other order (weight @ rowsᵀ) is up to twice as fast at 8 to 56 rows while
  the weights lie in cache, and no faster in a model, where they do not.
- AMD Zen 5: MKL stays near 100 at many rows, oneDNN reaches 170-200.

oneDNN's linear is a private operation of torch: where it is missing, or wrong in the self-test at
its first use, it is never chosen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LOGGER = logging.getLogger(__name__)

Kernel = Literal["plain", "onednn"]
# Largest error of oneDNN relative to the largest output in the self-test; plain has about 3e-7.
SELF_TEST_TOLERANCE = 1e-6
# (rows, in, out): rows and widths that fill no vector register evenly are among them.
SELF_TEST_SHAPES = ((1, 16, 8), (7, 129, 65), (33, 256, 300), (300, 200, 129))
# Weights of `linear_rates` together: more than any cache holds.
COLD_BYTES = 2**28


def chosen_kernel(rows: int, n_in: int, n_out: int) -> Kernel:
    """The fastest right kernel for x [rows, n_in] @ weight [n_out, n_in]ᵀ on this processor."""
    kernel = preferred_kernel(cpu_vendor(), rows, n_in * n_out)
    return kernel if kernel == "plain" or onednn_is_right() else "plain"


def preferred_kernel(vendor: str, rows: int, size: int) -> Kernel:
    """The rule behind `chosen_kernel`: by maker ("intel", "amd", ""), rows, and weight size."""
    if vendor == "intel" and size >= 2**21 and 4 <= rows < 192:
        return "onednn"
    # With fewer rows or smaller weights the overhead of a call is most of it.
    if vendor == "amd" and size >= 2**14 and rows >= 32:
        return "onednn"
    return "plain"


def linear(kernel: Kernel, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] float32 through weight [out, in] and bias [out] with the kernel named."""
    if kernel == "onednn":
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


@lru_cache(maxsize=1)
def cpu_vendor() -> str:
    """ "intel", "amd", or "" for any other processor and any other system than Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    names = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
    return next((maker for name, maker in names.items() if name in text), "")


@lru_cache(maxsize=1)
def onednn_is_right() -> bool:
    """Whether oneDNN's linear exists here and agrees with float64; tried once (about 20 ms)."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            error = max(_error(shape, generator) for shape in SELF_TEST_SHAPES)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        LOGGER.info("torch has no oneDNN linear here")
        return False
    if not error <= SELF_TEST_TOLERANCE:
        LOGGER.warning("torch's oneDNN linear is off by %.1e: not used", error)
        return False
    return True


def linear_rates(rows: int, n_in: int, n_out: int, *, repeats: int = 3) -> dict[str, float]:
    """GFLOP/s of float32 linears of one shape, with torch's present number of threads.

    "plain" and, where it is right, "onednn" with weights [out, in]; "addmm" with weights
    [in, out]. The best of the repeats, each over so many weights that all come from memory. For
    benchmarks: nothing is decided by it.
    """
    generator = torch.Generator().manual_seed(0)
    n_weights = max(1, min(64, COLD_BYTES // (4 * n_in * n_out)))
    x, _, bias = _operands(rows, n_in, n_out, generator)
    weights = [torch.randn(n_out, n_in, generator=generator) for _ in range(n_weights)]
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda weight: linear("plain", x, weight, bias),
        "addmm": lambda weight: torch.addmm(bias, x, weight.view(n_in, n_out)),
    }
    if onednn_is_right():
        calls["onednn"] = lambda weight: linear("onednn", x, weight, bias)
    best = dict.fromkeys(calls, float("inf"))
    with torch.no_grad():
        for call in calls.values():
            call(weights[0])
        for _ in range(repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                for weight in weights:
                    call(weight)
                best[name] = min(best[name], time.perf_counter() - start)
    work = 2e-9 * rows * n_in * n_out * n_weights
    return {name: work / seconds for name, seconds in best.items()}


def _error(shape: tuple[int, int, int], generator: torch.Generator) -> float:
    x, weight, bias = _operands(*shape, generator)
    worst = 0.0
    for added in (bias, None):
        exact = x.double() @ weight.double().t()
        exact = exact if added is None else exact + added
        found, again = (linear("onednn", x, weight, added) for _ in range(2))
        if found.shape != exact.shape or not torch.equal(found, again):
            return float("inf")
        worst = max(worst, ((found - exact).abs().max() / exact.abs().max()).item())
    return worst


def _operands(
    rows: int, n_in: int, n_out: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(rows, n_in, generator=generator),
        torch.randn(n_out, n_in, generator=generator),
        torch.randn(n_out, generator=generator),
    )
