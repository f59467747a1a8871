"""Metrics of a patched run, computed from the logits at the last token.

A metric is a callable `metric(logits, pair_index) -> {name: values}`: logits [rows, vocab],
pair_index int64 [rows] (which pair each row belongs to), values [rows]. A `ColumnMetric` says
besides which tokens it reads, so that a sweep need not compute the logits of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interpflow.errors import UserError

Metric = Callable[[Tensor, Tensor], dict[str, Tensor]]

# Metrics that jump when two logits change places.
DISCRETE_METRICS = ("argmax_candidate",)


def answer_contrast_metric(
    clean_token_ids: Sequence[int],
    corrupted_token_ids: Sequence[int],
    candidate_ids: Sequence[int] | None = None,
    candidate_values: Sequence[float] | None = None,
) -> Metric:
    """Contrast of the two right answers of a pair, and the answer read over all candidates.

    clean_token_ids, corrupted_token_ids: per pair, the first token that tells the right answers
    apart: clean for the donor, corrupted for the base (the denoising form; in the noising
    direction swap them or read the sign the other way).
    `logit_difference` = z[clean] - z[corrupted], the primary metric of Zhang and Nanda (2024):
    large when the donor's answer wins. With candidates, tokens shared by all pairs and the number
    each stands for: `expected_count` = sum of value x softmax over the candidates alone,
    `captured_mass` = probability of all candidates in the full vocabulary, `argmax_candidate` =
    value of the likeliest candidate.
    Raises UserError when candidates share a token: their first tokens do not tell them apart.
    """
    if len(clean_token_ids) != len(corrupted_token_ids):
        raise UserError("clean and corrupted answers differ in number", where="answer metric")
    if (candidate_ids is None) != (candidate_values is None):
        raise UserError("candidates need both ids and values", where="answer metric")
    clean = torch.tensor(list(clean_token_ids), dtype=torch.int64)
    corrupted = torch.tensor(list(corrupted_token_ids), dtype=torch.int64)
    candidates = None
    if candidate_ids is not None and candidate_values is not None:
        if len(candidate_ids) != len(candidate_values) or not candidate_ids:
            raise UserError("candidate ids and values differ in number", where="answer metric")
        if len(set(candidate_ids)) != len(candidate_ids):
            raise UserError(
                "two candidate answers begin with the same token",
                where="answer metric",
                remedy="keep to answers of one distinct token each, or score whole answers",
            )
        candidates = torch.tensor(list(candidate_ids), dtype=torch.int64)

    def metric(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        pairs = pair_index.cpu()
        z = logits.double()

        def at(tokens: Tensor) -> Tensor:
            return z.gather(1, tokens[pairs].to(z.device)[:, None])[:, 0]

        found = {"logit_difference": at(clean) - at(corrupted)}
        if candidates is None or candidate_values is None:
            return found
        among = z[:, candidates.to(z.device)]
        values = torch.tensor(list(candidate_values), dtype=torch.float64, device=z.device)
        found["expected_count"] = among.softmax(dim=-1) @ values
        found["captured_mass"] = (among.logsumexp(dim=-1) - z.logsumexp(dim=-1)).exp()
        found["argmax_candidate"] = values[among.argmax(dim=-1)]
        return found

    return metric


def kl_metric(reference_log_probs: Tensor) -> Metric:
    """`kl` = KL(reference || patched) in nats over the full vocabulary.

    reference_log_probs: [pair, vocab], natural log, usually of the donor's own run.
    """

    def metric(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        log_p = reference_log_probs[pair_index.to(reference_log_probs.device)]
        return {"kl": kl_from(log_p, logits)}

    return metric


def kl_from(reference_log_probs: Tensor, logits: Tensor) -> Tensor:
    """KL(reference || softmax(logits)) per row, float64 [rows], of [rows, vocab] each."""
    log_q = logits.double().log_softmax(dim=-1)
    log_p = reference_log_probs.to(log_q)
    # A token the reference gives no probability adds nothing, whatever log 0 does.
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(dim=-1)


def logit_diff_metric(
    correct_ids: Sequence[int], other_ids: Sequence[int], name: str = "logit_diff"
) -> ColumnMetric:
    """z[correct] - z[other] per pair: linear in the logits, the metric that Zhang and Nanda (2024)
    recommend."""
    columns = torch.tensor([list(correct_ids), list(other_ids)], dtype=torch.int64).T

    def function(logits: Tensor, _pair_index: Tensor) -> dict[str, Tensor]:
        return {name: logits[:, 0] - logits[:, 1]}

    return ColumnMetric(function, columns)


def expected_value_metric(
    candidate_ids: Sequence[int], candidate_values: Sequence[float], name: str = "expected_value"
) -> ColumnMetric:
    """Mean of the candidates' values, weighted by the softmax over the candidates alone."""
    values = torch.tensor(list(candidate_values), dtype=torch.float64)

    def function(logits: Tensor, _pair_index: Tensor) -> dict[str, Tensor]:
        z = logits.double()
        return {name: z.softmax(dim=-1) @ values.to(z.device)}

    columns = torch.tensor(list(candidate_ids), dtype=torch.int64)
    return ColumnMetric(function, columns, {name: float(values.max() - values.min())})


