"""Lenses: what they read at each depth, how they are trained, and whom they belong to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, VOCABULARY, tiny_model
from torch import nn

from interpflow.engine.lenses.depth_states import depth_sites, depth_states
from interpflow.engine.lenses.lens_divergence import descent, divergence
from interpflow.engine.lenses.lens_files import lens_metadata, load_lens, save_lens
from interpflow.engine.lenses.lens_training import train_tuned_lens
from interpflow.engine.lenses.logit_lens import LogitLens, identity_gate, lens_identity
from interpflow.engine.lenses.readings import read_lenses
from interpflow.engine.lenses.state_pool import StatePool
from interpflow.engine.lenses.tuned_lens import TunedLens
from interpflow.engine.model import Model
from interpflow.errors import UserError


def documents(n: int, length: int = 9, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(length - 3, length + 1, (n,), generator=generator).tolist()
    return [torch.randint(1, VOCABULARY, (k,), generator=generator).tolist() for k in lengths]


def all_states(model: Model, rows: list[list[int]]) -> torch.Tensor:
    """[depth, n, d_model] of all places but the first of all rows."""
    return torch.cat([found.states[:, 1:] for found in depth_states(model, rows)], dim=1)


def rotated(model: Model, seed: int = 0) -> Model:
    """Block 0 writes its input rotated and moved; the blocks after it undo that."""
    d = model.d_model
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    rotation = rotation.to(model.dtype)
    offset = torch.randn(d, generator=generator, dtype=torch.float64).to(model.dtype)
    first, second = (model.architecture.blocks[layer].block for layer in (0, 1))
    first.forward = lambda hidden_states, *_, **__: hidden_states @ rotation + offset
    second.forward = lambda hidden_states, *_, **__: (hidden_states - offset) @ rotation.t()
    return model


def linear_lm(d: int = 8) -> Model:
    """A model whose first state, rotated and moved, is all that its logits need."""
    model = tiny_model("llama", "float32", hidden_size=d, num_attention_heads=2,
                       num_hidden_layers=2, initializer_range=1.0)  # fmt: skip
    return rotated(model)


@pytest.mark.parametrize("family", [*CONFIGS])
def test_depths_are_the_models_own_residuals_and_the_last_reads_as_the_model(family: str) -> None:
    model = tiny_model(family, "float32")
    rows = documents(5)
    gate = lens_identity(model, rows)
    assert gate.passed, gate
    for found in depth_states(model, rows, batch_tokens=20):
        row = rows[found.number]
        alone = model.capture([row], depth_sites(model))
        for depth, site in enumerate(depth_sites(model)):
            assert torch.allclose(found.states[depth], alone[site][0], atol=1e-5)
    assert sorted(found.number for found in depth_states(model, rows)) == list(range(5))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_state_that_was_normed_before_does_not_pass(family: str) -> None:
    model = tiny_model(family, "float32")
    states = all_states(model, documents(3))[-1]
    own = model.unembed(states)
    assert identity_gate(model.unembed(states), own).passed
    normed = model.architecture.normalized(states)
    assert not identity_gate(model.unembed(normed), own).passed
    assert not identity_gate(torch.full_like(own, float("nan")), own).passed


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", ["affine", "bias"])
def test_before_training_it_is_the_logit_lens_bit_for_bit(kind: str, dtype: str) -> None:
    model = tiny_model("llama", dtype)
    states = all_states(model, documents(4))
    lens = TunedLens.identity(model, kind)  # type: ignore[arg-type]
    assert lens.kind == kind
    for depth in range(model.n_layers + 1):
        assert torch.equal(lens.logits(model, depth, states[depth]), model.unembed(states[depth]))
    with pytest.raises(IndexError):
        lens.translated(model.n_layers + 1, states[0])


def test_gradients_are_those_of_torch() -> None:
    model = tiny_model("gemma2", "float32")  # caps its logits
    states = all_states(model, documents(4))
    generator = torch.Generator().manual_seed(1)
    n, d = model.n_layers, model.d_model
    weight = (0.1 * torch.randn(n, d, d, generator=generator)).requires_grad_()
    bias = (0.1 * torch.randn(n, d, generator=generator)).requires_grad_()
    lens = TunedLens(weight, bias)
    plain = TunedLens(weight.detach(), bias.detach())
    found = descent(model, plain, states)
    assert all(parameter.grad is None for parameter in model.module.parameters())
    final = model.unembed(states[-1]).log_softmax(-1)
    total = torch.zeros(())
    each = []
    for depth in range(n):
        logits = model.architecture.unembed(lens.translated(depth, states[depth]))
        kl = (final.exp() * (final - logits.log_softmax(-1))).sum(-1).mean()
        each.append(kl.item())
        total = total + kl
    total.backward()
    assert found.kl.tolist() == pytest.approx(each, abs=1e-5)
    assert divergence(model, plain, states).tolist() == found.kl.tolist()
    assert found.weight is not None
    assert torch.allclose(found.weight, weight.grad, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(found.bias, bias.grad, atol=1e-5)  # type: ignore[arg-type]


def test_it_finds_a_rotation_that_the_logit_lens_cannot_read() -> None:
    # methods 6.3: tuned < 1e-2 < unigram < logit lens at the rotated depth.
    model = linear_lm()
    rows = documents(60, length=12)
    fit = train_tuned_lens(
        model, rows[:50], steps=500, documents_per_step=16, learning_rate=5e-2,
        weight_decay=0.0, seed=0,
    )  # fmt: skip
    states = all_states(model, rows[50:])
    found = read_lenses(model, {"logit": LogitLens(), "tuned": fit.lens}, states)
    final = model.unembed(states[-1]).log_softmax(-1)
    mean = model.unembed(all_states(model, rows[:50])[-1]).softmax(-1).mean(0).log()
    unigram = (final.exp() * (final - mean)).sum(-1).mean().item()
    logit, tuned = (found[name].kl.mean(dim=1).tolist() for name in ("logit", "tuned"))
    assert tuned[1] < 1e-2 < unigram < logit[1]
    assert logit[0] < 1e-6  # nothing is left to do after the embedding
    assert tuned[0] < 1e-6  # and the untrained parameters are kept there
    assert logit[2] == tuned[2] == 0.0


def test_a_bias_alone_cannot_undo_a_rotation() -> None:
    model = linear_lm()
    rows = documents(50, length=12)
    settings = {"steps": 150, "documents_per_step": 16, "learning_rate": 2e-2,
                "weight_decay": 0.0, "seed": 0}  # fmt: skip
    pool = StatePool(model, rows)
    affine = train_tuned_lens(model, pool, **settings)  # type: ignore[arg-type]
    bias = train_tuned_lens(model, pool, kind="bias", **settings)  # type: ignore[arg-type]
    states = all_states(model, rows)
    plain = divergence(model, TunedLens.identity(model), states)[1]
    assert bias.lens.weight is None
    assert divergence(model, affine.lens, states)[1] < 0.3 * divergence(model, bias.lens, states)[1]
    assert divergence(model, bias.lens, states)[1] < plain


def test_training_repeats_itself_whatever_the_threads_and_whether_states_are_kept() -> None:
    model = tiny_model("gpt2", "float32")
    rows = documents(30)
    settings = {"steps": 12, "documents_per_step": 4, "tokens_per_step": 16,
                "learning_rate": 1e-2, "weight_decay": 1e-3, "seed": 7}  # fmt: skip

    def trained(threads: int) -> bytes:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            fit = train_tuned_lens(model, rows, **settings)  # type: ignore[arg-type]
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert fit.lens.weight is not None
        return fit.lens.weight.numpy().tobytes() + fit.lens.bias.numpy().tobytes()

    assert trained(1) == trained(2)
    kept, anew = StatePool(model, rows), StatePool(model, rows, pool_bytes=0)
    assert (kept.is_kept, anew.is_kept) == (True, False)
    first = train_tuned_lens(model, kept, **settings).lens  # type: ignore[arg-type]
    second = train_tuned_lens(model, anew, **settings).lens  # type: ignore[arg-type]
    assert torch.allclose(first.bias, second.bias, atol=1e-4)
    other = train_tuned_lens(model, kept, **{**settings, "seed": 8}).lens  # type: ignore[arg-type]
    assert not torch.allclose(first.bias, other.bias, atol=1e-4)


def test_weight_decay_pulls_towards_the_identity() -> None:
    model = tiny_model("llama", "float32")
    pool = StatePool(model, documents(8))  # too few to hold any back

    def size(decay: float) -> float:
        fit = train_tuned_lens(model, pool, steps=40, documents_per_step=8, learning_rate=1e-2,
                               weight_decay=decay, seed=0)  # fmt: skip
        assert (len(fit.training), len(fit.validation)) == (8, 0)
        assert fit.lens.weight is not None
        return fit.lens.weight.norm().item()

    assert size(1.0) < 0.95 * size(0.0)


def test_readings_have_known_answers() -> None:
    model = tiny_model("llama", "float32", num_hidden_layers=1, hidden_size=4,
                       num_attention_heads=2, vocab_size=4)  # fmt: skip
    known = {0: torch.tensor([1.0, 1.0, 1.0, 0.0]), 1: torch.tensor([2.0, 1.0, 0.0, 0.0])}
    # methods 6.1: intact logits (2, 1, 0, 0), read (1, 1, 1, 0): KL .2481727.
    reader = replace(
        model.architecture, final_norm=None, after_norm=None, unembedding=nn.Identity()
    )
    model = replace(model, architecture=reader)
    states = torch.stack([known[0], known[1]])[:, None]
    found = read_lenses(model, {"logit": LogitLens()}, states, torch.tensor([1]))["logit"]
    assert found.kl[:, 0].tolist() == pytest.approx([0.2481727, 0.0], abs=1e-6)
    assert found.kl[1, 0] == 0.0
    assert found.final_rank[:, 0].tolist() == [2.0, 1.0]  # three share the first place
    final = known[1].softmax(0)
    assert found.loss[1, 0].item() == pytest.approx(-final[1].log().item(), abs=1e-6)
    assert found.top[1, 0] == 0
    assert found.probability[1, 0].item() == pytest.approx(final[0].item(), abs=1e-6)
    assert found.final_probability[1, 0] == pytest.approx(final[0].item(), abs=1e-6)
    entropy = -(final * final.log()).sum().item()
    assert found.entropy[1, 0].item() == pytest.approx(entropy, abs=1e-6)
    with pytest.raises(ValueError, match="depths"):
        read_lenses(model, {"logit": LogitLens()}, states[:1])


def test_a_saved_lens_belongs_to_its_model(tmp_path: Path) -> None:
    model = tiny_model("gpt2", "float32")
    generator = torch.Generator().manual_seed(2)
    lens = TunedLens(torch.randn(3, 32, 32, generator=generator), torch.randn(3, 32))
    bias = TunedLens(None, torch.randn(3, 32))
    path = tmp_path / "lens.safetensors"
    save_lens(path, {"tuned": lens, "bias": bias}, model, revision="r", config={"steps": 3})
    first = path.read_bytes()
    save_lens(path, {"tuned": lens, "bias": bias}, model, revision="r", config={"steps": 3})
    assert path.read_bytes() == first
    found = load_lens(path, model)
    assert set(found) == {"tuned", "bias"}
    assert torch.equal(found["tuned"].weight, lens.weight)  # type: ignore[arg-type]
    assert torch.equal(found["bias"].bias, bias.bias)
    assert found["bias"].weight is None
    assert lens_metadata(path)["revision"] == "r"
    other = tiny_model("gpt2", "float32")
    other.architecture.final_norm.weight.data[0] += 0.1  # type: ignore[union-attr, operator, index]
    with pytest.raises(UserError, match="another model"):
        load_lens(path, other)
    with pytest.raises(UserError, match="another model"):
        load_lens(path, tiny_model("gpt2", "float32", n_layer=2))


def test_files_that_hold_no_lens_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lens.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        lens_metadata(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no lens"):
        lens_metadata(path)


def test_documents_of_one_token_train_nothing() -> None:
    model = tiny_model("gpt2", "float32")
    with pytest.raises(UserError, match="two tokens"):
        StatePool(model, [[1], [2]])
    assert StatePool(model, [[1], [2, 3, 4]]).n_documents == 1
