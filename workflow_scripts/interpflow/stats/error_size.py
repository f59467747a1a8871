"""Size of counting errors, the confusion table, agreement, and the slope of answer on truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.bootstrap import DEFAULT_RESAMPLES, bootstrap_t_mean
from interpflow.stats.intervals import mean_interval, proportion, t_estimate
from interpflow.stats.quantiles import normal_quantile, normal_two_sided
from interpflow.stats.record import (
    EMPTY_CELL,
    NO_VARIATION,
    SINGLE_CLASS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import complete_units, group_sums

# The bootstrap-t needs this many units; fewer fall back to the t interval.
MIN_BOOTSTRAP_UNITS = 20


@dataclass(frozen=True)
class ErrorSize:
    """Errors of parsed answers, in counts. `normalised_mae` is 1 for the best constant answer."""

    mae: Estimate
    bias: Estimate
    rmse: Estimate
    within_one: Estimate
    normalised_mae: float
    parse_rate: Estimate


@dataclass(frozen=True)
class Confusion:
    """Counts [truths, answers]: rows truth 0…maximum, columns answers 0…maximum, then two more."""

    counts: NDArray[np.int64]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    def row_shares(self) -> NDArray[np.float64]:
        """Rows normalised to 1; NaN for a truth that never occurs."""
        totals = self.counts.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals > 0, self.counts / totals, np.nan)


def _mean_error(
    values: np.ndarray,
    labels: np.ndarray | None,
    quantity: str,
    level: float,
    n_resamples: int,
    seed: int,
) -> Estimate:
    n_units = len(values) if labels is None else len(np.unique(labels))
    if n_units >= MIN_BOOTSTRAP_UNITS and np.ptp(values) > 0:
        return bootstrap_t_mean(
            values,
            clusters=labels,
            quantity=quantity,
            level=level,
            n_resamples=n_resamples,
            seed=seed,
        )
    found = mean_interval(values, clusters=labels, quantity=quantity, level=level)
    return replace(found, p_value=math.nan)


def error_size(
    truth: ArrayLike,
    answers: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
) -> ErrorSize:
    """Mean absolute error, bias, root mean squared error and share within one, of parsed answers.

    `truth`, `answers` [items], answers NaN where unparsed (dropped and counted; the parse rate
    stands beside the errors). Bootstrap-t intervals from 20 units on, t below.
    """
    units = complete_units(truth, answers, clusters=clusters)
    true, given = units.columns
    labels = None if units.n_clusters is None else units.codes
    n_all = units.n_rows + units.n_dropped
    parse_rate = proportion(units.n_rows, n_all, quantity="parse rate", level=level)
    if units.n_rows == 0:
        missing = [
            undefined(name, EMPTY_CELL, n_dropped=units.n_dropped)
            for name in ("MAE", "bias", "RMSE", "within one")
        ]
        return ErrorSize(*missing, normalised_mae=math.nan, parse_rate=parse_rate)
    error = given - true

    def mean(values: np.ndarray, quantity: str) -> Estimate:
        found = _mean_error(values, labels, quantity, level, n_resamples, seed)
        return replace(found, n_dropped=units.n_dropped)

    squared = mean(error**2, "RMSE")
    near = mean_interval(
        np.abs(error) <= 1, clusters=labels, quantity="within one", level=level, is_proportion=True
    )
    spread = float(np.abs(true - np.median(true)).mean())
    mae = mean(np.abs(error), "MAE")
    return ErrorSize(
        mae=mae,
        bias=mean(error, "bias"),
        rmse=replace(
            squared,
            estimate=math.sqrt(squared.estimate),
            ci_low=math.sqrt(max(squared.ci_low, 0.0)),
            ci_high=math.sqrt(max(squared.ci_high, 0.0)),
        ),
        within_one=replace(near, n_dropped=units.n_dropped, p_value=math.nan),
        normalised_mae=mae.estimate / spread if spread > 0 else math.nan,
        parse_rate=parse_rate,
    )


def confusion(truth: ArrayLike, answers: ArrayLike, *, maximum: int) -> Confusion:
    """Confusion counts of truths 0…maximum, with columns for answers out of range and unparsed.

    `truth` [items] integers, `answers` [items] (NaN: unparsed). An answer that is no integer, or
    not in 0…maximum, is out of range. Raises UserError for a truth outside 0…maximum.
    """
    true, given = (np.asarray(x, dtype=np.float64) for x in (truth, answers))
    if len(true) and not np.all((true >= 0) & (true <= maximum) & (true == np.round(true))):
        raise UserError(f"truths outside 0…{maximum}", where="truth")
    column = np.full(len(given), maximum + 1)
    column[~np.isfinite(given)] = maximum + 2
    fits = np.isfinite(given) & (given >= 0) & (given <= maximum) & (given == np.round(given))
    column[fits] = given[fits].astype(int)
    counts = np.zeros((maximum + 1, maximum + 3), dtype=np.int64)
    np.add.at(counts, (true.astype(int), column), 1)
    numbers = tuple(str(value) for value in range(maximum + 1))
    return Confusion(counts, numbers, (*numbers, "out of range", "unparsed"))


def _kappa_weights(size: int, weights: Literal["none", "linear"]) -> np.ndarray:
    steps = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    if weights == "linear":
        return 1 - steps / max(size - 1, 1)
    return (steps == 0).astype(np.float64)


def kappa(
    table: ArrayLike,
    *,
    weights: Literal["none", "linear"] = "none",
    quantity: str = "kappa",
    level: float = 0.95,
) -> Estimate:
    """Cohen's κ of a square table of counts [classes, classes], plain or linearly weighted.

    Delta-method standard error (Fleiss, Cohen & Everitt 1969), interval on the Fisher-z scale.
    Undefined when both raters use one class only.
    """
    counts = np.asarray(table, dtype=np.float64)
    total = counts.sum()
    record: dict[str, Any] = {
        "n_units": int(total),
        "ci_level": level,
        "test": f"kappa_{weights}_atanh",
    }
    if total == 0:
        return undefined(quantity, EMPTY_CELL, **record)
    shares, w = counts / total, _kappa_weights(len(counts), weights)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, expected = float((w * shares).sum()), float(rows @ w @ columns)
    if expected >= 1 - 1e-12:
        return undefined(quantity, SINGLE_CLASS, **record)
    value = (observed - expected) / (1 - expected)
    mean_weights = np.add.outer(w @ columns, rows @ w)
    spread = float((shares * (w - mean_weights * (1 - value)) ** 2).sum())
    variance = (spread - (value - expected * (1 - value)) ** 2) / (total * (1 - expected) ** 2)
    error = math.sqrt(max(variance, 0.0))
    if abs(value) >= 1 or error == 0:
        return Estimate(quantity=quantity, estimate=value, flags=(NO_VARIATION,), **record)
    reach = normal_quantile(0.5 + level / 2) * error / (1 - value**2)
    return Estimate(
        quantity=quantity,
        estimate=value,
        ci_low=math.tanh(math.atanh(value) - reach),
        ci_high=math.tanh(math.atanh(value) + reach),
        p_value=normal_two_sided(value / error),
        **record,
    )


def answer_slope(
    truth: ArrayLike,
    answers: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Least-squares slope of answer on truth [items]: 1 perfect, 0 insensitive to the input.

    HC1 or cluster-robust standard error with G−1 degrees of freedom; p tests slope 0.
    """
    units = complete_units(truth, answers, clusters=clusters)
    quantity = "slope of answer on truth"
    counts: dict[str, Any] = {
        "n_units": units.n_rows,
        "n_dropped": units.n_dropped,
        "ci_level": level,
    }
    if units.n_rows == 0:
        return undefined(quantity, EMPTY_CELL, **counts)
    true, given = units.columns
    centred = true - true.mean()
    power = float((centred**2).sum())
    if power == 0:
        return undefined(quantity, NO_VARIATION, **counts)
    slope = float((centred * given).sum()) / power
    residual = given - given.mean() - slope * centred
    scores = group_sums(centred * residual, units.codes, units.n_groups)
    if units.n_groups < 3:
        return Estimate(quantity=quantity, estimate=slope, flags=(TOO_FEW_CLUSTERS,), **counts)
    # Two coefficients are fitted, hence n − 2 in the HC1 and CR1 factors.
    factor = units.n_groups / (units.n_groups - 1) * (units.n_rows - 1) / (units.n_rows - 2)
    variance = factor * float((scores**2).sum()) / power**2
    return t_estimate(slope, variance, units, quantity=quantity, level=level, name="ols_cluster_t")


def mean_answer_by_truth(
    truth: ArrayLike, answers: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Distinct truths, the mean answer to each (NaN if none parsed), and how many were parsed."""
    true, given = (np.asarray(x, dtype=np.float64) for x in (truth, answers))
    values = np.unique(true)
    parsed = np.array([int(np.isfinite(given[true == value]).sum()) for value in values])
    means = np.array(
        [
            float(np.nanmean(given[true == value])) if count else math.nan
            for value, count in zip(values, parsed, strict=True)
        ]
    )
    return values, means, parsed
