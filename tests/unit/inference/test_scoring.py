"""Scores against the plain way: one forward per prompt and answer, over the whole text."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from interpflow.errors import UserError
from interpflow.inference import forward
from interpflow.inference.answer_trie import build_trie
from interpflow.inference.scoring import score_answers
from interpflow.models.tokens import encode
from tests.unit.inference.plain_scores import plain_scores

PROMPTS = [
    "Count the words.\nType: fruit\nList: [apple pear dog]\nAnswer: (",
    "Type: animal\nList: [dog cat fig oak oak fig apple]\nAnswer: (",
    "Answer: (",
    "Type: fruit\nList: [appple peer]\nAnswer: (",
]
ANSWERS = [f"{count})" for count in range(16)]
KINDS = ["llama", "gpt2", "mistral_window", "gemma2", "bloom", "mamba"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_separate_forwards(tiny, kind):
    model, tokenizer = tiny(kind)
    scores = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    expected = plain_scores(model, tokenizer, PROMPTS, ANSWERS)
    np.testing.assert_allclose(scores.log_prob, expected, atol=2e-4)
    assert np.ptp(expected) > 1  # the comparison would see a wrong answer or prompt
    assert scores.log_prob.dtype == np.float64


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("llama", "tree"),
        ("gpt2", "tree"),
        ("gemma2", "tree"),
        ("mistral_window", "tree"),
        ("bloom", "rows"),
        ("mamba", "rows"),
    ],
)
def test_method_is_the_cheapest_that_is_exact(tiny, kind, method):
    assert score_answers(*tiny(kind), PROMPTS, ANSWERS).method == method


def test_multi_token_answers_without_terminator_token(tiny):
    model, tokenizer = tiny("llama", bos=False)
    answers = ["apple", " apple pear", "1.", "10.", "12.", "three fig", "three dog"]
    prompts = ["List: fig,", "The answer:"]
    scores = score_answers(model, tokenizer, prompts, answers)
    np.testing.assert_allclose(
        scores.log_prob, plain_scores(model, tokenizer, prompts, answers), atol=2e-4
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
def test_batch_of_one_equals_batch_and_order_is_kept(tiny, kind):
    model, tokenizer = tiny(kind)
    together = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    alone = score_answers(model, tokenizer, PROMPTS, ANSWERS, token_budget=1)
    turned = score_answers(model, tokenizer, PROMPTS[::-1], ANSWERS)
    np.testing.assert_allclose(together.log_prob, alone.log_prob, atol=1e-4)
    np.testing.assert_allclose(together.log_prob, turned.log_prob[::-1], atol=1e-4)
    assert (together.best == turned.best[::-1]).all()


def test_equal_prompts_run_once(tiny):
    model, tokenizer = tiny()
    once = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    twice = score_answers(model, tokenizer, PROMPTS + PROMPTS, ANSWERS)
    assert twice.n_unique == len(PROMPTS)
    assert twice.n_forward_tokens == once.n_forward_tokens
    assert (twice.log_prob[: len(PROMPTS)] == twice.log_prob[len(PROMPTS) :]).all()


def test_each_prompt_position_is_run_once(tiny):
    model, tokenizer = tiny()
    seen = []
    handle = model.model.layers[0].register_forward_pre_hook(
        lambda _module, args: seen.append(tuple(args[0].shape[:2]))
    )
    shapes = []
    head = model.lm_head.register_forward_hook(lambda _m, _a, out: shapes.append(out.shape[:2]))
    scores = score_answers(model, tokenizer, PROMPTS[:1], ANSWERS)
    handle.remove()
    head.remove()
    n_prompt = len(encode(tokenizer, PROMPTS[0]).ids)
    # ten digits and the six second digits; the terminators are leaves
    assert seen[-1] == (1, n_prompt + 16)
    assert shapes[-1] == (17, 1)  # the prompt's end and the inner nodes
    assert scores.n_forward_tokens == n_prompt + 16


def test_read_outs(tiny):
    model, tokenizer = tiny()
    scores = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    expected = plain_scores(model, tokenizer, PROMPTS, ANSWERS)
    ranked = np.sort(expected, axis=1)
    np.testing.assert_allclose(scores.margin, ranked[:, -1] - ranked[:, -2], atol=4e-4)
    np.testing.assert_allclose(scores.captured_mass, np.exp(expected).sum(axis=1), rtol=1e-3)
    assert (scores.best == expected.argmax(axis=1)).all()
    assert (scores.n_tied == 1).all()
    ids = torch.tensor([encode(tokenizer, PROMPTS[0]).ids])
    with torch.no_grad():
        last = model(input_ids=ids).logits[0, -1]
    one = tokenizer.convert_tokens_to_ids("1")
    assert scores.first_logit[0, 1] == pytest.approx(last[one].item(), abs=1e-4)
    assert scores.first_logit[0, 1] == scores.first_logit[0, 12]
    assert scores.top_token[0] == last.argmax().item()


def test_ties_are_recorded_and_favour_no_answer(tiny):
    model, tokenizer = tiny()
    flat = type(model)(model.config).eval()
    torch.nn.init.zeros_(flat.lm_head.weight)
    answers = [f"{digit})" for digit in range(10)]
    prompts = [f"Type {index}: (" for index in range(60)]
    scores = score_answers(flat, tokenizer, prompts, answers)
    assert (scores.n_tied == 10).all()
    assert (scores.margin == 0).all()
    assert len(set(scores.best.tolist())) > 5
    again = score_answers(flat, tokenizer, prompts, answers[::-1])
    assert [answers[b] for b in scores.best] == [answers[::-1][b] for b in again.best]


def test_one_answer_has_no_margin(tiny):
    scores = score_answers(*tiny(), PROMPTS, ["3)"])
    assert np.isnan(scores.margin).all()
    assert scores.n_tied.tolist() == [1] * len(PROMPTS)


def test_no_prompts(tiny):
    scores = score_answers(*tiny(), [], ANSWERS)
    assert scores.log_prob.shape == (0, 16)
    assert scores.best.shape == (0,)


def test_a_broken_tree_is_found_by_the_probe(tiny, monkeypatch, forget_proofs):
    model, tokenizer = tiny()
    right = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    blind = torch.eye(64, dtype=torch.bool)
    monkeypatch.setattr(
        forward.AnswerTrie, "ancestry", lambda trie: blind[: trie.n_inner, : trie.n_inner]
    )
    forget_proofs()
    scores = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert scores.method == "rows"
    np.testing.assert_allclose(scores.log_prob, right.log_prob, atol=1e-4)
    monkeypatch.setattr(forward, "tree_is_exact", lambda _tree, _readout: True)
    forget_proofs()
    wrong = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert np.abs(wrong.log_prob - right.log_prob).max() > 1e-2


def test_softcap_is_the_models_own(tiny):
    model, tokenizer = tiny("gemma2")
    scores = score_answers(model, tokenizer, PROMPTS, ANSWERS)
    assert np.abs(scores.first_logit).max() <= 2.0


def test_progress_lines(tiny, caplog):
    logger = logging.getLogger("progress-test")
    with caplog.at_level(logging.INFO, "progress-test"):
        score_answers(*tiny(), PROMPTS, ANSWERS, progress=logger)
    assert "4 of 4" in caplog.text
    assert "tokens/s" in caplog.text


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        (["1", "10"], "beginning of the answer '10'"),
        (["1)", "1)"], "twice"),
        ([], "no answers"),
        (["", "1)"], "empty answer"),
    ],
)
def test_unfit_answers(tiny, answers, match):
    with pytest.raises(UserError, match=match):
        score_answers(*tiny(), PROMPTS, answers)


def test_text_beyond_the_context(tiny):
    with pytest.raises(UserError, match="256 positions"):
        score_answers(*tiny("gpt2"), ["apple " * 400 + "("], ANSWERS)


def test_empty_prompt_without_bos(tiny):
    with pytest.raises(UserError, match="empty prompt"):
        score_answers(*tiny(bos=False), [""], ANSWERS)


def test_training_mode_and_nan(tiny):
    model, tokenizer = tiny()
    broken = type(model)(model.config)
    with pytest.raises(UserError, match="training mode"):
        score_answers(broken.train(), tokenizer, PROMPTS, ANSWERS)
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match="NaN for 4 of 4"):
        score_answers(broken.eval(), tokenizer, PROMPTS, ANSWERS)


def test_trie_shares_beginnings():
    trie = build_trie([[1, 9], [1, 2, 9], [1, 3, 9], [4, 9]], ["1)", "12)", "13)", "4)"])
    assert trie.tokens[1:] == (1, 2, 3, 4)
    assert trie.depths == (0, 1, 2, 2, 1)
    assert [trie.path_to(tip) for tip in trie.tips()] == [[1, 2], [1, 3], [4]]
    assert trie.ancestry().tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]
