"""Logits read in tiles against the model's own; and trees on many architectures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

from interpflow.inference import exact_ways, forward, readout, scoring
from interpflow.inference.answer_trie import build_trie
from interpflow.inference.forward import find_tree, readout_is_exact, row_logits, sharing_is_exact
from interpflow.inference.readout import Readout
from interpflow.inference.scoring import score_answers
from tests.unit.engine.tiny_models import ALL_CONFIGS, tiny_module

PROMPTS = ["Count the words", "Answer: (", "List: [apple pear"]
ANSWERS = ["10)", "1)", "2)"]
SIZE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
# What each does to its logits: caps, divides, multiplies.
CHANGED_LOGITS = {
    "caps": Gemma2Config(**SIZE, head_dim=8, final_logit_softcapping=3.0),
    "divides": GraniteConfig(**SIZE, logits_scaling=4.0),
    "multiplies": CohereConfig(**SIZE, logit_scale=0.3),
}


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    monkeypatch.setattr(readout, "TILE_ROWS", 5)
    monkeypatch.setattr(readout, "TILE_COLUMNS", 64)


def built(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", CHANGED_LOGITS)
def test_tiles_equal_the_models_own_logits(kind, small_tiles):
    model = built(CHANGED_LOGITS[kind])
    ids = torch.randint(0, 300, (3, 4))
    at = torch.arange(4).expand(3, -1)
    with torch.no_grad():
        logits, states = forward.logits_at(model, at, input_ids=ids, use_cache=False)
        assert torch.equal(logits, model(input_ids=ids).logits)
        assert states is not None
        tokens = torch.tensor([0, 299, 63, 64, 5])
        found = Readout(model).read(states.flatten(0, 1), tokens)
        assert readout_is_exact(model, Readout(model))
    logits = logits.flatten(0, 1)
    torch.testing.assert_close(found.picked, logits[:, tokens], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.normaliser, logits.logsumexp(-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(found.top, logits.argmax(-1))
    assert not [name for name, part in model.named_modules() if "forward" in part.__dict__]


def test_a_readout_that_forgets_the_cap_is_not_used(monkeypatch, tiny, forget_proofs):
    model, tokenizer = tiny("gemma2")
    right = score_answers(model, tokenizer, PROMPTS, ANSWERS)

    def uncapped(self, states, tokens):
        return readout.read_logits(self.head(states).float(), tokens)

    monkeypatch.setattr(Readout, "read", uncapped)
    forget_proofs()
    with torch.no_grad():
        assert not readout_is_exact(model, Readout(model))
    found = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert found.method == "rows"
    np.testing.assert_allclose(found.log_prob, right.log_prob, atol=1e-4)
    assert (found.top_token == right.top_token).all()
    monkeypatch.setattr(exact_ways, "readout_is_exact", lambda _model, _readout: True)
    monkeypatch.setattr(forward, "tree_is_exact", lambda _tree, _readout: True)
    forget_proofs()
    wrong = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert np.abs(wrong.log_prob - right.log_prob).max() > 1e-2


def test_a_hook_on_the_head_sees_the_whole_vocabulary(tiny, small_tiles):
    model, tokenizer = tiny("gpt2")
    plain = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    widths = []
    handle = model.lm_head.register_forward_hook(lambda _m, _a, out: widths.append(out.shape[-1]))
    try:
        found = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    finally:
        handle.remove()
    assert widths[-1] == model.config.vocab_size
    np.testing.assert_allclose(found.log_prob, plain.log_prob, atol=1e-5)


@pytest.mark.parametrize("states", [1, 7, 10_000])
def test_however_many_states_wait_for_the_head(tiny, monkeypatch, small_tiles, states):
    model, tokenizer = tiny()
    prompts = [f"Type {n}: (" for n in range(12)]
    plain = score_answers(model, tokenizer, prompts, ANSWERS)
    monkeypatch.setattr(scoring, "READ_STATES", states)
    found = score_answers(model, tokenizer, prompts, ANSWERS, token_budget=40)
    np.testing.assert_allclose(found.log_prob, plain.log_prob, atol=1e-4)
    assert (found.top_token == plain.top_token).all()


# Attention outside the exchangeable interface, or a state carried from position to position.
BY_ROWS = {"bloom", "falcon_new", "falcon_old", "falcon_alibi", "jamba", "qwen3_next", "lfm2"}


@pytest.mark.parametrize("name", ALL_CONFIGS)
def test_trees_and_shared_beginnings_on_many_architectures(name):
    model = tiny_module(name).float().eval()
    trie = build_trie([[3, 4, 5], [3, 6], [7]], ["a", "b", "c"])
    prompts = [[9, 8, 7, 6, 5, 4], [9, 8, 1], [2, 2, 3, 4, 5]]
    with torch.inference_mode():
        read = Readout(model)
        assert readout_is_exact(model, read)
        tree = find_tree(model, read)
        assert (tree is None) == (name in BY_ROWS)
        if tree is None:
            return
        assert tree.last_block is not None
        assert sharing_is_exact(tree, read)
        states, _ = tree.states(prompts, trie, forward.Prefix())
        _, expected, _ = row_logits(model, prompts, trie)
    assert expected is not None
    assert (states - expected).abs().max() <= 1e-4 * expected.abs().max()
