"""Linears and activations of a model on a CPU, computed faster and to the same numbers.

`with fast_modules(model):` lets `nn.Linear` and transformers' `Conv1D` use the fastest right linear
of this processor (see `linear_kernels`) and lets activations that are written as a chain of tensor
operations run in cache. Only `forward` is exchanged, so hooks fire as ever; only where a module is
exactly of a known class and has no `forward` of its own; and only while a call is float32 on a CPU
without gradients or autocast: any other call is computed as before. What is chosen depends on
shapes alone, so equal calls give equal bytes in every run on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from interpflow.engine.passes.attention import needs_no_queries
from interpflow.engine.passes.linear_kernels import chosen_kernel, cpu_vendor, linear

Forward = Callable[..., Tensor]

# Elements per step of `tanh_gelu`: 256 kB, which stays in a core's own cache.
GELU_STEP = 2**16
GELU_SLOPE = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = GELU_SLOPE * 0.044715
# x · 0.5 · (1 + tanh(√(2/π) (x + 0.044715 x³))), under the names that transformers gives it.
TANH_GELUS = frozenset(
    (
        "transformers.activations.NewGELUActivation",
        "transformers.activations.FastGELUActivation",
        "transformers.activations.AccurateGELUActivation",
        "transformers.activations.GELUTanh",
        "transformers.models.bloom.modeling_bloom.BloomGelu",
    )
)
# Copies of Conv1D weights as [out, in] on AMD, held while a `with` block lasts.
MAX_TRANSPOSED_BYTES = 2**30
# Fewer rows do not repay the copy.
MIN_TRANSPOSED_ROWS = 256


@contextmanager
def fast_modules(module: nn.Module) -> Iterator[None]:
    """Let the linears and activations inside `module` run fast; as before afterwards, in any case.

    May be entered again inside itself, and often: what to exchange is found once per module.
    """
    plan = _PLANS.get(module)
    if plan is None:
        plan = _Plan(module)
        if all(part is not module for part, _ in plan.forwards):  # else it would never be freed
            _PLANS[module] = plan
    exchanged = []
    try:
        for part, forward in plan.forwards:
            # Not through setattr, which looks for parameters first. A forward that somebody else
            # (or an outer block) has put there stays.
            if "forward" not in part.__dict__:
                part.__dict__["forward"] = forward
                exchanged.append(part)
        yield
    finally:
        for part in exchanged:
            part.__dict__.pop("forward", None)
        if exchanged:
            plan.transposed.clear()


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, as x · sigmoid(2 √(2/π) (x + 0.044715 x³)), for float32 of any shape.

    The same function by tanh(u) = 2 sigmoid(2u) − 1; a sigmoid costs a fifth of torch's tanh, and
    in steps that stay in cache the four passes cost half of `functional.gelu` (0.9 against 1.7
    ns per element).
    """
    if not x.is_contiguous():
        return functional.gelu(x, approximate="tanh")
    out = torch.empty_like(x)
    slope = torch.tensor(GELU_SLOPE)
    for given, found in zip(x.view(-1).split(GELU_STEP), out.view(-1).split(GELU_STEP)):
        torch.addcmul(slope, given, given, value=GELU_CUBIC, out=found)
        found.mul_(given).sigmoid_().mul_(given)
    return out


class _Plan:
    """The modules to exchange, with their forwards; and transposed weights of the running block."""

    def __init__(self, module: nn.Module) -> None:
        self.transposed: dict[Conv1D, tuple[tuple[int, int], Tensor]] = {}
        self.forwards: list[tuple[nn.Module, Forward]] = []
        parts = list(module.modules())
        queries = {part.c_attn for part in parts if _has_fused_queries(part)}
        convs = [part for part in parts if type(part) is Conv1D]
        transposable = (
            cpu_vendor() == "amd"
            and sum(part.weight.numel() * 4 for part in convs) <= MAX_TRANSPOSED_BYTES
        )
        for part in parts:
            if type(part) is nn.Linear and cpu_vendor():
                self.forwards.append((part, _linear_forward(part)))
            elif type(part) is Conv1D and (transposable or part in queries):
                forward = (
                    _conv_forward(part, self.transposed) if transposable else _plain_conv(part)
                )
                forward = _without_queries(part, forward) if part in queries else forward
                self.forwards.append((part, forward))
            elif _is_tanh_gelu(part):
                self.forwards.append((part, _gelu_forward(part, tanh_gelu)))
            elif _is_python_gelu(part):
                self.forwards.append((part, _gelu_forward(part, functional.gelu)))


