"""Equivalence: two one-sided t tests, the claim that an effect lies inside stated bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.intervals import t_estimate
from interpflow.stats.quantiles import t_upper
from interpflow.stats.record import DEGENERATE_VARIANCE, Estimate, undefined
from interpflow.stats.units import Units, complete_units, mean_covariance

# Bounds inside which a slope (or a share of a count) is called zero.
ZERO_BOUNDS = (-0.1, 0.1)


@dataclass(frozen=True)
class Equivalence:
    """`estimate` carries the (1 − 2α) interval and the larger of the two one-sided p-values.

    `equivalent` is the interval lying inside (low, high); False when undefined.
    """

    estimate: Estimate
    low: float
    high: float
    equivalent: bool


def tost(
    mean: float,
    variance: float,
    units: Units,
    *,
    low: float,
    high: float,
    quantity: str,
    alpha: float = 0.05,
) -> Equivalence:
    """Two one-sided t tests on G−1 degrees of freedom (Schuirmann 1987).

    Raises UserError unless low < high.
    """
    if not low < high:
        raise UserError(f"equivalence bounds ({low}, {high}) are not increasing")
    base = t_estimate(mean, variance, units, quantity=quantity, level=1 - 2 * alpha)
    counts: dict[str, Any] = {
        "test": "tost",
        "n_units": base.n_units,
        "n_clusters": base.n_clusters,
        "n_dropped": base.n_dropped,
        "ci_level": base.ci_level,
    }
    if DEGENERATE_VARIANCE in base.flags or math.isnan(base.ci_low):
        # Without variance a t test would return p = 0 for identical arrays.
        if not base.defined:
            return Equivalence(undefined(quantity, *base.flags, **counts), low, high, False)
        point = Estimate(quantity=quantity, estimate=mean, flags=base.flags, **counts)
        return Equivalence(point, low, high, False)
    error, df = math.sqrt(variance), units.n_groups - 1
    p_value = max(t_upper((mean - low) / error, df), t_upper((high - mean) / error, df))
    record = Estimate(
        quantity=quantity,
        estimate=mean,
        ci_low=base.ci_low,
        ci_high=base.ci_high,
        p_value=p_value,
        flags=base.flags,
        **counts,
    )
    inside = low < base.ci_low and base.ci_high < high
    return Equivalence(record, low, high, inside)


def mean_equivalence(
    values: ArrayLike,
    *,
    low: float = ZERO_BOUNDS[0],
    high: float = ZERO_BOUNDS[1],
    clusters: ArrayLike | None = None,
    quantity: str = "mean",
    alpha: float = 0.05,
) -> Equivalence:
    """Whether the mean of `values` [n] lies inside (low, high)."""
    units = complete_units(values, clusters=clusters)
    means, cov = mean_covariance(units)
    return tost(
        float(means[0]),
        float(np.asarray(cov)[0, 0]),
        units,
        low=low,
        high=high,
        quantity=quantity,
        alpha=alpha,
    )
