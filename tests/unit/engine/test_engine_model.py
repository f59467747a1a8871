from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, PARTLY_FLOAT32, hook_count, tiny_model, tiny_pairs
from torch import Tensor

from interpflow.engine import Patch, Site, TokenBatch, ZeroAblation, all_sites
from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.sites import ATTENTION_COMPONENTS
from interpflow.errors import UserError

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
FAMILIES = [*((name, "float64") for name in CONFIGS), ("llama", "float32"), ("gpt2", "float32")]


def everywhere(ids: list[list[int]]) -> list[list[int]]:
    return [list(range(len(row))) for row in ids]


def stream_sites(model: Model) -> list[Site]:
    return [*all_sites(model, ["resid_pre"]), Site("resid_post", model.n_layers - 1)]


@pytest.mark.parametrize(("name", "dtype"), FAMILIES)
def test_a_self_patch_changes_nothing(name: str, dtype: str) -> None:
    model = tiny_model(name, dtype)
    base, _ = tiny_pairs()
    plain = model.last_logits(base)
    for component in model.available_components:
        sites = all_sites(model, [component])
        # What is inside attention is reached by attention of our own, in the unpatched pass too.
        logits, states = model.run(base, sites=sites)
        patched = model.patch(base, [Patch(s, everywhere(base), states[s]) for s in sites])
        assert torch.equal(patched, logits)
        if component in ATTENTION_COMPONENTS:
            atol = 1e-5 if name in PARTLY_FLOAT32 else TOLERANCE[dtype]
            assert torch.allclose(logits, plain, atol=atol, rtol=0)
        else:
            assert torch.equal(logits, plain)


