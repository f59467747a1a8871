"""Scores with shared beginnings of prompts equal those of whole, separate prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interpflow.inference import (
    exact_ways,
    forward,
    prompt_tree,
    segment_attention,
    tree_forward,
)
from interpflow.inference.prompt_tree import plan_prompts
from interpflow.inference.scoring import score_answers
from interpflow.models.tokens import encode
from tests.unit.inference.plain_scores import plain_scores

BEGINNING = "Count the words that match Type fruit List apple pear fig dog"
# Diverging right after the beginning, within it, at its very end; beginnings of one another; pairs
# that differ in one word; one that shares nothing.
PROMPTS = [
    BEGINNING + " cat oak oak Answer",
    BEGINNING + " cat oak fig Answer",
    BEGINNING + " oak Answer",
    BEGINNING + " oak",
    BEGINNING,
    BEGINNING + " apple cat apple cat fig fig Answer",
    BEGINNING + " apple cat apple dog fig fig Answer",
    "Count the words that match Type animal List apple pear fig",
    "Count the words",
    "oak fig",
]
ANSWERS = [" apple pear", " apple dog cat", " dog cat", " pear cat oak", " fig"]
ONE_TOKEN = [" apple", " pear", " fig"]


@pytest.fixture
def sharing(monkeypatch) -> list[int]:
    """Thresholds that these prompts reach; the lengths of the stretches that were run once."""
    monkeypatch.setattr(prompt_tree, "BRANCH_SAVING", 12)
    monkeypatch.setattr(prompt_tree, "STEM_SAVING", 4)
    shared: list[int] = []
    former = tree_forward.TreeForward._keys_values

    def watched(self, rows, prefix):
        shared.extend(map(len, rows))
        return former(self, rows, prefix)

    monkeypatch.setattr(tree_forward.TreeForward, "_keys_values", watched)
    return shared


def own_of(shared: list[int]) -> list[int]:
    """Without the stretches of the probe."""
    probe = [1, 2, *map(len, forward.PROBE_STEMS)]
    assert shared[: len(probe)] == probe
    return shared[len(probe) :]


@pytest.mark.parametrize("answers", [ANSWERS, ONE_TOKEN], ids=["trees", "one token"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral_window", "gemma2"])
@pytest.mark.parametrize("budget", [30, 8192])
def test_equal_to_separate_prompts(tiny, sharing, kind, answers, budget):
    model, tokenizer = tiny(kind)
    found = score_answers(model, tokenizer, PROMPTS, answers, token_budget=budget)
    assert found.method == "tree"
    assert own_of(sharing)
    expected = plain_scores(model, tokenizer, PROMPTS, answers)
    np.testing.assert_allclose(found.log_prob, expected, atol=2e-4)
    assert np.ptp(expected) > 1


def test_stems_and_nested_branches_are_both_used(tiny, sharing):
    model, tokenizer = tiny()
    score_answers(model, tokenizer, PROMPTS, ONE_TOKEN, token_budget=30)
    ids = [list(encode(tokenizer, prompt).ids) for prompt in PROMPTS]
    plan = plan_prompts(ids, 0, 30)
    assert own_of(sharing)
    depth, branch = 0, plan
    while branch.branches:
        branch, depth = branch.branches[0], depth + 1
    assert depth >= 2
    sharing.clear()
    score_answers(model, tokenizer, PROMPTS[5:7] + PROMPTS[9:], ONE_TOKEN)
    assert sharing == [16]  # what one pair has in common, BOS too; nothing is proven again


def test_shared_tokens_are_not_run_again(tiny, sharing):
    model, tokenizer = tiny()
    seen = []
    handle = model.model.layers[0].register_forward_pre_hook(
        lambda _module, args: seen.append(args[0].shape[0] * args[0].shape[1])
    )
    prompts = [f"{BEGINNING} {word}" for word in ("apple", "dog", "cat", "oak")]
    found = score_answers(model, tokenizer, prompts, ONE_TOKEN)
    handle.remove()
    n_beginning = len(encode(tokenizer, BEGINNING).ids)
    assert seen[-2:] == [n_beginning, 4]
    assert found.n_forward_tokens == n_beginning + 4


def test_one_prompt_shares_nothing(tiny, sharing):
    score_answers(*tiny(), PROMPTS[:1], ANSWERS)
    assert sharing == []


def test_wrong_keys_are_found_by_the_probe(tiny, sharing, monkeypatch, forget_proofs):
    model, tokenizer = tiny()
    right = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    former = tree_forward.TreeForward._keys_values
    monkeypatch.setattr(
        tree_forward.TreeForward,
        "_keys_values",
        lambda *args: [(keys.flip(2), values) for keys, values in former(*args)],
    )
    sharing.clear()
    forget_proofs()
    found = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert own_of(sharing) == []
    np.testing.assert_allclose(found.log_prob, right.log_prob, atol=1e-4)
    monkeypatch.setattr(exact_ways, "sharing_is_exact", lambda _tree, _readout: True)
    forget_proofs()
    wrong = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert np.abs(wrong.log_prob - right.log_prob).max() > 1e-2


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_the_last_block_is_run_only_where_a_token_is_scored(tiny, kind):
    model, tokenizer = tiny(kind)
    mlps = [part for name, part in model.named_modules() if name.endswith("mlp")]
    rows = {}
    handles = [
        part.register_forward_pre_hook(
            lambda _m, args, at=at: rows.__setitem__(at, args[0].shape[:-1].numel())
        )
        for at, part in enumerate(mlps)
    ]
    found = score_answers(model, tokenizer, PROMPTS[:3], ANSWERS)
    for handle in handles:
        handle.remove()
    assert rows[len(mlps) - 1] == 3 * 6  # the root and five inner nodes
    assert rows[0] > 3 * 20
    expected = plain_scores(model, tokenizer, PROMPTS[:3], ANSWERS)
    np.testing.assert_allclose(found.log_prob, expected, atol=2e-4)


def test_a_last_block_that_cannot_be_cut_is_run_whole(tiny, monkeypatch, forget_proofs):
    model, tokenizer = tiny()
    right = score_answers(model, tokenizer, PROMPTS, ANSWERS)

    def refuse(*_: object) -> None:
        raise tree_forward.TreeNotSupported("an argument of a shape nobody knows")

    monkeypatch.setattr(tree_forward, "_gathered", refuse)
    forget_proofs()
    found = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert found.method == "tree"
    np.testing.assert_allclose(found.log_prob, right.log_prob, atol=1e-4)


def test_attention_and_forwards_are_as_before_afterwards(tiny, sharing):
    model, tokenizer = tiny()
    before = model.config._attn_implementation
    score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert model.config._attn_implementation == before
    assert not [name for name, part in model.named_modules() if "forward" in part.__dict__]
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_windows_that_the_model_does_not_pass_on_are_refused(tiny, monkeypatch):
    model, tokenizer = tiny("mistral_window")
    monkeypatch.setattr(tree_forward.TreeForward, "windows_are_known", lambda _tree: False)
    assert score_answers(model, tokenizer, ["fig"], [" apple"]).method == "tree"
    found = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert found.method == "rows"
    expected = plain_scores(model, tokenizer, PROMPTS, ANSWERS)
    np.testing.assert_allclose(found.log_prob, expected, atol=2e-4)


def test_half_precision(tiny, sharing):
    model, tokenizer = tiny()
    right = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    half = type(model)(model.config).eval()
    half.load_state_dict(model.state_dict())
    found = score_answers(half.to(torch.bfloat16), tokenizer, PROMPTS, ANSWERS)
    assert np.abs(found.log_prob - right.log_prob).max() < 2
    assert np.corrcoef(found.log_prob.ravel(), right.log_prob.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_where_shared_keys_cannot_be_taken_apart(tiny, sharing, monkeypatch, kind):
    """As on other devices and in other types: shared keys are put before the rows' own."""
    model, tokenizer = tiny(kind)
    apart = score_answers(model, tokenizer, PROMPTS, ANSWERS, token_budget=30)
    monkeypatch.setattr(segment_attention, "_splits", lambda _query, _window: False)
    found = score_answers(model, tokenizer, PROMPTS, ANSWERS, token_budget=30)
    np.testing.assert_allclose(found.log_prob, apart.log_prob, atol=1e-4)


def test_the_same_bytes_every_time(tiny, sharing):
    model, tokenizer = tiny()
    first, second = (score_answers(model, tokenizer, PROMPTS, ANSWERS) for _ in range(2))
    assert np.array_equal(first.log_prob, second.log_prob)
    assert np.array_equal(first.first_logit, second.first_logit)
