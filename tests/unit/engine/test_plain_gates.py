"""Gates against bare hooks, inside attention too: they pass on sound models, see mistakes that all
of the engine's own ways share, and say so where there is no way to check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, hook_count, tiny_model, tiny_pairs
from torch import Tensor

from interpflow.engine import GateReport, answer_contrast_metric, run_gates
from interpflow.engine.gate_report import NO_ROUTE, GateRow
from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import attention_configs
from interpflow.engine.passes.recorder import Recorder
from interpflow.engine.sites import ATTENTION_COMPONENTS, Site
from interpflow.engine.sweeps import plain_attention
from interpflow.engine.sweeps.plain_attention import NoIndependentRoute, projection_of
from interpflow.engine.sweeps.plain_gates import plain_rows

INSIDE = [*(f"plain_hooks[{c}]" for c in ATTENTION_COMPONENTS), "eager_weights[pattern]"]
# Separate, fused and grouped projections, norms of one head and of all heads, sinks, experts.
NAMES = (*CONFIGS, "qwen3", "gemma3", "phi3", "olmo2", "gpt_oss", "bloom")


def checked(model: Model, tolerance: float = 1e-5) -> dict[str, GateRow]:
    base, _ = tiny_pairs()
    base[1] = base[1][:9]
    scale = float(model.last_logits(base).abs().max())
    return {row.name: row for row in plain_rows(model, base, tolerance, scale, seed=0)}


@pytest.mark.parametrize("name", NAMES)
def test_every_component_is_compared_with_bare_hooks(name: str) -> None:
    model = tiny_model(name, "float32")
    former = [config._attn_implementation for config in attention_configs(model.module)]
    rows = checked(model)
    components = [c for c in model.available_components if c != "embed"]
    assert {f"plain_hooks[{c}]" for c in components} == set(rows) - {"eager_weights[pattern]"}
    assert ("eager_weights[pattern]" in rows) == ("pattern" in components)
    for row in rows.values():
        assert row.passed, row
        assert row.value is not None
        assert row.value <= row.tolerance
    assert former == [config._attn_implementation for config in attention_configs(model.module)]
    assert hook_count(model) == 0


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_a_wrong_layout_of_a_fused_projection_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(name, "float32")
    layouts = {f: (c, not by_head) for f, (c, by_head) in plain_attention.FUSED_PROJECTIONS.items()}
    monkeypatch.setattr(plain_attention, "FUSED_PROJECTIONS", layouts)
    rows = checked(model)
    failed = [c for c in ("q", "k", "v", "pattern") if not rows[f"plain_hooks[{c}]"].passed]
    assert len(failed) >= 3


def other_head(states: Tensor, *args: Any, real: Callable, width: int) -> Tensor:
    rows, places, values, part = args
    if part.start is None or values.ndim == 3:
        return real(states, *args)
    n = part.stop - part.start
    start = (part.start + n) % states.shape[-1]
    return real(states, rows, places, values, slice(start, start + n))


def dropped(states: Tensor, *_: Any, real: Callable, width: int) -> Tensor:
    return states.clone()


def earlier_place(states: Tensor, *args: Any, real: Callable, width: int) -> Tensor:
    rows, places, values, part = args
    return real(states, rows, (places - 1) % states.shape[1], values, part)


@pytest.mark.parametrize("mistake", [other_head, dropped, earlier_place])
def test_writes_that_go_astray_are_caught(
    mistake: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama_grouped", "float32")
    real = hooks.write_states

    def wrong(states: Tensor, *args: Any) -> Tensor:
        return mistake(states, *args, real=real, width=model.head_dim)

    monkeypatch.setattr(hooks, "write_states", wrong)
    rows = checked(model)
    for component in ("q", "k", "v", "pattern", "head_out"):
        assert not rows[f"plain_hooks[{component}]"].passed, component
    assert rows["eager_weights[pattern]"].passed  # reading is not what is wrong


def test_heads_mistaken_for_one_another_everywhere_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read and written alike: every other gate agrees with itself."""
    model = tiny_model("llama_grouped", "float32")
    real = Recorder._features

    def reversed_heads(self: Recorder, site: Site, state: Tensor) -> slice:
        found = real(self, site, state)
        if site.head is None:
            return found
        return slice(state.shape[-1] - found.stop, state.shape[-1] - found.start)

    monkeypatch.setattr(Recorder, "_features", reversed_heads)
    base, donor = tiny_pairs()
    report = run_gates(model, base, donor, answer_contrast_metric([1, 2, 3], [4, 5, 6]))
    expected = {*INSIDE, "plain_hooks[head_out]"}
    assert {row.name for row in report.failed} == expected


def test_where_there_is_no_route_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither passed nor failed, and not left out."""
    model = tiny_model("gpt2", "float32")
    monkeypatch.setattr(plain_attention, "FUSED_PROJECTIONS", {})
    base, donor = tiny_pairs()
    report = run_gates(model, base, donor, answer_contrast_metric([1, 2, 3], [4, 5, 6]))
    report.require()
    assert report.passed
    assert [row.name for row in report.unchecked] == INSIDE
    for row in report.unchecked:
        assert (row.passed, row.value) == (None, None)
        assert row.detail.startswith(f"{NO_ROUTE}: transformer.h.")
    kept = [row for row in report.to_rows() if row["passed"] is None]
    assert [row["name"] for row in kept] == INSIDE
    assert all(row.passed for row in report.rows if row not in report.unchecked)


def test_values_changed_after_their_projection_leave_no_route_to_the_pattern() -> None:
    model = tiny_model("llama", "float32")
    weights, values = torch.rand(5, 5).softmax(-1), torch.randn(5, 8)
    plain_attention._check_mix(weights, values, weights @ values, "attention")
    with pytest.raises(NoIndependentRoute, match="attention mixes something else"):
        plain_attention._check_mix(weights, values, weights @ values * 1.1, "attention")
    place = projection_of(model.architecture, Site("v", 1, 3))
    assert place.module is model.module.model.layers[1].self_attn.v_proj
    assert (place.features, place.total) == (slice(24, 32), 32)
    with pytest.raises(NoIndependentRoute, match="does not give 32 features"):
        place.flat(torch.zeros(1, 11, 16), 11)


def test_failed_rows_are_raised_and_unchecked_ones_are_not() -> None:
    unchecked = GateRow("a", None, None, 1e-5, f"{NO_ROUTE}: none")
    GateReport((unchecked,), {}).require()
    with pytest.raises(RuntimeError, match="b: 2"):
        GateReport((unchecked, GateRow("b", False, 2.0, 1e-5, "off")), {}).require()
