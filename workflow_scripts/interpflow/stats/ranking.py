"""How well a ranking of sites finds the sites known to matter: AUROC, AUPRC, TPR at a small FPR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.record import SINGLE_CLASS

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

Measure = Literal["auroc", "auprc"]


@dataclass(frozen=True)
class RankingScore:
    """One score of a ranking; NaN and flagged when the labels are all alike.

    `base_rate` is the share of positives: what AUPRC reaches with a random order (AUROC: ½), and
    what makes a high AUROC cheap when it is small. `n_positive` of `n_sites` sites are positive.
    """

    quantity: str
    estimate: float
    base_rate: float
    n_positive: int
    n_sites: int
    flags: tuple[str, ...] = ()

    @property
    def defined(self) -> bool:
        """Whether the score exists."""
        return not math.isnan(self.estimate)


def auroc(scores: ArrayLike, labels: ArrayLike) -> RankingScore:
    """Area under the ROC curve: P(a positive outranks a negative), ties one half.

    `scores` [sites], larger = more likely to matter, infinite allowed; `labels` bool [sites].
    From midranks over all sites (Mann & Whitney 1947), not from a grid of thresholds.
    Raises UserError for misfitting shapes or NaN scores.
    """
    return _scored("AUROC", midrank_auroc, scores, labels)


def auprc(scores: ArrayLike, labels: ArrayLike) -> RankingScore:
    """Average precision Σ (R_k − R_{k−1})·P_k over the distinct scores; ties are one threshold.

    Arguments and errors as `auroc`. Read it beside its `base_rate`. No interpolation: linear
    interpolation between precisions is too optimistic (Davis & Goadrich 2006).
    """
    return _scored("AUPRC", average_precision, scores, labels)


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, fpr: float = 0.05) -> RankingScore:
    """Largest share of positives found at any threshold with at most `fpr` of the negatives.

    Tied scores pass a threshold together; nothing is interpolated. Arguments and errors as
    `auroc`; raises UserError for an `fpr` outside [0, 1].
    """
    if not 0 <= fpr <= 1:
        raise UserError(f"a false-positive rate of {fpr} is not in [0, 1]", where="fpr")

    def found(values: FloatArray, positive: BoolArray) -> float:
        hits, misses = _found_by_threshold(values, positive)
        # Rates such as 0.05 · 20 must not lose their last negative to rounding.
        allowed = math.floor(fpr * misses[-1] + 1e-9)
        return float(hits[misses <= allowed].max(initial=0) / hits[-1])

    return _scored(f"TPR at FPR {fpr:g}", found, scores, labels)


def ranking_measure(measure: Measure) -> Callable[[FloatArray, BoolArray], float]:
    """The function of checked scores [sites] and labels [sites] with both classes present."""
    measures = {"auroc": midrank_auroc, "auprc": average_precision}
    if measure not in measures:
        raise UserError(f"unknown measure {measure!r}", remedy=f"use one of {sorted(measures)}")
    return measures[measure]


def midrank_auroc(values: FloatArray, positive: BoolArray) -> float:
    """AUROC of checked arrays [sites] in which both classes are present."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    midranks = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    n_positive = int(positive.sum())
    smallest = n_positive * (n_positive + 1) / 2
    above = float(midranks[positive].sum()) - smallest
    return above / (n_positive * (len(values) - n_positive))


def average_precision(values: FloatArray, positive: BoolArray) -> float:
    """Average precision of checked arrays [sites] with at least one positive."""
    hits, misses = _found_by_threshold(values, positive)
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (hits + misses)).sum() / hits[-1])


def checked_labels(labels: ArrayLike, n_sites: int) -> BoolArray:
    """Labels as bool [sites]. Raises UserError when they are not `n_sites` values of 0 and 1."""
    given = np.asarray(labels)
    if given.shape != (n_sites,):
        raise UserError(f"labels {given.shape} do not fit {n_sites} sites", where="labels")
    if not np.isin(given, (0, 1)).all():
        raise UserError("labels hold values other than 0 and 1", where="labels")
    return given.astype(bool)


def _found_by_threshold(
    values: FloatArray, positive: BoolArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positives and negatives at or above each distinct score, from the largest down."""
    _, codes = np.unique(-values, return_inverse=True)
    hits = np.bincount(codes, weights=positive).cumsum()
    misses = np.bincount(codes, weights=~positive).cumsum()
    return hits.astype(np.int64), misses.astype(np.int64)


def _scored(
    quantity: str,
    measure: Callable[[FloatArray, BoolArray], float],
    scores: ArrayLike,
    labels: ArrayLike,
) -> RankingScore:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise UserError(f"scores have shape {values.shape}, not [sites]", where="scores")
    if np.isnan(values).any():
        raise UserError(
            f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN",
            where="scores",
            remedy="leave sites without a score out of the ranking, and count them",
        )
    positive = checked_labels(labels, len(values))
    n_positive = int(positive.sum())
    single = n_positive in (0, len(values))
    return RankingScore(
        quantity=quantity,
        estimate=math.nan if single else float(measure(values, positive)),
        base_rate=n_positive / len(values) if len(values) else math.nan,
        n_positive=n_positive,
        n_sites=len(values),
        flags=(SINGLE_CLASS,) if single else (),
    )
