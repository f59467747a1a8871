"""Answers of task items under layer plans, beside the intact model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from interpflow.engine.layers.execute import TOKENS_PER_PASS
from interpflow.engine.model import Model
from interpflow.inference.batching import Progress
from interpflow.inference.surgery.plan_batches import (
    NOTHING,
    PlanBatch,
    Surroundings,
    plan_batches,
)
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.plans.layer_plan import LayerPlan

Row = dict[str, Any]


def measure_answers(
    model: Model,
    plans: Sequence[LayerPlan],
    rows: Sequence[ScoredRow],
    surroundings: Surroundings = NOTHING,
    *,
    top_tokens: int = 0,
    tokens_per_batch: int = TOKENS_PER_PASS,
    progress: Progress | None = None,
) -> list[list[Row]]:
    """Of each plan, a row of the table `surgery_answers` for each item (without the columns `plan`
    and `run`).

    log_prob, delta_log_prob (plan less intact): nats, over all tokens of the answer. kl(intact ‖
    plan) and top1_kept: means over its tokens. rank: worst mid-rank of its tokens. answered: each
    of its tokens is the one most probable token after those before it. gained, lost: the
    `top_tokens` tokens whose probability right after the prompt grew or fell most, largest first.
    """
    decode = _decoder(model)
    kept: _FirstProbabilities | None = None
    found: list[list[Row | None]] = [[None] * len(rows) for _ in plans]
    for batch in plan_batches(
        model, plans, rows, surroundings, tokens_per_batch=tokens_per_batch, progress=progress
    ):
        if kept is None or kept.reader is not batch.reader:
            kept = _FirstProbabilities(batch)
        counts = torch.tensor([len(rows[number].targets) for number in batch.rows])
        gained, lost = kept.changes(batch, top_tokens)
        scores = batch.readings.stacked
        means = batch.means(scores).T.tolist()
        totals = [part.sum().item() for part in scores[0].split(counts.tolist())]
        intact = [part.sum().item() for part in batch.intact.log_prob.split(counts.tolist())]
        worst = [part.max().item() for part in scores[3].split(counts.tolist())]
        for at, number in enumerate(batch.rows):
            _, kl, top1_kept, _ = means[at]
            found[batch.plan][number] = {
                "example_id": rows[number].item_id,
                "n_tokens": len(rows[number].targets),
                "log_prob": totals[at],
                "delta_log_prob": totals[at] - intact[at],
                "kl": kl,
                "top1_kept": top1_kept,
                "rank": worst[at],
                "answered": worst[at] == 1.0,
                "gained": [decode(token) for token in gained[at]],
                "lost": [decode(token) for token in lost[at]],
            }
    return [[row for row in listed if row is not None] for listed in found]


class _FirstProbabilities:
    """The intact model's probabilities right after each prompt of a batch."""

    def __init__(self, batch: PlanBatch) -> None:
        self.reader = batch.reader
        self._first = batch.first
        self._intact: Tensor | None = None

    def changes(self, batch: PlanBatch, n: int) -> tuple[list[list[int]], list[list[int]]]:
        """Tokens of each row whose probability grew most, and fell most."""
        if not n:
            return [[]] * len(batch.rows), [[]] * len(batch.rows)
        if self._intact is None:
            self._intact = self.reader.probabilities(self.reader.intact, self._first)
        change = self.reader.probabilities(batch.states, self._first) - self._intact
        return _largest(change, n), _largest(-change, n)


def _largest(change: Tensor, n: int) -> list[list[int]]:
    values, tokens = change.topk(min(n, change.shape[1]), dim=1)
    return [
        [token for value, token in zip(*row) if value > 0]
        for row in zip(values.tolist(), tokens.tolist())
    ]


def _decoder(model: Model) -> Callable[[int], str]:
    """Text of a token; its number where there is no tokenizer."""

    @cache
    def decode(token: int) -> str:
        return str(token) if model.tokenizer is None else model.tokenizer.decode([token])

    return decode
