"""Continuations of their own after each prompt: the log-probabilities of plain forwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.inference import continuations as module_under_test
from interpflow.inference import greedy_answers as greedy_module
from interpflow.inference.continuations import continuation_log_probs
from interpflow.inference.generation import end_tokens, generate
from interpflow.inference.greedy_answers import greedy_answers
from interpflow.inference.scoring import score_answers
from interpflow.models.named import load_named
from interpflow.models.tokens import encode
from interpflow.tasks.word_problems import make_problems

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
        np.testing.assert_allclose(score.top_logits, best.values.numpy(), atol=2e-4)
        assert score.top_ids.tolist() == best.indices.tolist()


def test_one_token_answers_agree_with_scored_answers(tiny: Any) -> None:
    model, tokenizer = tiny()
    answers = [" apple", " dog"]
    whole = score_answers(model, tokenizer, PROMPTS, answers)
    for place, answer in enumerate(answers):
        scores = continuation_log_probs(model, tokenizer, PROMPTS, [answer] * len(PROMPTS))
        assert [len(score.token_ids) for score in scores] == [1] * len(PROMPTS)
        np.testing.assert_allclose(
            [score.log_probs.sum() for score in scores], whole.log_prob[:, place], atol=1e-4
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


def test_what_the_model_says_itself_is_confirmed_and_not_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tokenizer = load_named("reference", ModelSettings(reference="word_problems"))
    problems = make_problems(12, seed=4)
    prompts = [problem.prompt for problem in problems]
    own = generate(model, tokenizer, prompts, max_new_tokens=60)
    given = [answer.text for answer in own]
    given[1] = given[1].replace(".", ",")  # another token,
    given[2] += " The answer is 0."  # one too many,
    given[3] = given[3][: given[3].rindex(" The")]  # and too few
    asked: list[str] = []

    def generated(_model: Any, _tokenizer: Any, some: list[str], **settings: Any) -> Any:
        asked.extend(some)
        return generate(_model, _tokenizer, some, **settings)

    monkeypatch.setattr(greedy_module, "generate", generated)
    ends = end_tokens(model, tokenizer)
    scores = continuation_log_probs(model, tokenizer, prompts, given, ends=ends)
    assert greedy_answers(model, tokenizer, prompts, scores, max_new_tokens=60) == own
    assert asked == prompts[1:4]
    # An answer that is cut off is not the whole one.
    asked.clear()
    size = len(own[0].token_ids)
    short = greedy_answers(model, tokenizer, prompts, scores, max_new_tokens=size)
    assert short == generate(model, tokenizer, prompts, max_new_tokens=size)
    assert short[0].finish_reason == "length"
    # Without end tokens nothing is known to end.
    asked.clear()
    scores = continuation_log_probs(model, tokenizer, prompts, given)
    assert greedy_answers(model, tokenizer, prompts, scores, max_new_tokens=60) == own
    assert asked == prompts
