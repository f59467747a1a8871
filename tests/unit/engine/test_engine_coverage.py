"""Decoder families beyond those that every engine test runs on: what is proven, and refused."""

from __future__ import annotations

import pytest
import torch
from tiny_models import (
    ALL_CONFIGS,
    MORE_CONFIGS,
    PARTLY_FLOAT32,
    RECURRENT_CONFIGS,
    hook_count,
    tiny_model,
    tiny_module,
    tiny_pairs,
)
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from interpflow.engine import COMPONENTS, Patch, Site, all_sites, load, sweep_sites
from interpflow.engine.passes import attention
from interpflow.engine.sites import ATTENTION_COMPONENTS
from interpflow.engine.sweeps.path import joining_blocks, why_whole
from interpflow.errors import UserError

# Their attention has a mask with biases of its own, outside transformers' attention interface.
OWN_ATTENTION = ("bloom", "falcon_new", "falcon_old", "falcon_alibi")
PARALLEL = ("falcon_new", "falcon_old", "stablelm_parallel", "gpt_neox")
EXPERTS = ("mixtral", "gpt_oss")
OF_TRANSFORMERS = [n for n in ALL_CONFIGS if n not in (*OWN_ATTENTION, *RECURRENT_CONFIGS)]


def expected_refusals(name: str) -> set[str]:
    return {
        *(ATTENTION_COMPONENTS if name in OWN_ATTENTION else ()),
        *(["resid_mid"] if name in PARALLEL else ()),
        *(["mlp_act"] if name in EXPERTS else ()),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MORE_CONFIGS)
def test_what_is_proven(name: str, dtype: str) -> None:
    model = tiny_model(name, dtype)
    assert set(model.architecture.refused) == expected_refusals(name)
    assert all(model.architecture.blocks[0].name in r for r in model.architecture.refused.values()
               if "parallel" not in r)  # fmt: skip
    assert hook_count(model) == 0


@pytest.mark.parametrize("name", OWN_ATTENTION)
def test_attention_of_its_own_is_refused_by_name(name: str) -> None:
    """What is wrong and where, and nothing of the error in which it showed."""
    model = tiny_model(name)
    reason = (
        "transformer.h.0.self_attention computes attention by itself, not through the attention "
        "interface of transformers, so that its inside cannot be reached"
    )
    for component in ATTENTION_COMPONENTS:
        assert model.architecture.refused[component] == reason
    assert why_whole(model) == f"its blocks cannot be called one at a time: {reason}"
    with pytest.raises(UserError, match=r"q cannot be used on this model: transformer\.h\.0"):
        model.capture([[1, 2, 3]], "q", layers=[1])
    assert hook_count(model) == 0


@pytest.mark.parametrize("name", ["gpt2", "llama_grouped", "gemma2", "gpt_oss", "mistral_window"])
def test_a_block_hands_out_the_rows_of_its_pattern(name: str) -> None:
    """Rows from a later position on, beside the whole pattern if that is captured as well."""
    model = tiny_model(name)
    base, _ = tiny_pairs(2)
    sites = [Site("resid_pre", 1), Site("pattern", 1), Site("pattern", 1, 2), Site("resid_post", 1)]
    states = model.capture(base, sites)
    pattern = states[sites[1]]
    blocks = joining_blocks(model)
    assert blocks is not None
    first, rows = 4, torch.tensor([[6, 0], [3, 3]])
    earlier = blocks.keys_values(1, states[sites[0]][:, :first], 0, 11)
    for capture in ((), (sites[2],)):
        found = blocks.run(
            1, states[sites[0]][:, first:], first, 11,
            segments=(earlier,), capture=capture, pattern_rows=rows,
        )  # fmt: skip
        assert found.pattern is not None
        assert found.pattern.shape == (2, 2, 4, 11)
        for row in range(2):
            expected = pattern[row, first + rows[row]]
            assert torch.allclose(found.pattern[row], expected, atol=1e-6, rtol=0)
            assert not torch.allclose(found.pattern[row], pattern[1 - row, first + rows[row]])
        after = states[sites[3]][:, first:]
        assert torch.allclose(found.states, after, atol=1e-5, rtol=0)
        for site in capture:
            assert torch.allclose(found.captured[site], states[site][:, first:], atol=1e-6, rtol=0)
    assert blocks.run(1, states[sites[0]], 0, 11).pattern is None


