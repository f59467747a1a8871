"""Scores of a reward model for answers to questions, one number per pair.

Scores of one pair differ in their last digits with the shape of the batch it is in. So every pair
is padded to the smallest of fixed lengths, and every batch of a length has a fixed number of rows,
empty places filled with copies: what else is scored then changes nothing but a pair's row.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interpflow.errors import UserError
from interpflow.models.tokens import render_chat

BUCKETS = (*range(8, 128, 8), 128, 160, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
# On a CPU, what stays in a core's cache is fastest.
TOKENS_PER_BATCH = {"cpu": 512, "cuda": 16384}
# A question that is cut keeps its end, next to the answer; an answer that leaves it less room than
# this is cut itself, at its end.
LEAST_QUESTION_TOKENS = 16
# Of the RoBERTa family, whose position ids begin after the padding's.
OFFSET_FAMILIES = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairScores:
    """Arrays [pair]: score float64 (as the model gives it, unbounded), n_tokens and
    n_answer_tokens int64 as scored, truncated bool; and how many tokens the model reads at most."""

    score: np.ndarray
    n_tokens: np.ndarray
    n_answer_tokens: np.ndarray
    truncated: np.ndarray
    max_tokens: int


@dataclass(frozen=True)
class _Encoded:
    inputs: dict[str, list[int]]
    n_answer: int
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])


def score_pairs(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    max_tokens: int = 512,
    device: str = "cpu",
) -> PairScores:
    """Score (question, answer) pairs with a sequence classifier of one output, in float32.

    A pair is encoded as the tokenizer encodes pairs; a tokenizer with a chat template gets a user's
    and an assistant's turn instead. max_tokens is lowered to what the model can read. Equal pairs
    are scored once. Raises UserError where max_tokens leaves no room for a pair, and for a score
    that is not finite.
    """
    limit = readable_tokens(model, tokenizer, max_tokens)
    distinct = list(dict.fromkeys(zip(questions, answers, strict=True)))
    encoded = _encode(tokenizer, distinct, limit)
    scores = _score(model, tokenizer, encoded, device)
    at = {pair: index for index, pair in enumerate(distinct)}
    rows = [at[pair] for pair in zip(questions, answers, strict=True)]
    return PairScores(
        score=scores[rows] if rows else np.zeros(0),
        n_tokens=np.array([encoded[row].length for row in rows], dtype=np.int64),
        n_answer_tokens=np.array([encoded[row].n_answer for row in rows], dtype=np.int64),
        truncated=np.array([encoded[row].truncated for row in rows], dtype=bool),
        max_tokens=limit,
    )


def batch_difference(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    max_tokens: int = 512,
    device: str = "cpu",
) -> float:
    """Largest difference between scores of pairs in their batches and of each alone, unpadded: by
    how much a score depends on how it was computed."""
    pairs = list(dict.fromkeys(zip(questions, answers, strict=True)))
    if not pairs:
        return 0.0
    limit = readable_tokens(model, tokenizer, max_tokens)
    encoded = _encode(tokenizer, pairs, limit)
    together = _score(model, tokenizer, encoded, device)
    alone = [
        _forward(model, _padded(tokenizer, [item], item.length, 0), device) for item in encoded
    ]
    return float(np.abs(together - np.concatenate(alone)).max())


def readable_tokens(model: Any, tokenizer: Any, max_tokens: int) -> int:
    """The smallest of the limit asked for, the tokenizer's and the model's."""
    positions = getattr(model.config, "max_position_embeddings", None) or max_tokens
    if model.config.model_type in OFFSET_FAMILIES:
        positions -= (model.config.pad_token_id or 0) + 1
    limit = int(min(max_tokens, positions, tokenizer.model_max_length))
    if limit <= tokenizer.num_special_tokens_to_add(pair=True) + 1:
        raise UserError(
            f"{limit} tokens leave no room for a question and an answer",
            where="robustness.scoring.reward_max_tokens",
            remedy="raise it, or choose a reward model that reads longer texts",
        )
    return limit


def _encode(tokenizer: Any, pairs: Sequence[tuple[str, str]], limit: int) -> list[_Encoded]:
    if tokenizer.chat_template:
        return [_encode_chat(tokenizer, question, answer, limit) for question, answer in pairs]
    if not pairs:
        return []
    whole = tokenizer([q for q, _ in pairs], [a for _, a in pairs], truncation=False, verbose=False)
    found = []
    for index, (question, answer) in enumerate(pairs):
        if len(whole["input_ids"][index]) <= limit:
            inputs = {key: whole[key][index] for key in whole}
            found.append(_Encoded(inputs, _answer_tokens(whole, index), truncated=False))
        else:
            found.append(_encode_cut(tokenizer, question, answer, limit))
    return found


def _encode_cut(tokenizer: Any, question: str, answer: str, limit: int) -> _Encoded:
    """The answer whole if it leaves the question some room, then as much of the question's end as
    there is room for."""
    room = limit - tokenizer.num_special_tokens_to_add(pair=True)
    plain = {"add_special_tokens": False, "truncation": False, "verbose": False}
    n_question = len(tokenizer(question, **plain)["input_ids"])
    offsets = tokenizer(answer, return_offsets_mapping=True, **plain)["offset_mapping"]
    kept = min(n_question, LEAST_QUESTION_TOKENS, room // 2)
    if len(offsets) > room - kept:
        answer = answer[: offsets[room - kept - 1][1]]
    side, tokenizer.truncation_side = tokenizer.truncation_side, "left"
    try:
        cut = tokenizer(question, answer, truncation="only_first", max_length=limit, verbose=False)
    finally:
        tokenizer.truncation_side = side
    return _Encoded({key: [*cut[key]] for key in cut}, _answer_tokens(cut, 0), truncated=True)


def _encode_chat(tokenizer: Any, question: str, answer: str, limit: int) -> _Encoded:
    """Both turns in the tokenizer's chat template; what is too long loses its beginning."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    text = render_chat(tokenizer, turns, is_complete=True)
    # The template writes the special tokens itself.
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    n_answer = len(tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"])
    kept = ids[-limit:]
    inputs = {"input_ids": kept, "attention_mask": [1] * len(kept)}
    return _Encoded(inputs, min(n_answer, len(kept)), truncated=len(ids) > limit)


def _answer_tokens(encoding: Any, index: int) -> int:
    return sum(part == 1 for part in encoding.sequence_ids(index))


def _score(model: Any, tokenizer: Any, encoded: Sequence[_Encoded], device: str) -> np.ndarray:
    scores = np.full(len(encoded), np.nan)
    # Without a padding token rows are scored alone, as nothing can be put beside them.
    pads = tokenizer.pad_token_id is not None and _pad_id(model) is not None
    for width, rows, size in _batches([item.length for item in encoded], device, pads=pads):
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        inputs = _padded(tokenizer, [encoded[row] for row in filled], width, _pad_id(model))
        scores[rows] = _forward(model, inputs, device)[: len(rows)]
    if not np.isfinite(scores).all():
        raise UserError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite numbers",
            where="reward model",
            remedy="check the model's weights",
        )
    return scores


