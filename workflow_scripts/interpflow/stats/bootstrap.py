"""Bootstrap intervals that resample clusters: bootstrap-t for means, BCa for any statistic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from interpflow.errors import UserError
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    EMPTY_CELL,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import Units, complete_units, group_sums

DEFAULT_RESAMPLES = 9999
# Numbers held at once while resampling: 2e6 float64 is 16 MB per temporary.
_BLOCK = 2_000_000


def _studentized(
    weights: np.ndarray, sums: np.ndarray, sizes: np.ndarray, centre: float
) -> np.ndarray:
    """(m* − m)/se* for bootstrap weights [b, groups]; NaN where the resample has no variance."""
    groups = weights.sum(axis=1)
    total = weights @ sizes
    means = weights @ sums / total
    squares = weights @ (sums**2) - 2 * means * (weights @ (sums * sizes))
    squares += means**2 * (weights @ (sizes**2))
    variance = squares * groups / (groups - 1) / total**2
    floor = 1e-26 * means**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > floor, (means - centre) / np.sqrt(variance), np.nan)


def bootstrap_t_mean(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "mean",
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
) -> Estimate:
    """Mean with a studentised bootstrap interval, clusters resampled whole (Hall 1988).

    For skewed values with at least 20 units. `values` [n], `clusters` [n] or None.
    """
    units = complete_units(values, clusters=clusters)
    data, groups = units.columns[0], units.n_groups
    counts: dict[str, Any] = {
        "n_units": units.n_rows,
        "n_clusters": units.n_clusters,
        "n_dropped": units.n_dropped,
        "ci_level": level,
        "test": "bootstrap_t",
        "n_resamples": n_resamples,
        "seed": seed,
    }
    if units.n_rows == 0:
        return undefined(quantity, EMPTY_CELL, **counts)
    mean = float(data.mean())
    if groups < 2:
        return Estimate(quantity=quantity, estimate=mean, flags=(TOO_FEW_CLUSTERS,), **counts)
    flags = (TOO_FEW_CLUSTERS,) if groups < MIN_CLUSTERS else ()
    sums = group_sums(data, units.codes, groups)
    sizes = np.bincount(units.codes, minlength=groups).astype(np.float64)
    error = math.sqrt(((sums - sizes * mean) ** 2).sum() * groups / (groups - 1)) / len(data)
    if not error > 1e-13 * abs(mean):
        flags = (*flags, DEGENERATE_VARIANCE)
        return Estimate(quantity=quantity, estimate=mean, flags=flags, **counts)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // groups)
    drawn = []
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=size)
        drawn.append(_studentized(weights.astype(np.float64), sums, sizes, mean))
    pivots = np.concatenate(drawn)
    pivots = pivots[np.isfinite(pivots)]
    low, high = np.quantile(pivots, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(
        quantity=quantity,
        estimate=mean,
        ci_low=mean - high * error,
        ci_high=mean - low * error,
        flags=flags,
        **counts,
    )


def _row_lists(units: Units) -> list[np.ndarray]:
    order = np.argsort(units.codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(units.codes, minlength=units.n_groups))[:-1])


def bca(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    clusters: ArrayLike | None = None,
    quantity: str = "statistic",
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
) -> Estimate:
    """`statistic(*columns)` with a bias-corrected accelerated interval (Efron 1987).

    Rows ([n] each) are resampled by cluster, columns together; the acceleration comes from the
    jackknife over clusters. Raises UserError when `n_resamples` < 1.
    """
    if n_resamples < 1:
        raise UserError("a bootstrap needs at least one resample", where="n_resamples")
    units = complete_units(*columns, clusters=clusters)
    counts: dict[str, Any] = {
        "n_units": units.n_rows,
        "n_clusters": units.n_clusters,
        "n_dropped": units.n_dropped,
        "ci_level": level,
        "test": "bootstrap_bca",
        "n_resamples": n_resamples,
        "seed": seed,
    }
    if units.n_rows == 0:
        return undefined(quantity, EMPTY_CELL, **counts)
    observed = float(statistic(*units.columns))
    if units.n_groups < 3:
        return Estimate(quantity=quantity, estimate=observed, flags=(TOO_FEW_CLUSTERS,), **counts)
    rows = _row_lists(units)

    def on(groups: np.ndarray) -> float:
        index = np.concatenate([rows[group] for group in groups])
        return float(statistic(*(column[index] for column in units.columns)))

    rng = np.random.default_rng(seed)
    everyone = np.arange(units.n_groups)
    draws = np.array(
        [on(rng.integers(0, units.n_groups, units.n_groups)) for _ in range(n_resamples)]
    )
    draws = draws[np.isfinite(draws)]
    left_out = np.array([on(np.delete(everyone, group)) for group in everyone])
    if len(draws) == 0 or np.ptp(draws) == 0 or not np.isfinite(left_out).all():
        flag = (DEGENERATE_VARIANCE,)
        return Estimate(quantity=quantity, estimate=observed, flags=flag, **counts)
    low, high = bca_limits(draws, left_out, observed, level)
    few = (TOO_FEW_CLUSTERS,) if units.n_groups < MIN_CLUSTERS else ()
    return Estimate(
        quantity=quantity, estimate=observed, ci_low=low, ci_high=high, flags=few, **counts
    )


def bca_limits(
    draws: np.ndarray, left_out: np.ndarray, observed: float, level: float
) -> tuple[float, float]:
    """Limits from bootstrap draws and jackknife values; ties count one half."""
    below = (np.sum(draws < observed) + 0.5 * np.sum(draws == observed)) / len(draws)
    below = min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws))
    bias = ndtri(below)
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum()) ** 1.5
    acceleration = float((deviation**3).sum()) / (6 * spread) if spread > 0 else 0.0
    z = ndtri(np.array([0.5 - level / 2, 0.5 + level / 2]))
    shares = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
    low, high = np.quantile(draws, shares)
    return float(low), float(high)
