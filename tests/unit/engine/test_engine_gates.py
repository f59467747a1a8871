from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_models import CONFIGS, hook_count, tiny_model, tiny_pairs
from torch import Tensor, nn

from interpflow.engine import GateReport, answer_contrast_metric, run_gates
from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import Segment
from interpflow.engine.passes.prompt_states import PromptStates
from interpflow.engine.sweeps.path import joining_blocks

METRIC = answer_contrast_metric([1, 2, 3], [4, 5, 6])


def gates_of(model: Model, tolerance: float = 1e-5) -> GateReport:
    base, donor = tiny_pairs()
    base[1], donor[1] = base[1][:9], donor[1][:9]
    return run_gates(model, base, donor, METRIC, tolerance=tolerance)


def names(report: GateReport) -> set[str]:
    return {row.name for row in report.failed}


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        *((name, "float32", 1e-5) for name in CONFIGS),
        ("llama", "float64", 1e-12),
        ("llama", "bfloat16", 1e-1),
    ],
)
def test_a_sound_model_passes(name: str, dtype: str, tolerance: float) -> None:
    model = tiny_model(name, dtype)
    report = gates_of(model, tolerance)
    report.require()
    assert report.passed
    assert set(report.noise_floor) == {"logit_difference"}
    assert report.noise_floor["logit_difference"] < 100 * tolerance
    assert len(report.to_rows()) == len(report.rows) >= 15 - name.count("gpt_neox") * 2
    assert hook_count(model) == 0


def leave_alone(states: Tensor, *_: Any) -> Tensor:
    return states


def edit_a_copy(
    states: Tensor, rows: Tensor, places: Tensor, values: Tensor, part: slice
) -> Tensor:
    copy = states.clone()
    copy[rows, places, part] = values
    return states


def edit_a_feature_of_the_first_row(
    states: Tensor, _rows: Tensor, places: Tensor, values: Tensor, _part: slice
) -> Tensor:
    """What indexing a bare tensor as if it were a tuple does: output[0][:, p] = value."""
    edited = states.clone()
    edited[0][:, places[0] % edited.shape[2]] = values.flatten()[0]
    return edited


def edit_the_next_position(
    states: Tensor, rows: Tensor, places: Tensor, values: Tensor, part: slice
) -> Tensor:
    edited = states.clone()
    edited[rows, (places + 1) % states.shape[1], part] = values
    return edited


@pytest.mark.parametrize(
    "mistake",
    [leave_alone, edit_a_copy, edit_a_feature_of_the_first_row, edit_the_next_position],
)
def test_a_patch_that_does_not_arrive_is_caught(
    mistake: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2")
    monkeypatch.setattr(hooks, "write_states", mistake)
    report = gates_of(model)
    assert "full_swap" in names(report)
    assert "sweep_full_swap" in names(report)
    with pytest.raises(RuntimeError, match="full_swap"):
        report.require()


def test_a_hook_whose_result_is_dropped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")

    def deaf(module: nn.Module, function: hooks.StateFunction) -> Any:
        def hook(_module: nn.Module, _args: tuple, output: Any) -> None:
            function(hooks.state_of_output(output))

        return module.register_forward_hook(hook)

    monkeypatch.setattr(hooks, "on_output", deaf)
    failed = names(gates_of(model))
    assert {f"random_donor_moves[{c}]" for c in ("attn_out", "mlp_out", "resid_mid")} <= failed
    assert "random_donor_moves[head_out]" not in failed  # an input hook, still connected


def test_leaking_rows_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    real = hooks.write_states

    def leaky(*args: Any) -> Tensor:
        edited = real(*args)
        return edited + 1e-2 * edited.mean(dim=0, keepdim=True)

    monkeypatch.setattr(hooks, "write_states", leaky)
    assert "self_patch[resid_pre]" in names(gates_of(model))


def test_a_patch_that_acts_on_the_past_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    real = hooks.write_states

    def backwards(states: Tensor, *args: Any) -> Tensor:
        edited = real(states, *args)
        return edited + 1e-2 * (edited - states).mean(dim=1, keepdim=True)

    monkeypatch.setattr(hooks, "write_states", backwards)
    assert "causality" in names(gates_of(model))


def test_a_wrong_shortcut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that read another pair's keys and values."""
    model = tiny_model("llama")
    assert joining_blocks(model) is not None
    real = PromptStates.before

    def mixed_up(self: PromptStates, layer: int, position: int, rows: Any) -> Any:
        return [
            Segment(part.keys.roll(1, dims=0), part.values.roll(1, dims=0))
            for part in real(self, layer, position, rows)
        ]

    monkeypatch.setattr(PromptStates, "before", mixed_up)
    assert "fast_equals_slow" in names(gates_of(model))


def test_a_model_that_ignores_its_input_is_caught() -> None:
    model = tiny_model("llama")
    model.module.lm_head.weight.data.zero_()
    assert "pairs_differ" in names(gates_of(model))


def test_equal_pairs_fail_instead_of_proving_nothing() -> None:
    base, _ = tiny_pairs()
    report = run_gates(tiny_model("llama"), base, base, METRIC)
    assert names(report) == {"pairs_differ"}


@pytest.mark.parametrize("mistake", ["dropped", "swapped"])
def test_writes_to_a_wrong_head_or_none_are_caught(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes that the fast and the whole way share: only bare hooks show them."""
    model = tiny_model("llama_grouped")
    real = hooks.write_states
    width = model.head_dim

    def wrong(states: Tensor, rows: Tensor, places: Tensor, values: Tensor, part: slice) -> Tensor:
        if part.start is None or states.shape[-1] != model.n_heads * width:
            return real(states, rows, places, values, part)
        if mistake == "dropped":
            return states.clone()
        other = (part.start // width + 1) % model.n_heads * width
        return real(states, rows, places, values, slice(other, other + width))

    monkeypatch.setattr(hooks, "write_states", wrong)
    assert "plain_hooks[head_out]" in names(gates_of(model))
