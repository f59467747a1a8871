from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from interpflow.engine import Site, all_sites, load, sweep_sites
from interpflow.errors import UserError
from interpflow.models.planted import roles_of, score_against_truth
from interpflow.models.planted.plain_decoder import PlainDecoderForCausalLM
from interpflow.models.planted.rasp_programs import frac_prevs, shift_by_one
from interpflow.models.planted.tracr_weights import (
    TracrWeights,
    plain_decoder,
    program_truth,
    prompt_ids,
    read_tracr,
    write_tracr,
)

VOCABULARY = ("a", "b", "x")
LENGTH = 10
PROGRAMS: dict[str, Callable[[], TracrWeights]] = {
    "frac_prevs": lambda: frac_prevs("x", VOCABULARY, LENGTH),
    "shift_by_one": lambda: shift_by_one(VOCABULARY, LENGTH),
}
BOTH = pytest.mark.parametrize("name", PROGRAMS)


def prompts(length: int = LENGTH, n: int = 200) -> list[tuple[str, ...]]:
    """All prompts of four tokens and some longer ones."""
    rng = np.random.default_rng(0)
    drawn = [tuple(rng.choice(VOCABULARY, length).tolist()) for _ in range(n)]
    return [*itertools.product(VOCABULARY, repeat=4), *drawn]


def outputs(model: PlainDecoderForCausalLM, prompt: tuple[str, ...]) -> Tensor:
    """[position, output], the start token left out."""
    with torch.no_grad():
        return model(torch.tensor([prompt_ids(model.config.tokens or (), prompt)])).logits[0, 1:]


def test_frac_prevs_is_the_share_of_the_token() -> None:
    model = plain_decoder(PROGRAMS["frac_prevs"]())
    for prompt in prompts():
        hits = np.cumsum([token == "x" for token in prompt])
        expected = hits / np.arange(1, len(prompt) + 1)
        np.testing.assert_allclose(outputs(model, prompt)[:, 0], expected, atol=2e-7)


def test_shift_by_one_is_the_token_before() -> None:
    model = plain_decoder(PROGRAMS["shift_by_one"]())
    for prompt in prompts():
        expected = np.array([[v == token for v in VOCABULARY] for token in ("", *prompt[:-1])])
        np.testing.assert_allclose(outputs(model, prompt), expected, atol=1e-20)


@BOTH
def test_written_and_read_again(name: str, tmp_path: Path) -> None:
    weights = PROGRAMS[name]()
    write_tracr(weights, tmp_path / "program.npz")
    again = read_tracr(tmp_path / "program.npz")
    assert again.meta == weights.meta
    for key, array in weights.arrays.items():
        np.testing.assert_array_equal(again.arrays[key], array)


@BOTH
def test_saved_as_safetensors_and_loaded_again(name: str, tmp_path: Path) -> None:
    model = plain_decoder(PROGRAMS[name]())
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    assert isinstance(again, PlainDecoderForCausalLM)
    assert again.config.residual_labels == model.config.residual_labels
    assert torch.equal(outputs(again, ("a", "x", "b")), outputs(model, ("a", "x", "b")))