def probability_metric(correct_ids: Sequence[int], name: str = "probability") -> Metric:
    """Probability of each pair's correct token in the whole vocabulary. It saturates and hides
    components that work against the answer: read it beside a logit difference."""
    correct = torch.tensor(list(correct_ids), dtype=torch.int64)

    def metric(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        z = logits.double()
        tokens = correct[pair_index.cpu()].to(z.device)[:, None]
        return {name: (z.gather(1, tokens)[:, 0] - z.logsumexp(dim=-1)).exp()}

    return metric


def combine_metrics(*metrics: Metric) -> Metric:
    """One metric that reports the values of all; two metrics must not share a name."""
    columns = [metric for metric in metrics if isinstance(metric, ColumnMetric)]
    if len(columns) == len(metrics) > 0:
        return _combined_columns(columns)
    return CombinedMetric(metrics)


def value_spans(metric: Metric) -> dict[str, float]:
    """Name -> largest minus smallest of the numbers that a metric averages, where it says so."""
    if isinstance(metric, ColumnMetric):
        return dict(metric.spans)
    parts = metric.parts if isinstance(metric, CombinedMetric) else ()
    return {name: span for part in parts for name, span in value_spans(part).items()}


def _combined_columns(metrics: Sequence[ColumnMetric]) -> ColumnMetric:
    """One metric that reads the columns of all."""
    n_pairs = max((len(m.columns) for m in metrics if m.columns.ndim == 2), default=0)
    tables = [m.columns if m.columns.ndim == 2 or not n_pairs else
              m.columns.expand(n_pairs, -1) for m in metrics]  # fmt: skip
    widths = [table.shape[-1] for table in tables]

    def function(logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for part, own in zip(metrics, logits.split(widths, dim=-1)):
            for name, values in part.function(own, pair_index).items():
                if name in found:
                    raise UserError(f"two metrics are named {name!r}", where="metrics")
                found[name] = values
        return found

    spans = {name: span for part in metrics for name, span in part.spans.items()}
    return ColumnMetric(function, torch.cat(tables, dim=-1), spans)


@dataclass(frozen=True, eq=False)
class CombinedMetric:
    """The values of all parts; two of the same name raise UserError."""

    parts: tuple[Metric, ...]

    def __call__(self, logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for part in self.parts:
            for name, values in part(logits, pair_index).items():
                if name in found:
                    raise UserError(f"two metrics are named {name!r}", where="metrics")
                found[name] = values
        return found


@dataclass(frozen=True, eq=False)
class ColumnMetric:
    """A metric of a few logits. columns: int64 [n], the same tokens for all pairs, or [pair, n];
    function(logits [rows, n], pair_index [rows]) gets the logits of these tokens in this order.
    spans: name -> largest minus smallest of the numbers that the metric averages, if it does."""

    function: Metric
    columns: Tensor
    spans: Mapping[str, float] = field(default_factory=dict)

    def tokens(self, pair_index: Tensor) -> Tensor:
        """Tokens read for these rows: [n] or [rows, n]."""
        if self.columns.ndim == 1:
            return self.columns.to(pair_index.device)
        return self.columns.to(pair_index.device)[pair_index]

    def __call__(self, logits: Tensor, pair_index: Tensor) -> dict[str, Tensor]:
        tokens = self.tokens(pair_index).to(logits.device).expand(len(logits), -1)
        return self.function(logits.gather(1, tokens), pair_index)
