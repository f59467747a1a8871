"""Planted anomalies: each copy computes what the same change of plan does to the model."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tiny_models import ALL_CONFIGS, VOCABULARY, tiny_model, tiny_module
from torch import Tensor

from interpflow.engine import Model, load
from interpflow.engine.layers.altered import as_interventions, planted
from interpflow.engine.layers.execute import PlanRunner
from interpflow.errors import UserError
from interpflow.plans.anomalies import Anomaly
from interpflow.plans.layer_plan import LayerPlan, Step

# All but those whose blocks the engine cannot change or run by themselves: experts in one tensor,
# recurrent states.
NAMES = ("llama", "llama_grouped", "qwen2", "qwen3", "mistral_window", "gemma2", "gemma3", "gpt2",
         "gpt_neox", "gpt_neox_serial", "opt", "olmo2", "granite", "phi3", "glm4",
         "stablelm_parallel")  # fmt: skip
KINDS = (Anomaly("no_op", (1,)), Anomaly("swapped", (0, 2)), Anomaly("duplicated", (1,)))
SCALED = Anomaly("scaled", (1,), 0.3)
TOLERANCE = 1e-5  # gemma computes some steps in float32 whatever the type
ROWS = torch.randint(1, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))


def own_logits(model: Model, *, use_cache: bool = False) -> Tensor:
    """Logits of transformers' own forward, [row, position, vocab]."""
    with torch.no_grad():
        return model.module(input_ids=ROWS, use_cache=use_cache).logits


def plan_logits(model: Model, plan: LayerPlan) -> Tensor:
    runner = PlanRunner(model, [plan], fast=False)
    (found,) = runner.states(ROWS.tolist(), [range(ROWS.shape[1])] * len(ROWS))
    return runner.unembed(found.states).unflatten(0, ROWS.shape)


def digest(model: Model) -> str:
    """Of weights, their names, the order of modules and the configuration."""
    total = hashlib.sha256(model.module.config.to_json_string(use_diff=False).encode())
    for name, part in model.module.named_modules():
        total.update(f"{name} {id(part)} {getattr(part, 'layer_idx', None)}".encode())
    for name, state in model.module.state_dict().items():
        total.update(name.encode() + state.numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_computes_what_the_plan_does_to_the_model(name: str) -> None:
    model = tiny_model(name)
    intact = own_logits(model)
    for anomaly in KINDS:
        plan = anomaly.plan(model.n_layers)
        assert plan is not None
        copied = planted(model, anomaly)
        assert copied.n_layers == plan.n_blocks + (anomaly.kind == "no_op")
        want = plan_logits(model, plan)
        for use_cache in (False, True):
            assert (own_logits(copied, use_cache=use_cache) - want).abs().max() < TOLERANCE
        assert (want - intact).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_scaled_or_silent_block_is_what_hooks_make_of_its_parts(name: str) -> None:
    model = tiny_model(name)
    intact = own_logits(model)[:, -1]
    for anomaly in (SCALED, Anomaly("scaled", (2,), -2.5), Anomaly("no_op", (0,))):
        want = model.patch(ROWS.tolist(), as_interventions(anomaly))
        assert (own_logits(planted(model, anomaly))[:, -1] - want).abs().max() < TOLERANCE
        assert (want - intact).abs().max() > 0.1


@pytest.mark.parametrize("name", ["gpt_neox", "stablelm_parallel"])
def test_scaling_both_parts_of_a_parallel_block_scales_what_it_adds(name: str) -> None:
    model = tiny_model(name)
    plan = LayerPlan((Step((0,)), Step((1,), factor=0.3), Step((2,))))
    found = own_logits(planted(model, SCALED))
    assert (found - plan_logits(model, plan)).abs().max() < TOLERANCE


def test_plans_undo_what_was_planted() -> None:
    model = tiny_model("llama")
    intact = own_logits(model)
    undone = {
        Anomaly("swapped", (0, 2)): LayerPlan.of([2, 1, 0]),
        Anomaly("duplicated", (1,)): LayerPlan.of([0, 2, 3]),
        Anomaly("duplicated", (2,)): LayerPlan.of([0, 1, 2]),
    }
    for anomaly, plan in undone.items():
        assert (plan_logits(planted(model, anomaly), plan) - intact).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "gpt_neox"])
def test_the_model_stays_as_it_is(name: str) -> None:
    model = tiny_model(name)
    before = digest(model)
    for anomaly in (*KINDS, SCALED):
        planted(model, anomaly)
    assert digest(model) == before


def test_a_copy_shares_the_weights_that_it_leaves_alone() -> None:
    model = tiny_model("llama")
    own = {id(p) for p in model.module.parameters()}
    new = [p for p in planted(model, SCALED).module.parameters() if id(p) not in own]
    assert {p.shape for p in new} == {
        p.shape for p in model.architecture.blocks[1].block.parameters()
    }
    assert all(id(p) in own for p in planted(model, KINDS[2]).module.parameters())


def test_a_copy_generates_with_its_cache() -> None:
    for anomaly in (*KINDS, SCALED):
        copied = planted(tiny_model("gemma3"), anomaly)
        settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
        cached, plain = (
            copied.module.generate(ROWS, use_cache=use, **settings)  # type: ignore[operator]
            for use in (True, False)
        )
        assert torch.equal(cached, plain)


def test_windows_go_with_their_blocks() -> None:
    # Blocks 0 and 2 look four tokens back, block 1 at everything.
    copied = planted(tiny_model("gemma3"), Anomaly("swapped", (0, 1)))
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    assert copied.module.config.layer_types == types
    longer = planted(tiny_model("gemma3"), Anomaly("duplicated", (1,)))
    types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    assert longer.module.config.layer_types == types
    assert longer.module.config.num_hidden_layers == 4


@pytest.mark.parametrize(
    ("name", "anomaly", "reason"),
    [
        ("llama", Anomaly("no_op", (3,)), "no block 3"),
        ("mixtral", Anomaly("scaled", (1,), 0.5), "no output projection"),
        ("jamba", Anomaly("no_op", (1,)), "what attention writes is not known"),
        ("jamba", Anomaly("swapped", (0, 1)), "cannot be rearranged"),
    ],
)
def test_what_cannot_be_planted_is_refused(name: str, anomaly: Anomaly, reason: str) -> None:
    assert name in ALL_CONFIGS
    with pytest.raises(UserError, match=reason):
        planted(tiny_model(name), anomaly)


def test_a_norm_that_its_weight_does_not_scale_is_refused() -> None:
    module = tiny_module("olmo2")
    model = load(module, dtype="float64")
    norm = model.architecture.blocks[1].mlp_outputs[0]
    norm.register_forward_hook(lambda _m, _args, out: out.sign())
    with pytest.raises(UserError, match="not scaled by its weight"):
        planted(model, SCALED)


@pytest.mark.parametrize(
    ("kind", "blocks", "factor"),
    [
        ("no_op", (1, 2), 1.0),
        ("swapped", (1, 1), 1.0),
        ("swapped", (1,), 1.0),
        ("scaled", (1,), 1.0),
        ("duplicated", (1,), 2.0),
        ("strange", (1,), 1.0),
    ],
)
def test_an_anomaly_that_is_none_is_refused(kind, blocks, factor) -> None:
    with pytest.raises(UserError, match="anomaly"):
        Anomaly(kind, blocks, factor)
