"""Intervals for proportions and means: Wilson, clustered and two-way clustered t."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interpflow.stats.quantiles import beta_quantile, normal_quantile, t_quantile, t_two_sided
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    EMPTY_CELL,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import Units, codes_of, complete_units, group_sums, mean_covariance


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); (NaN, NaN) for n = 0."""
    if n <= 0:
        return math.nan, math.nan
    z = normal_quantile(0.5 + level / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def proportion(
    successes: int, n: int, *, quantity: str = "proportion", level: float = 0.95, n_dropped: int = 0
) -> Estimate:
    """A proportion of independent items with its Wilson interval."""
    if n == 0:
        return undefined(quantity, EMPTY_CELL, ci_level=level, n_dropped=n_dropped)
    low, high = wilson(successes, n, level)
    return Estimate(
        quantity=quantity,
        estimate=successes / n,
        ci_low=low,
        ci_high=high,
        ci_level=level,
        test="wilson",
        n_units=n,
        n_dropped=n_dropped,
    )


def upper_bound(
    successes: int, n: int, *, quantity: str = "proportion", level: float = 0.95
) -> Estimate:
    """A proportion of independent trials with the exact one-sided upper bound at `level` (Clopper
    & Pearson 1934): the share of which so few successes have probability 1 − level."""
    if n == 0:
        return undefined(quantity, EMPTY_CELL, ci_level=level)
    high = 1.0 if successes == n else beta_quantile(level, successes + 1, n - successes)
    return Estimate(
        quantity=quantity,
        estimate=successes / n,
        ci_low=0.0,
        ci_high=high,
        ci_level=level,
        test="clopper_pearson_upper",
        n_units=n,
    )


def mean_interval(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "mean",
    level: float = 0.95,
    null: float = 0.0,
    is_proportion: bool = False,
) -> Estimate:
    """Item-weighted mean with t_{G−1} interval on the CR1 sandwich, and the t test of `null`.

    `values` [n]; `clusters` [n] labels or None (every row its own unit). Non-finite rows are
    dropped and counted. Fewer than 8 clusters: interval given, no p-value, flagged. All values
    equal: flagged, and for 0/1 data (`is_proportion`) Wilson's interval on the number of clusters.
    """
    units = complete_units(values, clusters=clusters)
    means, covariance = mean_covariance(units)
    return t_estimate(
        float(means[0]),
        float(covariance[0, 0]),
        units,
        quantity=quantity,
        level=level,
        null=null,
        is_proportion=is_proportion,
    )


def t_estimate(
    mean: float,
    variance: float,
    units: Units,
    *,
    quantity: str,
    level: float = 0.95,
    null: float = 0.0,
    is_proportion: bool = False,
    name: str = "",
) -> Estimate:
    """The record of an estimate with a variance that has G−1 degrees of freedom."""
    counts: dict[str, Any] = {
        "n_units": units.n_rows,
        "n_clusters": units.n_clusters,
        "n_dropped": units.n_dropped,
        "ci_level": level,
    }
    groups = units.n_groups
    if units.n_rows == 0:
        return undefined(quantity, EMPTY_CELL, **counts)
    if groups < 2:
        return Estimate(quantity=quantity, estimate=mean, flags=(TOO_FEW_CLUSTERS,), **counts)
    few = units.n_clusters is not None and groups < MIN_CLUSTERS
    flags = (TOO_FEW_CLUSTERS,) if few else ()
    test = name or ("t" if units.n_clusters is None else "cluster_t")
    # Rounding leaves a residue of about 1e-32 · mean² in the variance of equal values.
    if not variance > (1e-13 * mean) ** 2:
        low, high = math.nan, math.nan
        if is_proportion and mean in (0.0, 1.0):
            low, high = wilson(mean * groups, groups, level)
        return Estimate(
            quantity=quantity,
            estimate=mean,
            ci_low=low,
            ci_high=high,
            test="wilson_on_clusters" if is_proportion else test,
            flags=(*flags, DEGENERATE_VARIANCE),
            **counts,
        )
    error = math.sqrt(variance)
    reach = t_quantile(0.5 + level / 2, groups - 1) * error
    return Estimate(
        quantity=quantity,
        estimate=mean,
        ci_low=mean - reach,
        ci_high=mean + reach,
        p_value=math.nan if few else t_two_sided((mean - null) / error, groups - 1),
        test=test,
        flags=flags,
        **counts,
    )


def two_way_variance(values: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> float:
    """Variance of the mean under two crossed clusterings: V_rows + V_columns − V_cells.

    Never below the larger one-way variance (Cameron, Gelbach & Miller 2011). No small-sample
    factor: the degrees of freedom carry it.
    """
    data = np.asarray(values, dtype=np.float64)
    row_codes, n_rows = codes_of(rows, len(data))
    column_codes, n_columns = codes_of(columns, len(data))
    cell_codes, n_cells = codes_of(row_codes * n_columns + column_codes, len(data))
    residual = data - data.mean()

    def one_way(codes: np.ndarray, n_groups: int) -> float:
        return float((group_sums(residual, codes, n_groups) ** 2).sum() / len(data) ** 2)

    by_row, by_column = one_way(row_codes, n_rows), one_way(column_codes, n_columns)
    return max(by_row + by_column - one_way(cell_codes, n_cells), by_row, by_column)


def two_way_mean(
    values: ArrayLike,
    rows: ArrayLike,
    columns: ArrayLike,
    *,
    quantity: str = "mean",
    level: float = 0.95,
    null: float = 0.0,
    is_proportion: bool = False,
) -> Estimate:
    """Mean of crossed data (item × template): two-way variance, t with min(R, C) − 1 df.

    `values`, `rows`, `columns` [n]. `n_units` and `n_clusters` count distinct rows.
    """
    units = complete_units(values, clusters=rows)
    data = units.columns[0]
    if len(data) == 0:
        return undefined(quantity, EMPTY_CELL, ci_level=level, n_dropped=units.n_dropped)
    kept_columns = np.asarray(columns)[units.kept]
    variance = two_way_variance(data, units.codes, kept_columns)
    fewest = min(units.n_groups, len(np.unique(kept_columns)))
    binding = Units((data,), units.codes, fewest, fewest, units.n_dropped, units.kept)
    estimate = t_estimate(
        float(data.mean()),
        variance,
        binding,
        quantity=quantity,
        level=level,
        null=null,
        is_proportion=is_proportion,
        name="two_way_cluster_t",
    )
    return replace(estimate, n_units=units.n_groups, n_clusters=fewest)
