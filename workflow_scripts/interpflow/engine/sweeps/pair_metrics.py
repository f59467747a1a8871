"""The named metrics of a sweep over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interpflow.engine.metrics import (
    ColumnMetric,
    Metric,
    combine_metrics,
    kl_from,
    logit_diff_metric,
    probability_metric,
)
from interpflow.engine.model import Model
from interpflow.engine.pairs import TokenPair
from interpflow.engine.sweeps.collect import logit_rows
from interpflow.errors import UserError

# Answers that a metric needs.
METRICS = {"logit_diff": 2, "probability": 1, "kl": 0, "expected_value": 2}


def pair_metric(
    model: Model,
    pairs: Sequence[TokenPair],
    donor_ids: Sequence[Sequence[int]],
    names: Sequence[str],
    *,
    batch_tokens: int,
) -> Metric:
    """One metric that reports all named ones.

    logit_diff: z[clean's answer] - z[corrupted's answer]. probability: of the clean prompt's
    answer. kl: KL(donor's own run || patched run), in nats. expected_value: mean of the answers'
    values under the softmax over the answers. The sign never turns with the direction.
    Raises UserError for a pair without the answers or values that a metric needs.
    """
    for name in names:
        for i, pair in enumerate(pairs):
            if len(pair.answers) < METRICS[name]:
                raise UserError(
                    f"{name} needs {METRICS[name]} answers, there are {len(pair.answers)}",
                    where=f"pair {i}, answers",
                )
    parts: list[Metric] = []
    for name in dict.fromkeys(names):
        if name == "logit_diff":
            parts.append(
                logit_diff_metric([p.answers[0] for p in pairs], [p.answers[1] for p in pairs])
            )
        elif name == "probability":
            parts.append(probability_metric([p.answers[0] for p in pairs]))
        elif name == "kl":
            parts.append(DonorKL(model, donor_ids, batch_tokens))
        else:
            parts.append(_expected_value(pairs))
    return combine_metrics(*parts)


def _expected_value(pairs: Sequence[TokenPair]) -> Metric:
    """Answer sets may differ between pairs: short ones are filled up with their first answer, at
    no weight."""
    for i, pair in enumerate(pairs):
        if pair.values is None:
            raise UserError("expected_value needs `values`", where=f"pair {i}")
    width = max(len(pair.answers) for pair in pairs)
    columns = torch.tensor(
        [pair.answers + [pair.answers[0]] * (width - len(pair.answers)) for pair in pairs]
    )
    values = torch.tensor(
        [list(pair.values or ()) + [0.0] * (width - len(pair.answers)) for pair in pairs],
        dtype=torch.float64,
    )
    real = torch.tensor([[j < len(pair.answers) for j in range(width)] for pair in pairs])

    def function(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        rows = pair_index.cpu()
        z = logits.double().masked_fill(~real[rows].to(logits.device), float("-inf"))
        return {"expected_value": (z.softmax(dim=-1) * values[rows].to(z.device)).sum(dim=-1)}

    span = max(max(pair.values or ()) - min(pair.values or ()) for pair in pairs)
    return ColumnMetric(function, columns, {"expected_value": float(span)})


@dataclass(eq=False)
class DonorKL:
    """`kl`: KL(donor's own run || patched run) in nats. The donors' log-probabilities are taken
    when first asked for, and those of about as many pairs kept as a sweep takes at a time
    (`logit_rows`), so that memory does not grow with the number of pairs.

    kept: pair -> log-probabilities [vocab], the longest kept first.
    """

    model: Model
    donor_ids: Sequence[Sequence[int]]
    batch_tokens: int
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        self.take(pair_index)
        asked = pair_index.tolist()
        return {"kl": kl_from(torch.stack([self.kept[pair] for pair in asked]), logits)}

    def take(self, pairs: Tensor) -> None:
        """Run the donors of these pairs [rows] that are not kept."""
        self._take(sorted(set(pairs.tolist())))

    def _take(self, pairs: Sequence[int]) -> None:
        missing = [pair for pair in pairs if pair not in self.kept]
        if not missing:
            return
        surplus = len(self.kept) + len(missing) - logit_rows(self.model)
        for pair in [pair for pair in self.kept if pair not in pairs][: max(0, surplus)]:
            del self.kept[pair]
        ids = [self.donor_ids[pair] for pair in missing]
        logits = self.model.last_logits(ids, batch_tokens=self.batch_tokens)
        # Rows of their own, so that each can be let go of.
        rows = (row.clone() for row in logits.log_softmax(dim=-1))
        self.kept.update(zip(missing, rows))
