"""Continuations of their own after each prompt: the log-probabilities of plain forwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interpflow.errors import UserError
from interpflow.inference import continuations as module_under_test
from interpflow.inference.continuations import continuation_log_probs
from interpflow.inference.scoring import score_answers
from interpflow.models.tokens import encode

PROMPTS = [
    "Count the words that match the Type: fruit",
    "List apple pear\nAnswer:",
    "dog",
    "Count the words that match the Type: fruit",
]
ENDS = [" pear apple dog.", " 12 + 7 = 19.", " cat", " fig"]


def stepwise(model: Any, tokenizer: Any, prompt: str, continuation: str) -> list[float]:
    """One forward per token, of what stands before it."""
    ids = encode(tokenizer, prompt + continuation).ids
    found = []
    for at in range(len(encode(tokenizer, prompt).ids), len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:at]]), use_cache=False).logits[0, -1]
        found.append(logits.double().log_softmax(-1)[ids[at]].item())
    return found


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral_window", "bloom", "mamba"])
def test_scores_are_those_of_single_steps(tiny: Any, kind: str, bos: bool) -> None:
    model, tokenizer = tiny(kind, bos)
    scores = continuation_log_probs(model, tokenizer, PROMPTS, ENDS, top_k=3, token_budget=64)
    for prompt, continuation, score in zip(PROMPTS, ENDS, scores):
        ids = encode(tokenizer, prompt).ids
        assert score.unscored == ""
        assert score.prompt_ids == ids
        assert ids + score.token_ids == encode(tokenizer, prompt + continuation).ids
        expected = stepwise(model, tokenizer, prompt, continuation)
        np.testing.assert_allclose(score.log_probs, expected, atol=2e-4)
        assert score.log_probs.dtype == np.float64
        assert score.total == pytest.approx(sum(expected), abs=1e-3)
        with torch.no_grad():
            best = model(torch.tensor([ids]), use_cache=False).logits[0, -1].float().topk(3)
        np.testing.assert_allclose(score.top_logits, best.values, atol=2e-4)
        assert score.top_ids.tolist() == best.indices.tolist()


def test_one_token_answers_agree_with_scored_answers(tiny: Any) -> None:
    model, tokenizer = tiny()
    answers = [" apple", " dog"]
    whole = score_answers(model, tokenizer, PROMPTS, answers)
    for place, answer in enumerate(answers):
        scores = continuation_log_probs(model, tokenizer, PROMPTS, [answer] * len(PROMPTS))
        assert [len(score.token_ids) for score in scores] == [1] * len(PROMPTS)
        np.testing.assert_allclose(
            [score.total for score in scores], whole.log_prob[:, place], atol=1e-4
        )


def test_equal_pairs_are_run_once_and_equal_bit_for_bit(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny()
    ran: list[int] = []
    results = module_under_test._Run.results

    def counted(run: Any, rows: Any) -> Any:
        ran.append(len(rows))
        return results(run, rows)

    monkeypatch.setattr(module_under_test._Run, "results", counted)
    scores = continuation_log_probs(
        model, tokenizer, [*PROMPTS, PROMPTS[0]], [*ENDS, ENDS[0]], top_k=2
    )
    assert sum(ran) == len(PROMPTS)
    np.testing.assert_array_equal(scores[0].log_probs, scores[-1].log_probs)
    np.testing.assert_array_equal(scores[0].top_logits, scores[-1].top_logits)
    assert scores[0].total != scores[3].total


def test_what_cannot_be_scored_says_why(tiny: Any) -> None:
    model, tokenizer = tiny(bos=False)
    long = "dog " * 300
    cases = [
        ("apple pear", None, "none_given"),
        ("", " dog", "empty_prompt"),
        ("List app", "le", "merged"),
        ("dog", "", "merged"),
        (long, " dog", "too_long"),
        ("dog", " dog" * 300, "too_long"),
    ]
    scores = continuation_log_probs(
        model, tokenizer, [p for p, _, _ in cases], [c for _, c, _ in cases], top_k=2
    )
    for (prompt, _, expected), score in zip(cases, scores):
        assert score.unscored == expected
        assert score.total is None
        assert len(score.log_probs) == len(score.token_ids) == 0
        runs = bool(prompt) and prompt != long
        assert len(score.top_ids) == (2 if runs else 0), "the next token is known all the same"
    assert len(scores[4].prompt_ids) > 256


def test_prompts_beside_it_do_not_matter(tiny: Any) -> None:
    model, tokenizer = tiny("gpt2")
    together = continuation_log_probs(model, tokenizer, PROMPTS, ENDS)
    for prompt, continuation, score in zip(PROMPTS, ENDS, together):
        alone = continuation_log_probs(model, tokenizer, [prompt], [continuation])[0]
        np.testing.assert_allclose(score.log_probs, alone.log_probs, atol=1e-4)


def test_mistakes_are_one_message(tiny: Any) -> None:
    model, tokenizer = tiny()
    with pytest.raises(UserError, match="largest logits"):
        continuation_log_probs(model, tokenizer, PROMPTS, ENDS, top_k=10_000)
    model.train()
    try:
        with pytest.raises(UserError, match="training mode"):
            continuation_log_probs(model, tokenizer, PROMPTS, ENDS)
    finally:
        model.eval()
    assert continuation_log_probs(model, tokenizer, [], []) == []
