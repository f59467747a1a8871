"""Loss of neutral documents under layer plans, beside the intact model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from interpflow.engine.layers.execute import TOKENS_PER_PASS
from interpflow.engine.model import Model
from interpflow.inference.batching import Progress
from interpflow.inference.surgery.plan_batches import NOTHING, Surroundings, plan_batches
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.plans.layer_plan import LayerPlan

Row = dict[str, Any]


def measure_texts(
    model: Model,
    plans: Sequence[LayerPlan],
    rows: Sequence[ScoredRow],
    surroundings: Surroundings = NOTHING,
    *,
    tokens_per_batch: int = TOKENS_PER_PASS,
    progress: Progress | None = None,
) -> list[list[Row]]:
    """Of each plan, a row of the table `surgery_text_losses` for each document (without the columns
    `plan` and `run`).

    Means over a document's scored tokens: loss −log p(token) and delta_loss (plan less intact) in
    nats per token, kl(intact ‖ plan) in nats, top1_kept, mid-rank of the token.
    """
    found: list[list[Row | None]] = [[None] * len(rows) for _ in plans]
    for batch in plan_batches(
        model, plans, rows, surroundings, tokens_per_batch=tokens_per_batch, progress=progress
    ):
        means = batch.means(batch.readings.stacked)
        # The same sums for both, so that equal readings leave a difference of exactly 0.
        intact = batch.means(batch.intact.stacked)
        delta = intact[0] - means[0]
        values = torch.cat([means, delta[None]]).T.tolist()
        for number, (log_prob, kl, top1_kept, rank, delta_loss) in zip(batch.rows, values):
            found[batch.plan][number] = {
                "document_id": rows[number].item_id,
                "n_tokens": len(rows[number].targets),
                "loss": -log_prob,
                "delta_loss": delta_loss,
                "kl": kl,
                "top1_kept": top1_kept,
                "rank": rank,
            }
    return [[row for row in listed if row is not None] for listed in found]
