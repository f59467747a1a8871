"""Exact accuracy: strict, conditional on a parsed answer, worst-case bounds, and its baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.intervals import mean_interval, proportion
from interpflow.stats.quantiles import normal_quantile
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined


@dataclass(frozen=True)
class Accuracy:
    """`strict` counts unparsed answers as wrong and is primary; `conditional` leaves them out.

    The truth lies in [`lower_bound`, `upper_bound`] whatever the unparsed answers were.
    """

    strict: Estimate
    conditional: Estimate
    parse_rate: Estimate
    lower_bound: float
    upper_bound: float


@dataclass(frozen=True)
class Baselines:
    """What no skill would score: printed beside every accuracy."""

    uniform: float
    best_constant: float
    best_constant_answer: float
    own_marginal: float
    length_only: float


def _share(hits: np.ndarray, clusters: np.ndarray | None, quantity: str, level: float) -> Estimate:
    if clusters is None:
        return proportion(int(hits.sum()), len(hits), quantity=quantity, level=level)
    return mean_interval(
        hits.astype(np.float64),
        clusters=clusters,
        quantity=quantity,
        level=level,
        null=math.nan,
        is_proportion=True,
    )


def accuracy(
    correct: ArrayLike,
    parsed: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Accuracy:
    """Accuracy of answers, `correct` and `parsed` bool [items] (`parsed` None: all parsed).

    Wilson intervals for independent items, clustered t otherwise. No p-value: compare with a
    baseline by a paired test.
    """
    right = np.asarray(correct, dtype=bool)
    read = np.ones(len(right), bool) if parsed is None else np.asarray(parsed, dtype=bool)
    if right.shape != read.shape:
        raise UserError(f"correct {right.shape} and parsed {read.shape} differ in shape")
    labels = None if clusters is None else np.asarray(clusters)
    hits, n = right & read, len(right)
    conditional = _share(
        hits[read], None if labels is None else labels[read], "accuracy if parsed", level
    )
    return Accuracy(
        strict=_share(hits, labels, "accuracy (strict)", level),
        conditional=replace(conditional, n_dropped=int(np.sum(~read))),
        parse_rate=_share(read, labels, "parse rate", level),
        lower_bound=float(hits.mean()) if n else math.nan,
        upper_bound=float((hits | ~read).mean()) if n else math.nan,
    )


def design_weighted_accuracy(
    correct: ArrayLike,
    cells: ArrayLike,
    *,
    weights: Mapping[object, float] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Σ W_h A_h over design cells, SE² = Σ W_h² A_h(1 − A_h)/n_h: the accuracy of the design.

    `correct` bool [items], `cells` labels [items]; `weights` cell → weight (None: all equal),
    normalised to 1. A weighted cell without items makes the result undefined.
    """
    right, labels = np.asarray(correct, dtype=np.float64), np.asarray(cells)
    present = list(np.unique(labels))
    chosen = weights or dict.fromkeys(present, 1.0)
    total = sum(chosen.values())
    mean, variance = 0.0, 0.0
    quantity = "accuracy (design-weighted)"
    for cell, weight in chosen.items():
        hits = right[labels == cell]
        if len(hits) == 0:
            return undefined(quantity, EMPTY_CELL, ci_level=level, n_units=len(right))
        share = weight / total
        mean += share * hits.mean()
        variance += share**2 * hits.mean() * (1 - hits.mean()) / len(hits)
    reach = normal_quantile(0.5 + level / 2) * math.sqrt(variance)
    return Estimate(
        quantity=quantity,
        estimate=mean,
        ci_low=max(0.0, mean - reach),
        ci_high=min(1.0, mean + reach),
        ci_level=level,
        test="stratified_normal",
        n_units=len(right),
    )


def baselines(
    truth: ArrayLike, answers: ArrayLike, lengths: ArrayLike, *, n_allowed: int
) -> Baselines:
    """Scores of four answering rules that do not look at the words.

    `truth`, `lengths` [items]; `answers` [items] (NaN: unparsed); `n_allowed` how many counts the
    task allows. Own marginal: the model's answers shuffled against the truth, in expectation.
    Length only: the most frequent truth given the length.
    """
    true, given = (np.asarray(x, dtype=np.float64) for x in (truth, answers))
    if len(true) == 0:
        return Baselines(1 / n_allowed, math.nan, math.nan, math.nan, math.nan)
    values, counts = np.unique(true, return_counts=True)
    best = int(np.argmax(counts))
    marginal = sum(
        count / len(true) * float(np.mean(given == value)) for value, count in zip(values, counts)
    )
    lengths_array = np.asarray(lengths)
    by_length = sum(
        int(np.unique(true[lengths_array == length], return_counts=True)[1].max())
        for length in np.unique(lengths_array)
    )
    return Baselines(
        uniform=1 / n_allowed,
        best_constant=float(counts[best] / len(true)),
        best_constant_answer=float(values[best]),
        own_marginal=marginal,
        length_only=by_length / len(true),
    )
