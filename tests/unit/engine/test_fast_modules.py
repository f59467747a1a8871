"""Fast linears and activations: the same numbers, the same hooks, and nothing left behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.models.bloom.modeling_bloom import BloomGelu
from transformers.pytorch_utils import Conv1D

from interpflow.engine.passes import fast_modules as fast
from interpflow.engine.passes import linear_kernels
from interpflow.engine.passes.fast_modules import fast_modules, tanh_gelu
from interpflow.engine.passes.linear_kernels import (
    linear,
    linear_rates,
    onednn_is_right,
    preferred_kernel,
)


class SubclassedLinear(nn.Linear):
    pass


class Everything(nn.Module):
    """One module of each kind, large enough for every rule."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(96, 192)
        self.conv = Conv1D(96, 192)
        nn.init.normal_(self.conv.weight, std=0.1)
        self.act = ACT2FN["gelu_new"]
        self.other = SubclassedLinear(96, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.conv(self.act(self.linear(x))))


@pytest.fixture
def module() -> Everything:
    return Everything().eval()


@pytest.fixture(params=["intel", "amd", ""])
def vendor(request, monkeypatch) -> str:
    """Every maker's rule, on whatever this test runs."""
    monkeypatch.setattr(fast, "cpu_vendor", lambda: request.param)
    monkeypatch.setattr(linear_kernels, "cpu_vendor", lambda: request.param)
    return request.param


def own_forwards(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if "forward" in part.__dict__]


def test_numbers_agree_and_everything_is_restored(module, vendor):
    for rows in (1, 7, 40, 300):
        x = torch.randn(2, rows, 96)
        with torch.no_grad():
            plain = module(x)
            with fast_modules(module):
                found = module(x)
                again = module(x)
        assert torch.equal(found, again)
        assert (found - plain).abs().max() <= 1e-6 * plain.abs().max()
        assert own_forwards(module) == []


def test_the_exchanged_forwards_are_really_used(module, vendor, monkeypatch):
    used = []
    monkeypatch.setattr(fast, "tanh_gelu", lambda x: used.append("gelu") or x)
    monkeypatch.setattr(
        fast, "linear", lambda kernel, x, w, b: used.append(kernel) or functional.linear(x, w, b)
    )
    with torch.no_grad(), fast_modules(module):
        module(torch.randn(300, 96))
    expected = {"intel": ["plain", "gelu"], "amd": ["onednn", "gelu", "onednn"], "": ["gelu"]}
    assert used == expected[vendor]


def test_hooks_fire_and_see_the_same(module, vendor):
    seen = []
    for part in (module.linear, module.conv, module.act):
        part.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape))
        part.register_forward_hook(lambda _m, _a, out: out * 2)
    x = torch.randn(300, 96)
    with torch.no_grad():
        plain = module(x)
        fired = len(seen)
        with fast_modules(module):
            found = module(x)
    assert fired == 3
    assert len(seen) == 6
    assert (found - plain).abs().max() <= 1e-6 * plain.abs().max()


def test_gradients_autocast_and_other_dtypes_take_the_plain_way(module, vendor):
    x = torch.randn(300, 96)
    plain = module(x)
    plain.sum().backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    with fast_modules(module):
        found = module(x)
        found.sum().backward()
    assert torch.equal(found, plain)
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, module.parameters()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = module(x)
        with fast_modules(module):
            assert torch.equal(module(x), mixed)
    with torch.no_grad():
        double = module.double()(x.double())
        with fast_modules(module):
            assert torch.equal(module(x.double()), double)


def test_an_error_inside_leaves_nothing_behind(module, vendor):
    def leave() -> None:
        with fast_modules(module):
            assert own_forwards(module)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        leave()
    assert own_forwards(module) == []


def test_blocks_within_blocks_and_foreign_forwards(module, vendor):
    module.act.forward = lambda x: x * 3
    with fast_modules(module):
        inside = own_forwards(module)
        with fast_modules(module):
            assert own_forwards(module) == inside
        assert own_forwards(module) == inside
        assert module.act(torch.ones(1)).item() == 3
    assert own_forwards(module) == ["act"]


def test_only_known_classes_are_touched(module, vendor):
    with fast_modules(module):
        assert "forward" not in module.other.__dict__
        assert "forward" not in module.__dict__


