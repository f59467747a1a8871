"""Calibration of confidences: proper scores, calibration error with its null, signed gap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.intervals import mean_interval
from interpflow.stats.permutation import permutation_p
from interpflow.stats.record import (
    EMPTY_CELL,
    LOW_CAPTURED_MASS,
    Estimate,
    undefined,
)

FloatArray = NDArray[np.float64]

DEFAULT_BINS = 10
# Consistency resamples of the calibration error; its Monte-Carlo error at p = .05 is .005.
DEFAULT_RESAMPLES = 1999
# Confidence renormalised over a candidate set that captures less than this says little.
MIN_CAPTURED_MASS = 0.5


@dataclass(frozen=True)
class ReliabilityBin:
    """One equal-mass bin of a calibration curve."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Calibration of the confidence in the chosen answer.

    `ece` is biased upwards: `ece_excess` subtracts its mean for a perfectly calibrated model with
    the same confidences, and its p-value is against that model (Bröcker & Smith 2007).
    """

    brier_binary: Estimate
    signed_gap: Estimate
    ece: Estimate
    ece_null_mean: float
    ece_excess: float
    curve: tuple[ReliabilityBin, ...]


def brier_scores(probabilities: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Multi-class Brier score per item, Σ_k (p_k − 1[y = k])², in [0, 2].

    `probabilities` [items, classes], `truth` [items] class indices. The binary form, as in
    scikit-learn, is half of the two-class sum.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    target = np.zeros_like(shares)
    target[np.arange(len(shares)), np.asarray(truth, dtype=np.intp)] = 1
    return ((shares - target) ** 2).sum(axis=1)


def log_losses(probabilities: ArrayLike, truth: ArrayLike) -> FloatArray:
    """−log p of the true class per item, in nats; `probabilities` [items, classes]."""
    shares = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return -np.log(shares[np.arange(len(shares)), np.asarray(truth, dtype=np.intp)])


def proper_scores(
    probabilities: ArrayLike, truth: ArrayLike, *, clusters: ArrayLike | None = None
) -> tuple[Estimate, Estimate]:
    """Mean multi-class Brier score and mean log loss (nats) with their intervals."""
    brier, loss = (
        mean_interval(score(probabilities, truth), clusters=clusters, quantity=name, null=math.nan)
        for score, name in ((brier_scores, "Brier (multi-class)"), (log_losses, "log loss"))
    )
    return brier, loss


def calibration_curve(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = DEFAULT_BINS
) -> tuple[ReliabilityBin, ...]:
    """Equal-mass bins of `confidence` [items] with mean confidence and accuracy."""
    conf = np.asarray(confidence, dtype=np.float64)
    hits = np.asarray(correct, dtype=np.float64)
    order = np.argsort(conf, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(
        ReliabilityBin(float(conf[part].mean()), float(hits[part].mean()), len(part))
        for part in parts
    )


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = DEFAULT_BINS
) -> float:
    """Σ_b (n_b/n)·|accuracy_b − confidence_b| over equal-mass bins; NaN without items."""
    curve = calibration_curve(confidence, correct, bins=bins)
    total = sum(part.n for part in curve)
    if total == 0:
        return math.nan
    return sum(part.n * abs(part.accuracy - part.confidence) for part in curve) / total


def _null_errors(conf: FloatArray, bins: int, n_resamples: int, seed: int) -> FloatArray:
    """Calibration errors [draws] of outcomes drawn with the stated confidences."""
    ordered = np.sort(conf, kind="stable")
    parts = [part for part in np.array_split(np.arange(len(conf)), bins) if len(part)]
    starts = np.array([part[0] for part in parts])
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(conf))
    errors = []
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        gap = (rng.random((size, len(conf))) < ordered) - ordered
        errors.append(np.abs(np.add.reduceat(gap, starts, axis=1)).sum(axis=1) / len(conf))
    return np.concatenate(errors)


def calibration(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    captured_mass: ArrayLike | None = None,
    bins: int = DEFAULT_BINS,
    clusters: ArrayLike | None = None,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    level: float = 0.95,
) -> Calibration:
    """Calibration of `confidence` [items] in [0, 1] against `correct` bool [items].

    Confidence is the chosen candidate's probability renormalised over the candidate set;
    `captured_mass` [items] is the set's total probability. Raises UserError outside [0, 1].
    """
    conf = np.asarray(confidence, dtype=np.float64)
    hits = np.asarray(correct, dtype=np.float64)
    finite = np.isfinite(conf)
    dropped = int(np.sum(~finite))
    conf, hits = conf[finite], hits[finite]
    labels = None if clusters is None else np.asarray(clusters)[finite]
    if len(conf) == 0:
        missing = [
            undefined(name, EMPTY_CELL, n_dropped=dropped)
            for name in ("Brier (binary)", "confidence − accuracy", "ECE")
        ]
        return Calibration(missing[0], missing[1], missing[2], math.nan, math.nan, ())
    if conf.min() < 0 or conf.max() > 1:
        raise UserError("confidences outside [0, 1]", where="confidence")
    mass = 1.0 if captured_mass is None else float(np.nanmean(np.asarray(captured_mass)))
    flags = (LOW_CAPTURED_MASS,) if mass < MIN_CAPTURED_MASS else ()
    observed = expected_calibration_error(conf, hits, bins=bins)
    null = _null_errors(conf, bins, n_resamples, seed)
    brier = mean_interval(
        (conf - hits) ** 2,
        clusters=labels,
        quantity="Brier (binary)",
        level=level,
        null=math.nan,
    )
    gap = mean_interval(conf - hits, clusters=labels, quantity="confidence − accuracy", level=level)
    return Calibration(
        brier_binary=brier.with_flags(*flags),
        signed_gap=gap.with_flags(*flags),
        ece=Estimate(
            quantity="ECE",
            estimate=observed,
            p_value=permutation_p(observed, null),
            test="consistency_resampling",
            n_units=len(conf),
            n_dropped=dropped,
            n_resamples=n_resamples,
            seed=seed,
            flags=flags,
        ),
        ece_null_mean=float(null.mean()),
        ece_excess=observed - float(null.mean()),
        curve=calibration_curve(conf, hits, bins=bins),
    )