def _batches(
    lengths: Sequence[int], device: str, *, pads: bool
) -> Iterator[tuple[int, list[int], int]]:
    """(padded length, rows, rows of a full batch), the longest first."""
    by_width: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        width = next((b for b in BUCKETS if b >= length), length) if pads else length
        by_width[width].append(index)
    budget = TOKENS_PER_BATCH[device.split(":")[0]]
    for width in sorted(by_width, reverse=True):
        size = max(1, budget // width) if pads else 1
        rows = by_width[width]
        for start in range(0, len(rows), size):
            yield width, rows[start : start + size], size


def _pad_id(model: Any) -> int | None:
    """What the model takes for padding. A decoder reads its score at the last token that is not
    this one, whatever the tokenizer fills with."""
    return model.config.get_text_config().pad_token_id


def _padded(
    tokenizer: Any, items: Sequence[_Encoded], width: int, pad_id: int | None
) -> dict[str, torch.Tensor]:
    fills = {"input_ids": pad_id, "token_type_ids": tokenizer.pad_token_type_id}
    padded: dict[str, list[list[int]]] = {}
    for key in items[0].inputs:
        padded[key] = []
        for item in items:
            fill = [fills.get(key) or 0] * (width - item.length)
            values = item.inputs[key]
            # At the right, whatever the tokenizer's habit: positions then start at the text.
            padded[key].append([*values, *fill])
    return {key: torch.tensor(rows) for key, rows in padded.items()}


def _forward(model: Any, inputs: dict[str, torch.Tensor], device: str) -> np.ndarray:
    with torch.inference_mode():
        logits = model(**{key: value.to(device) for key, value in inputs.items()}).logits
    return logits[:, 0].double().cpu().numpy()