@pytest.mark.parametrize(("name", "dtype"), FAMILIES)
def test_the_whole_stream_at_any_layer_carries_the_donor(name: str, dtype: str) -> None:
    model = tiny_model(name, dtype)
    base, donor = tiny_pairs()
    states = model.capture(donor, stream_sites(model))
    expected = model.last_logits(donor)
    assert not torch.allclose(expected, model.last_logits(base), atol=1e-2)
    for site, values in states.items():
        patched = model.patch(base, [Patch(site, everywhere(base), values)])
        assert torch.allclose(patched, expected, atol=TOLERANCE[dtype], rtol=0)
    last = [[len(row) - 1] for row in base]
    site = Site("resid_post", model.n_layers - 1)
    patched = model.patch(base, [Patch(site, last, states[site])])
    assert torch.allclose(patched, expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_and_mlp_together_carry_the_block(name: str) -> None:
    """Donor contributions of one block plus the donor's block input are the donor's output."""
    model = tiny_model(name)
    base, donor = tiny_pairs()
    sites = [Site(c, 1) for c in ("resid_pre", "attn_out", "mlp_out")]
    states = model.capture(donor, sites)
    patched = model.patch(base, [Patch(s, everywhere(base), states[s]) for s in sites])
    assert torch.allclose(patched, model.last_logits(donor), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [n for n in CONFIGS if n != "gpt_neox"])
def test_the_middle_of_a_block_carries_the_donor(name: str) -> None:
    model = tiny_model(name)
    base, donor = tiny_pairs()
    site = Site("resid_mid", 1)
    values = model.capture(donor, [site])[site]
    patched = model.patch(base, [Patch(site, everywhere(base), values)])
    assert torch.allclose(patched, model.last_logits(donor), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_patch_changes_nothing_before_its_position(name: str) -> None:
    model = tiny_model(name)
    base, donor = tiny_pairs()
    site, after = Site("resid_pre", 1), Site("resid_post", 2)
    values = model.capture(donor, [site])[site]
    clean = model.capture(base, [after])[after]
    place = 5  # all pairs differ here
    _, states = model.run(base, interventions=[Patch(site, [[place]] * 3, values)], sites=[after])
    assert torch.equal(states[after][:, :place], clean[:, :place])
    assert (states[after][:, place] - clean[:, place]).abs().amax(dim=-1).min() > 1e-3


def projection_of(name: str, model: Model, layer: int) -> tuple[Tensor, Tensor | float]:
    """Output projection as [heads x head width, d_model], and its bias."""
    parts = model.architecture.blocks[layer].attention_projection
    assert parts is not None
    weight = parts.weight if name == "gpt2" else parts.weight.T
    return weight.detach(), 0.0 if parts.bias is None else parts.bias.detach()


@pytest.mark.parametrize("name", [n for n in CONFIGS if n not in ("gemma2", "glm4")])
def test_head_outputs_sum_to_the_attention_output(name: str) -> None:
    model = tiny_model(name)
    base, _ = tiny_pairs()
    heads = all_sites(model, ["head_out"], [1])
    states = model.capture(base, [*heads, Site("attn_out", 1)])
    weight, bias = projection_of(name, model, 1)
    width = model.head_dim
    total = sum(states[s] @ weight[s.head * width : (s.head + 1) * width] for s in heads) + bias
    assert torch.allclose(total, states[Site("attn_out", 1)], atol=1e-12, rtol=0)


def test_patching_one_head_moves_the_attention_output_by_that_head() -> None:
    model = tiny_model("llama_grouped")
    base, donor = tiny_pairs()
    site, out = Site("head_out", 1, 2), Site("attn_out", 1)
    new = model.capture(donor, [site])[site]
    old = model.capture(base, [site, out])
    _, states = model.run(base, interventions=[Patch(site, [[10]] * 3, new)], sites=[out])
    weight, _ = projection_of("llama", model, 1)
    moved = (new - old[site]) @ weight[2 * 16 : 3 * 16]
    expected = old[out].clone()
    expected[:, 10] += moved[:, 10]
    assert moved[:, 10].abs().min() > 0
    assert torch.allclose(states[out], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gpt_neox"])
def test_states_agree_with_transformers_hidden_states(name: str) -> None:
    model = tiny_model(name)
    base, _ = tiny_pairs()
    output = model.module(torch.tensor(base), output_hidden_states=True)
    states = model.capture(base, [Site("embed"), *all_sites(model, ["resid_post"])])
    found = [states[Site("embed")], *(states[s] for s in all_sites(model, ["resid_post"]))]
    # The last of transformers' hidden states is already normed.
    for ours, theirs in zip(found[:-1], output.hidden_states[:-1]):
        assert torch.equal(ours, theirs)
    assert torch.allclose(model.last_logits(base), output.logits[:, -1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_alone_equals_the_row_in_a_padded_batch(name: str) -> None:
    model = tiny_model(name)
    ids = [row[:length] for row, length in zip(tiny_pairs()[0], (11, 4, 8))]
    batch = TokenBatch.from_ids(ids)
    site = Site("resid_post", 1)
    atol = 1e-6 if name in PARTLY_FLOAT32 else 1e-12
    logits, states = model.run(batch, sites=[site])
    for i, row in enumerate(ids):
        alone, state = model.run([row], sites=[site])
        assert torch.allclose(logits[i], alone[0], atol=atol, rtol=0)
        assert torch.allclose(states[site][i, : len(row)], state[site][0], atol=atol, rtol=0)
        assert states[site][i, len(row) :].isnan().all()
    assert torch.allclose(model.last_logits(ids), logits, atol=atol, rtol=0)
    assert torch.allclose(model.last_logits(ids, batch_tokens=1), logits, atol=atol, rtol=0)


def test_capture_at_positions() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs()
    site = Site("mlp_out", 1)
    everything = model.capture(base, [site])[site]
    chosen = model.capture(base, [site], positions=[[4, 1], [0], []])[site]
    assert chosen.shape == (3, 2, 32)
    assert torch.equal(chosen[0], everything[0, [4, 1]])
    assert torch.equal(chosen[1, 0], everything[1, 0])
    assert chosen[1, 1].isnan().all()
    assert chosen[2].isnan().all()


@pytest.mark.parametrize("name", ["llama_grouped", "gpt2", "gemma2"])
def test_every_component_is_captured_at_positions(name: str) -> None:
    model = tiny_model(name)
    base, _ = tiny_pairs()
    places = [[4, 1], [0], []]
    edit = ZeroAblation(Site("pattern", 1, 0), [4], neurons=[2])
    for done in ((), [edit]):
        sites = [*all_sites(model, model.available_components, [1]), Site("pattern", 1)]
        every, chosen = (model.run(base, done, sites, where)[1] for where in ("all", places))
        for site in sites:
            assert chosen[site].shape == (3, 2, *every[site].shape[2:])
            # Rows of a pattern that is only read are computed by themselves.
            assert torch.allclose(chosen[site][0], every[site][0, [4, 1]], atol=1e-14, rtol=0)
            assert torch.allclose(chosen[site][1, 0], every[site][1, 0], atol=1e-14, rtol=0)
            assert chosen[site][1, 1].isnan().all()
            assert chosen[site][2].isnan().all()


def test_mask_and_lists_of_positions_say_the_same() -> None:
    model = tiny_model("gpt2")
    base, donor = tiny_pairs()
    site = Site("resid_pre", 1)
    values = model.capture(donor, [site])[site]
    mask = torch.zeros(3, 11, dtype=torch.bool)
    mask[0, 4] = mask[2, 6] = True
    listed = model.patch(base, [Patch(site, [[4], [], [6]], values)])
    assert torch.equal(listed, model.patch(base, [Patch(site, mask, values)]))
    assert torch.equal(listed[1], model.last_logits(base)[1])
    assert not torch.equal(listed[0], model.last_logits(base)[0])


def test_bad_patches_are_refused() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs()
    values = torch.zeros(3, 11, 32)
    short = TokenBatch.from_ids([base[0], base[1][:5], base[2]])
    site = Site("resid_pre", 1)
    with pytest.raises(UserError, match="outside its row"):
        model.patch(short, [Patch(site, [[0], [5], [0]], values)])
    with pytest.raises(UserError, match="expected \\[3, 11, 8\\]"):
        model.patch(base, [Patch(Site("head_out", 1, 0), [[0]] * 3, values)])
    with pytest.raises(UserError, match="changed twice"):
        model.patch(base, [Patch(site, [[0]] * 3, values), Patch(site, [[0], [], []], values)])
    with pytest.raises(UserError, match=r"no site resid_pre\.L3"):
        model.capture(base, [Site("resid_pre", 3)])
    with pytest.raises(UserError, match="3 layers of 4 heads"):
        model.capture(base, [Site("head_out", 0, 4)])
    assert hook_count(model) == 0


def test_only_our_own_hooks_are_removed() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs()
    seen = []
    block = model.module.model.layers[1]
    handle = block.register_forward_hook(lambda *_: seen.append(1))
    model.capture(base, [Site("resid_post", 1)])
    assert seen == [1]
    assert hook_count(model) == 1
    handle.remove()


def test_an_exception_leaves_no_hook_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs()
    site = Site("resid_pre", 1)
    values = model.capture(donor, [site])[site]

    def broken(*_args: object) -> Tensor:
        raise ValueError("broken")

    monkeypatch.setattr(hooks, "write_states", broken)
    with pytest.raises(ValueError, match="broken"):
        model.patch(base, [Patch(site, [[0]] * 3, values)])
    assert hook_count(model) == 0


def test_a_hook_that_never_runs_is_an_error() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs()
    replacement = tiny_model("llama").module.model.layers[1]
    model.module.model.layers[1] = replacement  # the map still holds the former block
    with pytest.raises(RuntimeError, match=r"capture of resid_post\.L1.* ran 0 times"):
        model.capture(base, [Site("resid_post", 1)])


def test_sites_have_names() -> None:
    model = tiny_model("llama")
    sites = all_sites(model, ["embed", "resid_pre", "head_out"], [0, 2])
    assert len(sites) == 1 + 2 + 8
    assert len(all_sites(tiny_model("llama_grouped"), ["q", "k", "v", "pattern"])) == 3 * 12
    sites += (Site("pattern", 1), Site("q", 0, 3), Site("mlp_act", 2), Site("head_out", 1))
    assert all(Site.parse(str(site)) == site for site in sites)
    assert str(Site("head_out", 1, 3)) == "head_out.L1.H3"
    for wrong in ("resid_pre", "embed.L1", "nonsense.L1", "attn_out.L0.H1", "mlp_act.L0.H1", ""):
        with pytest.raises(UserError):
            Site.parse(wrong)


def test_token_batches_are_padded_on_the_right() -> None:
    batch = TokenBatch.from_ids([[5, 6, 7], [8]], pad_id=1)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.is_padded
    with pytest.raises(UserError, match="padded on the right"):
        TokenBatch(batch.input_ids, torch.tensor([[1, 1, 1], [1, 0, 1]]))
    with pytest.raises(UserError, match="no empty row"):
        TokenBatch.from_ids([[1], []])
    with pytest.raises(UserError, match="no empty row"):
        TokenBatch(batch.input_ids, torch.tensor([[1, 1, 1], [0, 0, 1]]))
