"""Greedy answers where a likely one is known: what the scoring pass has confirmed is not generated.

A prompt and its continuation are one pass for `continuation_log_probs`. Where every token of the
continuation, and then an end token, is the model's own first choice, that pass was its greedy
answer; token by token it would take as many passes as the answer has tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from interpflow.inference.continuations import ContinuationScore
from interpflow.inference.forward import PROBE_TOLERANCE
from interpflow.inference.generation import (
    DEFAULT_TOKEN_BUDGET,
    Generation,
    decode_new,
    end_tokens,
    generate,
)


def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    scores: Sequence[ContinuationScore],
    *,
    max_new_tokens: int,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    progress: logging.Logger | None = None,
) -> list[Generation]:
    """The greedy answers of `generate`; scores[i] is of a continuation of prompts[i], with the
    model's `end_tokens` named.

    A lead smaller than what rounding explains is no confirmation: such a prompt is generated.
    Equal prompts get equal answers. Raises what `generate` raises.
    """
    tolerance = PROBE_TOLERANCE.get(model.dtype, 1e-3)
    ends = set(end_tokens(model, tokenizer))
    known = {
        prompt: Generation(decode_new(tokenizer, score.token_ids), score.token_ids, "eos")
        for prompt, score in zip(prompts, scores, strict=True)
        if score.is_greedy(tolerance)
        and len(score.token_ids) < max_new_tokens
        and not ends & set(score.token_ids)
    }
    rest = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
    if progress is not None:
        progress.info("%d answers confirmed, %d to generate", len(known), len(rest))
    found = generate(
        model, tokenizer, rest, max_new_tokens=max_new_tokens, token_budget=token_budget,
        progress=progress,
    )  # fmt: skip
    answers = {**known, **dict(zip(rest, found))}
    return [answers[prompt] for prompt in prompts]
