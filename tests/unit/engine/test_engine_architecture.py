from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, hook_count, tiny_model, tiny_module, tiny_pairs
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from interpflow.engine import COMPONENTS, Patch, Site, architecture, load
from interpflow.errors import UserError


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_is_proven(name: str, dtype: str) -> None:
    model = tiny_model(name, dtype)
    parallel = name == "gpt_neox"
    assert model.architecture.parallel is parallel
    expected = tuple(c for c in COMPONENTS if not (parallel and c == "resid_mid"))
    assert model.available_components == expected
    assert (model.n_layers, model.n_heads, model.d_model) == (3, 4, 32)
    assert hook_count(model) == 0


def test_the_shape_of_heads_is_read_from_the_projection() -> None:
    grouped = tiny_model("llama_grouped")
    assert (grouped.n_kv_heads, grouped.head_dim, grouped.d_model) == (2, 16, 32)


def test_soft_capped_models_add_what_their_norms_return() -> None:
    model = tiny_model("gemma2")
    block = model.module.model.layers[1]
    parts = model.architecture.blocks[1]
    assert parts.attention_outputs == (block.post_attention_layernorm,)
    assert parts.mlp_outputs == (block.post_feedforward_layernorm,)


@pytest.mark.parametrize("name", CONFIGS)
def test_logit_lens_of_the_last_layer_gives_the_logits(name: str) -> None:
    model = tiny_model(name)
    base, _ = tiny_pairs()
    site = Site("resid_post", model.n_layers - 1)
    residual = model.capture(base, [site])[site][:, -1]
    assert torch.allclose(model.unembed(residual), model.last_logits(base), atol=1e-12, rtol=0)


def test_scaled_contributions_are_what_is_added() -> None:
    model = tiny_model("granite")
    assert model.architecture.residual_multiplier == 0.22
    assert not model.architecture.refused
    base, _ = tiny_pairs()
    sites = [Site(c, 1) for c in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")]
    states = list(model.capture(base, sites).values())
    assert torch.allclose(states[0] + states[1], states[2], atol=1e-12, rtol=0)
    assert torch.allclose(states[2] + states[3], states[4], atol=1e-12, rtol=0)
    # What is written is what is added, whatever the multiplier.
    values = torch.randn(3, 11, 32, dtype=torch.float64)
    patches = [Patch(site, [[4]] * 3, values) for site in sites[1:4:2]]
    _, moved = model.run(base, interventions=patches, sites=[sites[0], sites[4]])
    written = moved[sites[4]][:, 4] - moved[sites[0]][:, 4]
    assert torch.allclose(written, 2 * values[:, 4], atol=1e-12, rtol=0)


def test_norms_after_the_sum_are_refused() -> None:
    model = tiny_model("opt", do_layer_norm_before=False)
    assert "attn_out" in model.architecture.refused
    assert "resid_pre" in model.available_components


def test_a_wrong_final_norm_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "FINAL_NORM_NAMES", ("absent",))
    with pytest.raises(UserError, match="does not give the logits"):
        tiny_model("llama")


def test_a_wrong_mlp_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "MLP_NAMES", ("input_layernorm",))
    model = tiny_model("llama")
    assert {"attn_out", "mlp_out"} <= set(model.architecture.refused)


def test_a_contribution_too_small_to_see_is_not_believed() -> None:
    module = tiny_module("llama")
    for layer in module.model.layers:  # the MLP's own output is lost in rounding
        layer.mlp.down_proj.weight.data *= 1e-12
    kept = architecture.MLP_NAMES
    try:
        architecture.MLP_NAMES = ("self_attn",)
        for layer in module.model.layers:
            layer.self_attn.o_proj.weight.data *= 1e-12
        assert "mlp_out" in load(module).architecture.refused
    finally:
        architecture.MLP_NAMES = kept


def test_a_wrong_projection_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "ATTENTION_PROJECTION_NAMES", ("q_proj",))
    assert "head_out" in tiny_model("llama").architecture.refused


def test_what_is_no_decoder_is_refused() -> None:
    small = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UserError, match="has an encoder"):
        load(T5ForConditionalGeneration(small))
    state_space = MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4)
    with pytest.raises(UserError, match="number of attention heads"):
        load(MambaForCausalLM(state_space))


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UserError, match="floating-point"):
        load(tiny_module("llama"), dtype="int8")