@pytest.mark.parametrize("name", MORE_CONFIGS)
def test_swaps_carry_the_donor_and_self_patches_nothing(name: str) -> None:
    model = tiny_model(name)
    base, donor = tiny_pairs(2)
    everywhere = [list(range(11))] * 2
    wanted = model.last_logits(donor)
    atol = 1e-5 if name in (*PARTLY_FLOAT32, *EXPERTS, "gemma3", "olmo2") else 1e-11
    for component in model.available_components:
        sites = all_sites(model, [component], [1])
        logits, own = model.run(base, sites=sites)
        patches = [Patch(s, everywhere, own[s]) for s in sites]
        assert torch.equal(model.patch(base, patches), logits)
    groups = [["resid_pre"], ["resid_post"], ["resid_pre", "attn_out", "mlp_out"]]
    inner = ["resid_pre", "q", "k", "v"] if "q" in model.available_components else ["resid_pre"]
    groups += [[*inner, "mlp_out"], ["resid_pre", "head_out", "mlp_out"]]
    for group in groups:
        sites = all_sites(model, group, [1])
        states = model.capture(donor, sites)
        patched = model.patch(base, [Patch(s, everywhere, states[s]) for s in sites])
        assert torch.allclose(patched, wanted, atol=atol, rtol=0)


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_patterns_are_those_of_transformers(name: str) -> None:
    """An independent computation: eager attention hands out its weights."""
    model = tiny_model(name)
    base, _ = tiny_pairs(2)
    sites = [Site("pattern", layer) for layer in range(model.n_layers)]
    rows = [[10], [3, 7]]
    captured = model.capture(base, sites)
    some = model.capture(base, sites, positions=rows)
    module = tiny_module(name).double().eval()
    module.set_attn_implementation("eager")
    with torch.no_grad():
        weights = module(torch.tensor(base), output_attentions=True, use_cache=False).attentions
    for site, expected in zip(sites, weights):
        expected = expected.transpose(1, 2)
        assert captured[site].shape == expected.shape == (2, 11, 4, 11)
        assert torch.allclose(captured[site].to(expected), expected, atol=1e-5, rtol=0)
        for row, chosen in enumerate(rows):
            found = some[site][row, : len(chosen)]
            assert torch.allclose(found, captured[site][row, chosen], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["llama_grouped", "gpt2", "qwen3", "gemma2", "gpt_oss"])
def test_heads_are_parts_of_all_heads(name: str) -> None:
    model = tiny_model(name)
    base, donor = tiny_pairs(2)
    for component in (*ATTENTION_COMPONENTS, "head_out"):
        whole = Site(component, 1)
        sites = all_sites(model, [component], [1])
        states = model.capture(donor, [whole, *sites])
        parts = states[whole].unflatten(2, (len(sites), -1)) if states[whole].ndim == 3 else None
        for head, site in enumerate(sites):
            expected = states[whole][:, :, head] if parts is None else parts[:, :, head]
            assert torch.equal(states[site], expected)
        places = [[10], [6, 10]]
        together = model.patch(base, [Patch(whole, places, states[whole])])
        one_by_one = model.patch(base, [Patch(s, places, states[s]) for s in sites])
        assert torch.equal(together, one_by_one)
        assert not torch.allclose(together, model.last_logits(base), atol=1e-4)


