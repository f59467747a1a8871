"""What the embedded reward model is trained for: right above wrong, and knowing where and why.

Bradley and Terry (1952): the log-odds that an answer is the better one of two are the difference
of their scores. One such comparison says little about why, so two readouts that are thrown away
after training ask, at every token of an answer, whether it stands there rightly, and at masked
tokens of right answers, which one it was.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Encoding
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid
from transformers import ModernBertForSequenceClassification, PreTrainedTokenizerFast

from interpflow.models.reference.problem_corpus import with_unknown_words
from interpflow.models.reference.reward_architecture import CLS, MASK, SEP
from interpflow.models.reference.reward_corpus import (
    NEAR,
    WRONG,
    draw,
    right_answer,
    wrong_answer,
)
from interpflow.models.reference.reward_recipe import RewardRecipe, StepRows
from interpflow.models.reference.tokenizer import PAD, token_id
from interpflow.tasks.word_problems import WordProblem

NOT_ASKED = -100
HIDDEN_SHARES = (0.2, 0.8)  # of a right answer's words
HIDDEN_RESULTS = 0.7  # of the drilled equations


@dataclass(frozen=True)
class Row:
    """A question with an answer as it is shown.

    right: the answer whose tokens are the right ones here, or None where that is not asked of all;
    hidden: characters of the answer whose tokens are masked; judged: those whose tokens are asked
    about, with whether they are wrong.
    """

    question: str
    answer: str
    right: str | None = None
    hidden: tuple[int, ...] = ()
    judged: tuple[tuple[int, bool], ...] = ()


@dataclass(frozen=True)
class RewardBatch:
    """Right-padded rows, all int64. ids, mask [row, position]; better, worse [pair]: rows;
    wrong [row, position]: 1 where a token of an answer is not the right answer's, 0 where it is;
    target [row, position]: the token that is masked. NOT_ASKED elsewhere in both."""

    ids: torch.Tensor
    mask: torch.Tensor
    better: torch.Tensor
    worse: torch.Tensor
    wrong: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True)
class RewardLosses:
    """The loss of a step and, for the record, its parts and the share of pairs in order;
    None in steps without pairs."""

    total: torch.Tensor
    pairs: float | None
    tokens: float
    masked: float
    ordered: float | None


class TokenReadouts(nn.Module):
    """The two readouts at single tokens, used in training and thrown away."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.wrong = nn.Linear(hidden, 1)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def token_logits(self, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Logits [masked, vocabulary], by the embedding that the input has as well."""
        return hidden @ embedding.T + self.bias


def draw_rows(
    recipe: RewardRecipe, step_rows: StepRows, rng: random.Random
) -> tuple[list[Row], list[tuple[int, int]]]:
    """The rows of one step, and pairs (row of the better answer, row of the worse one).

    Each problem's right answer with wrong ones of different kinds, right answers with hidden
    words, and equations without a question.
    """
    rows: list[Row] = []
    pairs: list[tuple[int, int]] = []
    for index in range(step_rows.problems):
        problem = draw(rng, 1 + index % 2, from_held_out=False)
        right, question = right_answer(problem), _asked(recipe, problem, rng)
        better = len(rows)
        rows.append(Row(question, right, right))
        for kind in rng.sample(tuple(WRONG), step_rows.wrong):
            pairs.append((better, len(rows)))
            rows.append(Row(question, wrong_answer(problem, kind, rng).text, right))
    for index in range(step_rows.masked):
        problem = draw(rng, 1 + index % 2, from_held_out=False)
        right, share = right_answer(problem), rng.uniform(*HIDDEN_SHARES)
        words = [match.start() for match in re.finditer(r"\S+", right)]
        hidden = tuple(at for at in words if rng.random() < share)
        rows.append(Row(_asked(recipe, problem, rng), right, hidden=hidden))
    rows += [_drill_row(step_rows.equations, rng) for _ in range(step_rows.drills)]
    return rows, pairs


def _asked(recipe: RewardRecipe, problem: WordProblem, rng: random.Random) -> str:
    if rng.random() < recipe.made_up_share:
        return with_unknown_words(problem.question, rng)
    return problem.question