def test_changed_weights_are_seen(module, monkeypatch):
    monkeypatch.setattr(fast, "cpu_vendor", lambda: "amd")
    monkeypatch.setattr(linear_kernels, "cpu_vendor", lambda: "amd")
    x = torch.randn(300, 96)
    with torch.no_grad(), fast_modules(module):
        before = module(x)
        module.conv.weight.mul_(2)
        module.linear.weight.mul_(0.5)
        changed = module(x)
    with torch.no_grad():
        plain = module(x)
    assert (changed - before).abs().max() > 1e-2
    assert (changed - plain).abs().max() <= 1e-6 * plain.abs().max()
    assert not fast._PLANS[module].transposed


def test_the_module_is_not_kept_alive(vendor):
    for make in (Everything, lambda: nn.Linear(8, 8)):
        module = make()
        with fast_modules(module):
            pass
        gone = weakref.ref(module)
        del module
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh",
                                  "gelu_pytorch_tanh", "gelu_python", "bloom"])  # fmt: skip
def test_activations(name):
    act = nn.Sequential((BloomGelu() if name == "bloom" else ACT2FN[name]).eval())
    x = torch.cat([torch.linspace(-12, 12, 99_997), torch.tensor([0.0, -0.0, 30.0, -30.0])])
    with torch.no_grad():
        plain = act(x)
        with fast_modules(act):
            assert own_forwards(act) == ["0"]
            found = act(x)
            rows = act(x[:-1].view(8, -1).t())  # not contiguous
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(rows.t().reshape(-1), plain[:-1], rtol=1e-6, atol=2e-6)


def test_other_activations_are_left_alone():
    act = nn.Sequential(ACT2FN["quick_gelu"], ACT2FN["gelu"], ACT2FN["silu"], nn.GELU())
    with fast_modules(act):
        assert own_forwards(act) == []


def test_tanh_gelu_against_float64():
    x = torch.randn(3, 200_000) * 4
    exact = functional.gelu(x.double(), approximate="tanh")
    assert (tanh_gelu(x) - exact).abs().max() <= 1e-6 * exact.abs().max()
    assert tanh_gelu(x).shape == x.shape
    assert tanh_gelu(torch.tensor(1.0)).item() == pytest.approx(0.841192, abs=1e-6)
    assert tanh_gelu(torch.zeros(0, 4)).shape == (0, 4)


def test_the_rules():
    assert preferred_kernel("intel", 32, 2048 * 2048) == "onednn"
    assert preferred_kernel("intel", 32, 512 * 512) == "plain"
    assert preferred_kernel("intel", 1000, 2048 * 2048) == "plain"
    assert preferred_kernel("intel", 1, 2048 * 2048) == "plain"
    assert preferred_kernel("amd", 1000, 512 * 512) == "onednn"
    assert preferred_kernel("amd", 1, 512 * 512) == "plain"
    assert preferred_kernel("", 1000, 2048 * 2048) == "plain"


def test_a_wrong_kernel_is_never_chosen(monkeypatch):
    right = linear_kernels.linear
    monkeypatch.setattr(linear_kernels, "cpu_vendor", lambda: "amd")
    onednn_is_right.cache_clear()
    try:
        monkeypatch.setattr(
            linear_kernels,
            "linear",
            lambda kernel, x, w, b: right(kernel, x, w, b) * (1 + 1e-4 * (kernel == "onednn")),
        )
        assert linear_kernels.chosen_kernel(512, 512, 512) == "plain"
        onednn_is_right.cache_clear()

        def missing(*_: object) -> torch.Tensor:
            raise AttributeError("no such operation")

        monkeypatch.setattr(linear_kernels, "linear", missing)
        assert linear_kernels.chosen_kernel(512, 512, 512) == "plain"
    finally:
        onednn_is_right.cache_clear()


def test_kernels_against_float64():
    x, weight, bias = torch.randn(2, 40, 96), torch.randn(64, 96), torch.randn(64)
    exact = functional.linear(x.double(), weight.double(), bias.double())
    for kernel in ("plain", "onednn") if onednn_is_right() else ("plain",):
        found = linear(kernel, x, weight, bias)
        assert (found - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_rates_are_positive(monkeypatch):
    monkeypatch.setattr(linear_kernels, "COLD_BYTES", 2**20)
    rates = linear_rates(4, 64, 64, repeats=1)
    assert {"plain", "addmm"} <= set(rates)
    assert all(rate > 0 for rate in rates.values())