@pytest.mark.parametrize("name", ["llama_grouped", "gpt2", "gemma2"])
def test_queries_and_keys_give_the_pattern(name: str) -> None:
    model = tiny_model(name)
    base, _ = tiny_pairs(2)
    q, k, pattern = (Site(c, 0, h) for c, h in (("q", 3), ("k", 3 if name == "gpt2" else 1),
                                                ("pattern", 3)))  # fmt: skip
    states = model.capture(base, [q, k, pattern])
    config = model.module.config
    scale = getattr(config, "query_pre_attn_scalar", states[q].shape[-1]) ** -0.5
    scores = states[q] @ states[k].transpose(1, 2) * scale
    if name == "gemma2":
        scores = torch.tanh(scores / config.attn_logit_softcapping) * config.attn_logit_softcapping
    near = torch.ones(11, 11).tril() - (torch.ones(11, 11).tril(-4) if name == "gemma2" else 0)
    expected = scores.masked_fill(near == 0, float("-inf")).softmax(-1)
    assert torch.allclose(states[pattern], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", RECURRENT_CONFIGS)
def test_recurrent_blocks_are_run_whole(name: str) -> None:
    model = tiny_model(name)
    assert {"embed", "resid_pre", "resid_post"} <= set(model.available_components)
    assert "model.layers.0" in model.architecture.refused["head_out"]
    base, donor = tiny_pairs(2)
    sites = [Site("resid_pre", 1), Site("resid_post", 1), Site("resid_post", 2)]
    groups = [[[2], [10], list(range(11))]] * 2

    def metric(logits: Tensor, _pairs: Tensor) -> dict[str, Tensor]:
        return {"first": logits[:, 0].double()}

    found = sweep_sites(model, base, donor, sites, groups, metric)
    assert found.path in ("full", "resume")
    states = model.capture(donor, sites)
    for s, site in enumerate(sites):
        for g in range(3):
            places = [groups[pair][g] for pair in range(2)]
            naive = model.patch(base, [Patch(site, places, states[site])])[:, 0]
            values = torch.from_numpy(found.values["first"][:, s, g])
            assert torch.allclose(values, naive.double(), atol=1e-6, rtol=0)


def test_several_streams_and_shared_keys_are_refused_by_name() -> None:
    config = CONFIG_MAPPING["gemma3n_text"](
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=4, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, num_kv_shared_layers=2, laurel_rank=4,
        vocab_size_per_layer_input=50, hidden_size_per_layer_input=8, altup_num_inputs=2,
        layer_types=["sliding_attention", "full_attention"] * 2, pad_token_id=0,
        activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"model\.layers\.0 does not run once on states"):
        load(AutoModelForCausalLM.from_config(config))


def test_a_window_that_is_not_declared_is_refused() -> None:
    module = tiny_module("mistral_window")
    module.config.sliding_window = 40  # what the attention was built with stays 4
    for layer in module.model.layers:
        assert layer.self_attn.config is module.config
    module.config.layer_types = ["full_attention"] * 3
    refused = load(module).architecture.refused
    assert set(refused) == set(ATTENTION_COMPONENTS)
    assert "uses a window of 40 positions, declared is None" in refused["q"]
    chunked = tiny_module("llama")
    chunked.config.attention_chunk_size = 4
    assert "works in chunks" in load(chunked).architecture.refused["pattern"]


def test_attention_that_is_not_what_we_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention._scores

    def hotter(query: Tensor, segments: list[attention.Segment], scale: float) -> Tensor:
        return real(query, segments, scale * 1.1)

    monkeypatch.setattr(attention, "_scores", hotter)
    refused = tiny_model("llama", "float32").architecture.refused
    assert "model.layers.0.self_attn does something else than attention" in refused["pattern"]


def test_a_disconnected_watch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is seen and nothing written: captures look right, edits do nothing."""
    real = attention._seen

    def deaf(run: attention.AttentionPass, name: str, layer: int, state: Tensor) -> Tensor:
        real(run, name, layer, state)
        return state

    monkeypatch.setattr(attention, "_seen", deaf)
    refused = tiny_model("llama_grouped").architecture.refused
    assert set(refused) == set(ATTENTION_COMPONENTS)
    assert "does not reach its output" in refused["v"]


def test_later_tokens_that_are_seen_are_refused() -> None:
    module = tiny_module("llama")
    block = module.model.layers[1]
    real = block.forward

    def backwards(states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return real(states, *args, **kwargs) + 0.1 * states.flip(1)

    block.forward = backwards
    with pytest.raises(UserError, match="the last token changes the logits"):
        load(module)


def test_components_are_in_the_order_of_a_forward() -> None:
    model = tiny_model("gpt2")
    base, donor = tiny_pairs(2)
    sites = [Site(c, 1) for c in COMPONENTS[1:]]
    states = model.capture(base, sites)
    for index, site in enumerate(sites):
        other = model.capture(donor, [site])[site]
        patch = Patch(site, "all", other)
        moved = model.run(base, interventions=[patch], sites=sites)[1]
        for before in sites[:index]:
            # q, k and v are computed side by side; the middle is written through attn_out.
            sides = {site.component, before.component}
            if not (sides <= {"q", "k", "v"} or sides == {"attn_out", "resid_mid"}):
                assert torch.equal(moved[before], states[before])
        assert not torch.equal(moved[sites[-1]], states[sites[-1]])
