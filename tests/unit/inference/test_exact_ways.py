"""Proofs that are remembered with a model, and rows that are run without padding."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from interpflow.errors import UserError
from interpflow.inference import exact_ways, forward, tree_forward
from interpflow.inference.answer_trie import build_trie
from interpflow.inference.exact_ways import known_ways
from interpflow.inference.scoring import score_answers
from interpflow.inference.segment_pass import EqualRows
from interpflow.models.tokens import encode
from tests.unit.inference.plain_scores import plain_scores

PROMPTS = [
    "Count the words.\nType: fruit\nList: [apple pear dog]\nAnswer: (",
    "Type: animal\nList: [dog cat fig oak oak fig apple]\nAnswer: (",
    "Answer: (",
    "Answer: [",
    "Type: fruit\nList: [appple peer]\nAnswer: (",
]
ONE_TOKEN = [*"0123456789"]


@pytest.fixture
def proofs(monkeypatch) -> list[str]:
    """The proofs that are run."""
    ran: list[str] = []
    for name in ("readout_is_exact", "find_tree", "packing_is_exact"):
        former = getattr(exact_ways, name)
        monkeypatch.setattr(
            exact_ways,
            name,
            lambda *args, name=name, former=former: ran.append(name) or former(*args),
        )
    return ran


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral_window"])
def test_rows_without_padding(tiny, kind):
    model, tokenizer = tiny(kind)
    found = score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    expected = plain_scores(model, tokenizer, PROMPTS, ONE_TOKEN)
    np.testing.assert_allclose(found.log_prob, expected, atol=2e-4)
    lengths = [len(encode(tokenizer, prompt).ids) for prompt in PROMPTS]
    if kind != "mistral_window":  # its window is shorter than the prompts
        assert found.n_forward_tokens == sum(lengths)


def test_packing_that_sees_other_rows_is_not_used(tiny, monkeypatch, forget_proofs):
    model, tokenizer = tiny()
    right = score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)

    def as_one(lengths):
        return [EqualRows(0, 0, 1, sum(lengths))]

    monkeypatch.setattr(tree_forward, "_equal_rows", as_one)
    tree = exact_ways.TreeForward(model)
    tree.last_block = None
    with torch.inference_mode():
        assert not forward.packing_is_exact(tree, exact_ways.Readout(model))
    forget_proofs()
    found = score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    assert found.n_forward_tokens > right.n_forward_tokens
    np.testing.assert_allclose(found.log_prob, right.log_prob, atol=1e-4)


def test_a_model_is_proven_once(tiny, proofs):
    model, tokenizer = tiny("gpt2")
    first = score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    assert proofs == ["readout_is_exact", "find_tree", "packing_is_exact"]
    again = score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    assert len(proofs) == 3
    assert np.array_equal(first.log_prob, again.log_prob)


def test_what_changes_a_model_is_proven_again(tiny, proofs):
    original, tokenizer = tiny()
    model = copy.deepcopy(original)
    score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    assert len(proofs) == 6
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    for expected in (9, 12):
        score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
        assert len(proofs) == expected
    handle.remove()
    model.config.rms_norm_eps = 1e-3
    score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    assert len(proofs) == 15


def test_a_remembered_model_can_be_freed(tiny):
    original, tokenizer = tiny()
    model = copy.deepcopy(original)
    score_answers(model, tokenizer, PROMPTS, ONE_TOKEN)
    assert known_ways(model).fingerprint is not None
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert not len(exact_ways._KNOWN)


def rotating(kind: str) -> object:
    half = 4
    settings = {
        "dynamic": {"rope_type": "dynamic", "factor": 2.0},
        "longrope": {
            "rope_type": "longrope",
            "short_factor": [1.0] * half,
            "long_factor": [4.0] * half,
            "factor": 4.0,
        },
    }[kind]
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        rope_parameters={
            **settings,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 16,
        },
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotation_by_length(kind):
    model = rotating(kind)
    one, two = (build_trie(ids, ["a", "b"]) for ids in ([[3], [4]], [[3, 5], [4]]))
    short, long, longer = ([1] * n for n in (9, 20, 21))
    assert not forward.check_rotation(model, [short, short[1:]], two)
    assert forward.check_rotation(model, [long, long], one)
    for prompts, trie in (
        ([long, longer], one),
        ([short, long], one),
        ([long], build_trie([[3, 5, 6], [4, 2], [7]], ["a", "b", "c"])),
    ):
        with pytest.raises(UserError, match="longest prompt of a batch beyond 16 tokens"):
            forward.check_rotation(model, prompts, trie)


def test_rotation_by_length_in_a_score(tiny):
    _, tokenizer = tiny(bos=False)
    model = rotating("longrope")
    prompts = ["x" * 20 + "a", "x" * 20 + "b"]
    found = score_answers(model, tokenizer, prompts, ["1", "2"])
    assert found.method == "rows"
    expected = plain_scores(model, tokenizer, prompts, ["1", "2"])
    np.testing.assert_allclose(found.log_prob, expected, atol=2e-4)
    with pytest.raises(UserError, match="prompts of one length"):
        score_answers(model, tokenizer, [*prompts, "x" * 30], ["1", "2"])