_PLANS: WeakKeyDictionary[nn.Module, _Plan] = WeakKeyDictionary()


def _plain_call(x: Any) -> bool:
    """Whether a call is float32 on a CPU, without gradients and autocast."""
    return (
        type(x) is Tensor
        and x.dtype is torch.float32
        and x.is_cpu
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _linear_forward(part: nn.Linear) -> Forward:
    def forward(input: Tensor) -> Tensor:
        weight = part.weight
        n_out, n_in = weight.shape
        rows = input.shape[:-1].numel()
        if not rows or not _plain_call(input) or weight.dtype is not torch.float32:
            return functional.linear(input, weight, part.bias)
        return linear(chosen_kernel(rows, n_in, n_out), input, weight, part.bias)

    return forward


def _conv_forward(
    part: Conv1D, transposed: dict[Conv1D, tuple[tuple[int, int], Tensor]]
) -> Forward:
    former = type(part).forward

    def forward(x: Tensor) -> Tensor:
        weight: Tensor = part.weight
        n_in, n_out = weight.shape
        rows = x.shape[:-1].numel()
        if (
            rows < MIN_TRANSPOSED_ROWS
            or not _plain_call(x)
            or weight.dtype is not torch.float32
            or weight.is_inference()  # changes of such a weight could not be noticed
            or chosen_kernel(rows, n_in, n_out) != "onednn"
        ):
            return former(part, x)
        state = (weight.data_ptr(), weight._version)
        kept = transposed.get(part)
        if kept is None or kept[0] != state:
            kept = transposed[part] = (state, weight.detach().t().contiguous())
        return linear("onednn", x, kept[1], part.bias)

    return forward


def _plain_conv(part: Conv1D) -> Forward:
    former = type(part).forward
    return lambda x: former(part, x)


def _without_queries(part: Conv1D, forward: Forward) -> Forward:
    """The third of the projection that makes queries is left at zero where nobody looks at it."""

    def keys_values(x: Tensor) -> Tensor:
        weight, bias = part.weight, part.bias
        if not _plain_call(x) or weight.dtype is not torch.float32 or not needs_no_queries(part):
            return forward(x)
        width = weight.shape[1] // 3
        flat = x.reshape(-1, x.shape[-1])
        out = x.new_empty(len(flat), weight.shape[1])
        out[:, :width] = 0.0
        torch.addmm(bias[width:], flat, weight[:, width:], out=out[:, width:])
        return out.view(*x.shape[:-1], -1)

    return keys_values


def _has_fused_queries(part: nn.Module) -> bool:
    """GPT-2's self-attention: one Conv1D makes queries, keys and values, in this order."""
    kind = f"{type(part).__module__}.{type(part).__qualname__}"
    return (
        kind == "transformers.models.gpt2.modeling_gpt2.GPT2Attention"
        and not getattr(part, "is_cross_attention", True)
        and type(part.c_attn) is Conv1D
    )


def _gelu_forward(part: nn.Module, function: Callable[[Tensor], Tensor]) -> Forward:
    former = type(part).forward

    def forward(input: Tensor) -> Tensor:
        return function(input) if _plain_call(input) else former(part, input)

    return forward


def _is_tanh_gelu(part: nn.Module) -> bool:
    kind = type(part)
    if kind is nn.GELU:
        return part.approximate == "tanh"
    return f"{kind.__module__}.{kind.__qualname__}" in TANH_GELUS


def _is_python_gelu(part: nn.Module) -> bool:
    kind = type(part)
    if f"{kind.__module__}.{kind.__qualname__}" != "transformers.activations.GELUActivation":
        return False
    return getattr(part.act, "__name__", "") == "_gelu_python"