@BOTH
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_and_caches_agree(name: str, implementation: str) -> None:
    model = plain_decoder(PROGRAMS[name]())
    ids = torch.tensor([prompt_ids(model.config.tokens or (), "axbxxab")])
    with torch.no_grad():
        whole = model(ids).logits
        model.set_attn_implementation(implementation)
        first = model(ids[:, :3], use_cache=True)
        rest = model(ids[:, 3:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole, atol=1e-6, rtol=0)


def test_what_comes_later_is_not_seen() -> None:
    model = plain_decoder(PROGRAMS["frac_prevs"]())
    one, other = outputs(model, ("a", "x", "b", "b")), outputs(model, ("a", "x", "x", "x"))
    assert torch.equal(one[:2], other[:2])
    assert not torch.equal(one[2:], other[2:])


@BOTH
def test_the_truth_says_which_parts_the_program_uses(name: str) -> None:
    truth = program_truth(PROGRAMS[name]())
    used = {(s.component, s.layer, s.head): s.does for s in truth if s.role == "needed"}
    if name == "frac_prevs":
        assert used == {
            ("mlp_out", 0, None): "tokens==x",
            ("head_out", 1, 0): "frac_prevs",
        }
    else:
        written = ", ".join(f"shift_by_one:{token}" for token in VOCABULARY)
        assert used == {("head_out", 0, 0): written}
    assert {s.role for s in truth} == {"needed", "dead"}


def program_effects(name: str, *, connected: bool = True) -> tuple[tuple[Site, ...], np.ndarray]:
    """Effects [pair, site, position] on the sum of outputs weighted 1, 2, …; clean and corrupted
    differ in tokens 3 and 8 (of 9)."""
    module = plain_decoder(PROGRAMS[name]())
    clean = [prompt_ids(module.config.tokens or (), p) for p in ("abxabbaxb", "bbxbabbxa")]
    corrupted = [prompt_ids(module.config.tokens or (), p) for p in ("abaabbaab", "bbbbabbaa")]
    model = load(module)
    sites = all_sites(model, ["head_out", "mlp_out"])

    def value(logits: Tensor, _pair: Tensor) -> dict[str, Tensor]:
        return {"value": logits @ torch.arange(1.0, logits.shape[-1] + 1)}

    groups = [[[place] for place in range(len(clean[0]))] for _ in clean]
    donor = clean if connected else corrupted
    return sites, sweep_sites(model, corrupted, donor, sites, groups, value).effect("value")


@BOTH
def test_the_engine_finds_the_program(name: str) -> None:
    sites, effects = program_effects(name)
    roles = roles_of(program_truth(PROGRAMS[name]()), sites)
    score = score_against_truth(effects, roles)
    assert (score.auroc.estimate, score.auprc.estimate) == (1.0, 1.0)
    assert score.n_dead_effects == 0
    if name == "frac_prevs":
        compare, average = (
            effects[:, sites.index(Site("mlp_out", 0))],
            effects[:, sites.index(Site("head_out", 1, 0))],
        )
        changed = np.zeros((2, LENGTH))
        changed[:, [3, 8]] = 1 / 9
        np.testing.assert_allclose(compare, changed, atol=1e-6)
        np.testing.assert_allclose(average[:, -1], 2 / 9, atol=1e-6)
    else:
        moved = effects[:, sites.index(Site("head_out", 0, 0)), -1]
        np.testing.assert_array_equal(moved, 3 - 1)  # x in the place of a


@BOTH
def test_a_sweep_that_reaches_nothing_finds_no_program(name: str) -> None:
    sites, effects = program_effects(name, connected=False)
    score = score_against_truth(effects, roles_of(program_truth(PROGRAMS[name]()), sites))
    assert score.auroc.estimate == 0.5


def changed(weights: TracrWeights, **arrays: np.ndarray | None) -> TracrWeights:
    kept = {**weights.arrays, **{name.replace("__", "."): a for name, a in arrays.items()}}
    return replace(weights, arrays={name: a for name, a in kept.items() if a is not None})


def test_wrong_arrays_are_refused_by_name() -> None:
    weights = PROGRAMS["frac_prevs"]()
    wrong = {
        "1 of 27 arrays are missing: blocks.1.attn.value.w": {"blocks__1__attn__value__w": None},
        "2 of 27 arrays are missing: pos_embed, unembed": {"pos_embed": None, "unembed": None},
        "blocks.0.norm.scale": {"blocks__0__norm__scale": np.ones(3)},
        "blocks.1.mlp.linear_1.w has shape": {"blocks__1__mlp__linear_1__w": np.ones((3, 3))},
        "unembed holds something else": {
            "unembed": np.full_like(weights.arrays["unembed"], np.nan)
        },
        "23 of 51 arrays are missing: blocks.2.attn": {
            "blocks__3__attn__query__w": np.ones((3, 3))
        },
    }
    for message, arrays in wrong.items():
        with pytest.raises(UserError, match=message.replace(".", r"\.")):
            plain_decoder(changed(weights, **arrays))
    with pytest.raises(UserError, match="no token 'q'"):
        prompt_ids(weights.meta.tokens, ["a", "q"])


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    weights, path = PROGRAMS["shift_by_one"](), tmp_path / "program.npz"
    write_tracr(weights, path)
    with np.load(path) as archive:
        good = {name: archive[name] for name in archive.files}
    meta = json.loads(str(good["meta"]))

    def refused(message: str, **changes: object) -> None:
        np.savez(path, **{**good, **changes})  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message) as caught:
            read_tracr(path)
        assert str(path) in str(caught.value)

    refused("without a causal mask", meta=np.array(json.dumps({**meta, "causal": False})))
    refused("meta lacks key_size, tokens", meta=np.array(json.dumps(
        {k: v for k, v in meta.items() if k not in ("key_size", "tokens")}
    )))  # fmt: skip
    refused("meta is no JSON", meta=np.array("{"))
    refused("at least 1", meta=np.array(json.dumps({**meta, "n_heads": 0})))
    refused("plain arrays", unembed=np.array([{"a": 1}], dtype=object))
    np.savez(path, **{k: v for k, v in good.items() if k != "meta"})
    with pytest.raises(UserError, match="meta is missing"):
        read_tracr(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read as plain arrays"):
        read_tracr(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UserError, match="cannot be read as plain arrays"):
        read_tracr(tmp_path / "one.npy")
    with pytest.raises(UserError, match="no such file"):
        read_tracr(tmp_path / "none.npz")
