"""What the embedded reward model is trained for: right above wrong, and knowing where.

Bradley and Terry (1952): the log-odds that an answer is the better one of two are the difference
of their scores. One such comparison says little about why, so a readout that is thrown away after
training asks at every token of an answer whether it stands there rightly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from interpflow.models.reference.problem_corpus import with_unknown_words
from interpflow.models.reference.reward_corpus import (
    draw,
    drawn_kinds,
    right_answer,
    wrong_answer,
)
from interpflow.models.reference.reward_recipe import RewardRecipe
from interpflow.models.reference.tokenizer import PAD, token_id

NOT_ASKED = -100


@dataclass(frozen=True)
class Row:
    """A question with an answer as it is shown, and the answer that is right."""

    question: str
    answer: str
    right: str


@dataclass(frozen=True)
class RewardBatch:
    """Right-padded rows, all int64. ids [row, position]; last [row]: position of the last token;
    better, worse [pair]: rows; wrong [row, position]: at the tokens of an answer, 0 up to the first
    that is not the right answer's, 1 there and at the end; NOT_ASKED elsewhere."""

    ids: torch.Tensor
    last: torch.Tensor
    better: torch.Tensor
    worse: torch.Tensor
    wrong: torch.Tensor


@dataclass(frozen=True)
class RewardLosses:
    """The loss of a step and, for the record, its parts and the share of pairs in order."""

    total: torch.Tensor
    pairs: float
    tokens: float
    ordered: float


def draw_rows(recipe: RewardRecipe, rng: random.Random) -> tuple[list[Row], list[tuple[int, int]]]:
    """The rows of one step, each problem's right answer and wrong ones of different kinds, and the
    pairs (row of the better answer, row of the worse one)."""
    rows: list[Row] = []
    pairs: list[tuple[int, int]] = []
    for index in range(recipe.problems):
        problem = draw(rng, 1 + index % 2, from_held_out=False)
        right, question = right_answer(problem), problem.question
        if rng.random() < recipe.made_up_share:
            question = with_unknown_words(question, rng)
        better = len(rows)
        rows.append(Row(question, right, right))
        for kind in drawn_kinds(rng):
            pairs.append((better, len(rows)))
            rows.append(Row(question, wrong_answer(problem, kind, rng).text, right))
    return rows, pairs


def encode_reward_rows(
    rows: Sequence[Row], pairs: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerFast
) -> RewardBatch:
    """Token ids as the tokenizer gives them for pairs, with what is asked at each token."""
    backend = tokenizer.backend_tokenizer
    shown = backend.encode_batch([(row.question, row.answer) for row in rows])
    rights = backend.encode_batch([row.right for row in rows], add_special_tokens=False)
    shape = (len(rows), max(len(encoding.ids) for encoding in shown))
    ids = torch.full(shape, token_id(tokenizer, PAD))
    wrong = torch.full(shape, NOT_ASKED)
    for at, (encoding, right) in enumerate(zip(shown, rights, strict=True)):
        length = len(encoding.ids)
        ids[at, :length] = torch.tensor(encoding.ids)
        start = next((i for i, part in enumerate(encoding.sequence_ids) if part == 1), length - 1)
        # The end is a token as well: wrong where the answer should go on, and behind any fault.
        expected = [*right.ids, encoding.ids[-1]]
        given = encoding.ids[start:]
        agree = [i < len(expected) and expected[i] == a for i, a in enumerate(given)]
        first = next((i for i, same in enumerate(agree) if not same), len(agree))
        wrong[at, start : start + first] = 0
        if first < len(agree):
            # What follows a fault is neither right nor wrong by itself.
            wrong[at, [start + first, length - 1]] = 1
    last = torch.tensor([len(encoding.ids) - 1 for encoding in shown])
    better, worse = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return RewardBatch(ids, last, better, worse, wrong)


def reward_losses(
    model: LlamaForSequenceClassification,
    readout: nn.Linear,
    batch: RewardBatch,
    token_weight: float,
) -> RewardLosses:
    """Bradley–Terry loss of the pairs and the weighted loss at tokens, each a mean. Rows are padded
    at the right, where causality alone hides the padding."""
    hidden = model.model(batch.ids).last_hidden_state
    scores = model.score(hidden[torch.arange(len(hidden)), batch.last])[:, 0]
    difference = scores[batch.better] - scores[batch.worse]
    pairs = -logsigmoid(difference).mean()
    asked = batch.wrong != NOT_ASKED
    tokens = binary_cross_entropy_with_logits(
        readout(hidden[asked])[:, 0], batch.wrong[asked].float()
    )
    return RewardLosses(
        total=pairs + token_weight * tokens,
        pairs=float(pairs.detach()),
        tokens=float(tokens.detach()),
        ordered=float((difference > 0).float().mean()),
    )