def _drill_row(equations: int, rng: random.Random) -> Row:
    """Equations, whose results are hidden, or shown and judged, half of those wrong."""
    text, hidden, judged = "", [], []
    for index in range(equations):
        step = rng.choice(draw(rng, 1 + index % 2, from_held_out=False).steps)
        left = f"{' ' if text else ''}{step.text}".rsplit(" ", 1)[0]
        at = len(text) + len(left) + 1
        shown = step.result
        if rng.random() < HIDDEN_RESULTS:
            hidden.append(at)
        else:
            if rng.random() < 0.5:
                shown = max(0, shown + rng.choice(NEAR))
            judged.append((at, shown != step.result))
        text += f"{left} {shown}."
    return Row("", text, hidden=tuple(hidden), judged=tuple(judged))


def encode_reward_rows(
    rows: Sequence[Row], pairs: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerFast
) -> RewardBatch:
    """Token ids as the tokenizer gives them for pairs, with what is asked at each token."""
    encode = tokenizer.backend_tokenizer.encode_batch
    questions, answers, rights = (
        encode(texts, add_special_tokens=False)
        for texts in (
            [row.question for row in rows],
            [row.answer for row in rows],
            [row.right or "" for row in rows],
        )
    )
    cls, sep, mask_id = (token_id(tokenizer, symbol) for symbol in (CLS, SEP, MASK))
    width = max(len(q.ids) + len(a.ids) + 3 for q, a in zip(questions, answers, strict=True))
    shape = (len(rows), width)
    ids = torch.full(shape, token_id(tokenizer, PAD))
    mask = torch.zeros(shape, dtype=torch.long)
    wrong = torch.full(shape, NOT_ASKED)
    target = torch.full(shape, NOT_ASKED)
    for at, row in enumerate(rows):
        question, answer, right = questions[at].ids, answers[at].ids, rights[at].ids
        start, end = len(question) + 2, len(question) + 2 + len(answer)
        given = [*answer]
        for character in row.hidden:
            token = _token_at(answers[at], character)
            target[at, start + token] = answer[token]
            given[token] = mask_id
        for character, is_wrong in row.judged:
            wrong[at, start + _token_at(answers[at], character)] = int(is_wrong)
        if row.right is not None:
            # The separator at the end is wrong where the answer should go on, or have ended.
            labels = [int(i >= len(right) or right[i] != a) for i, a in enumerate(answer)]
            labels.append(int(len(answer) != len(right)))
            wrong[at, start : end + 1] = torch.tensor(labels)
        ids[at, : end + 1] = torch.tensor([cls, *question, sep, *given, sep])
        mask[at, : end + 1] = 1
    better, worse = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return RewardBatch(ids, mask, better, worse, wrong, target)


def _token_at(encoding: Encoding, character: int) -> int:
    token = encoding.char_to_token(character)
    if token is None:
        raise ValueError(f"no token at character {character}")
    return token


def reward_losses(
    model: ModernBertForSequenceClassification,
    readouts: TokenReadouts,
    batch: RewardBatch,
    recipe: RewardRecipe,
) -> RewardLosses:
    """Bradley–Terry loss of the pairs and the weighted losses at tokens, each a mean."""
    hidden = model.model(batch.ids, attention_mask=batch.mask).last_hidden_state
    n_scored = int(batch.worse.max()) + 1 if len(batch.worse) else 0
    scores = model.classifier(model.head(hidden[:n_scored, 0]))[:, 0]
    difference = scores[batch.better] - scores[batch.worse]
    pairs = -logsigmoid(difference).sum() / max(1, len(difference))
    asked = batch.wrong != NOT_ASKED
    tokens = binary_cross_entropy_with_logits(
        readouts.wrong(hidden[asked])[:, 0], batch.wrong[asked].float()
    )
    hidden_tokens = batch.target != NOT_ASKED
    logits = readouts.token_logits(
        hidden[hidden_tokens], model.model.embeddings.tok_embeddings.weight
    )
    masked = cross_entropy(logits, batch.target[hidden_tokens])
    total = pairs + recipe.wrong_weight * tokens + recipe.masked_weight * masked
    any_pairs = len(difference) > 0
    return RewardLosses(
        total,
        pairs=float(pairs.detach()) if any_pairs else None,
        tokens=float(tokens.detach()),
        masked=float(masked.detach()),
        ordered=float((difference > 0).float().mean()) if any_pairs else None,
    )
