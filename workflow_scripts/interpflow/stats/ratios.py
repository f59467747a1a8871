"""Ratios of means with Fieller intervals, for one quantity or a whole map of cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from interpflow.errors import UserError
from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import (
    EMPTY_CELL,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    UNDEFINED_RATIO,
    Estimate,
    undefined,
)
from interpflow.stats.units import codes_of, complete_units, group_sums, mean_covariance

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FiellerSet:
    """Ratio and limits; NaN where `g` ≥ 1, the denominator not being distinguishable from 0."""

    ratio: FloatArray
    low: FloatArray
    high: FloatArray
    g: FloatArray


@dataclass(frozen=True)
class RatioMap:
    """Ratios of means per cell: arrays [cells] (NaN where `undefined`), `n_units` per cell."""

    ratio: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    g: FloatArray
    undefined: NDArray[np.bool_]
    n_units: NDArray[np.intp]
    n_clusters: int | None
    ci_level: float

    def estimate(self, cell: int, quantity: str) -> Estimate:
        """The record of one cell."""
        flags = (UNDEFINED_RATIO,) if self.undefined[cell] else ()
        return Estimate(
            quantity=quantity,
            estimate=self.ratio[cell],
            ci_low=self.ci_low[cell],
            ci_high=self.ci_high[cell],
            ci_level=self.ci_level,
            test="fieller",
            n_units=self.n_units[cell],
            n_clusters=self.n_clusters,
            flags=flags,
        )


def fieller_limits(
    numerator: ArrayLike,
    denominator: ArrayLike,
    var_numerator: ArrayLike,
    var_denominator: ArrayLike,
    covariance: ArrayLike,
    quantile: ArrayLike,
) -> FiellerSet:
    """Limits of a ratio of two correlated means (Fieller 1954).

    All arguments broadcast: means, variances and covariance of the means, and the t quantile.
    """
    top, bottom, v_top, v_bottom, shared, t = np.broadcast_arrays(
        *(
            np.asarray(value, dtype=np.float64)
            for value in (
                numerator,
                denominator,
                var_numerator,
                var_denominator,
                covariance,
                quantile,
            )
        )
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        g = np.where(bottom == 0, np.inf, t**2 * v_bottom / bottom**2)
        a = bottom**2 - t**2 * v_bottom
        b = top * bottom - t**2 * shared
        c = top**2 - t**2 * v_top
        # Rounding can make the discriminant of a perfectly proportional numerator negative.
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        bounded = g < 1
        ratio = np.where(bounded, top / bottom, np.nan)
        low = np.where(bounded, (b - root) / a, np.nan)
        high = np.where(bounded, (b + root) / a, np.nan)
    return FiellerSet(ratio, low, high, g)


def ratio_of_means(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "ratio of means",
    level: float = 0.95,
) -> Estimate:
    """Σ numerator / Σ denominator over pairs with its Fieller interval, by cluster if given.

    `numerator`, `denominator` [n], paired. Undefined (NaN, flagged) when the mean of the
    denominator does not differ from 0 at `level`. Never a mean of ratios, which has no finite
    expectation when the denominator can be 0.
    """
    units = complete_units(numerator, denominator, clusters=clusters)
    counts: dict[str, Any] = {
        "ci_level": level,
        "test": "fieller",
        "n_units": units.n_rows,
        "n_clusters": units.n_clusters,
        "n_dropped": units.n_dropped,
    }
    if units.n_rows == 0:
        return undefined(quantity, EMPTY_CELL, **counts)
    if units.n_groups < 2:
        return undefined(quantity, TOO_FEW_CLUSTERS, **counts)
    means, cov = mean_covariance(units)
    quantile = t_quantile(0.5 + level / 2, units.n_groups - 1)
    limits = fieller_limits(means[0], means[1], cov[0, 0], cov[1, 1], cov[0, 1], quantile)
    few = units.n_clusters is not None and units.n_groups < MIN_CLUSTERS
    flags = (TOO_FEW_CLUSTERS,) if few else ()
    if math.isnan(limits.ratio):
        return undefined(quantity, UNDEFINED_RATIO, *flags, **counts)
    return Estimate(
        quantity=quantity,
        estimate=float(limits.ratio),
        ci_low=float(limits.low),
        ci_high=float(limits.high),
        flags=flags,
        **counts,
    )


def fieller_g(
    denominator: ArrayLike, *, clusters: ArrayLike | None = None, level: float = 0.95
) -> float:
    """t²·v/m² of the denominator: below 1 exactly when its mean differs from 0 at `level`."""
    units = complete_units(denominator, clusters=clusters)
    if units.n_groups < 2:
        return math.nan
    means, cov = mean_covariance(units)
    if means[0] == 0:
        return math.inf
    quantile = t_quantile(0.5 + level / 2, units.n_groups - 1)
    return float(quantile**2 * cov[0, 0] / means[0] ** 2)


def ratio_of_means_map(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> RatioMap:
    """Ratio of means for every cell of a map at once.

    `numerator` [n, cells], `denominator` [n] or [n, cells]; non-finite entries leave their pair
    out of that cell only. Raises UserError when the shapes do not agree.
    """
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.asarray(denominator, dtype=np.float64)
    bottom = bottom[:, None] if bottom.ndim == 1 else bottom
    if top.ndim != 2 or bottom.shape not in {(len(top), 1), top.shape}:
        raise UserError(
            f"a map of ratios needs [n, cells] over [n] or [n, cells], "
            f"got {top.shape} over {bottom.shape}"
        )
    bottom = np.broadcast_to(bottom, top.shape)
    codes, n_groups = codes_of(clusters, len(top))
    present = np.isfinite(top) & np.isfinite(bottom)
    counts = present.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_top = np.where(present, top, 0).sum(axis=0) / counts
        mean_bottom = np.where(present, bottom, 0).sum(axis=0) / counts
        sums_top = group_sums(np.where(present, top - mean_top, 0), codes, n_groups)
        sums_bottom = group_sums(np.where(present, bottom - mean_bottom, 0), codes, n_groups)
        groups = (group_sums(present, codes, n_groups) > 0).sum(axis=0)
        scale = np.where(groups > 1, groups / (groups - 1) / counts**2, np.nan)
        limits = fieller_limits(
            mean_top,
            mean_bottom,
            (sums_top**2).sum(axis=0) * scale,
            (sums_bottom**2).sum(axis=0) * scale,
            (sums_top * sums_bottom).sum(axis=0) * scale,
            stdtrit(np.maximum(groups - 1, 1), 0.5 + level / 2),
        )
    return RatioMap(
        ratio=limits.ratio,
        ci_low=limits.low,
        ci_high=limits.high,
        g=limits.g,
        undefined=np.isnan(limits.ratio),
        n_units=counts,
        n_clusters=None if clusters is None else n_groups,
        ci_level=level,
    )
