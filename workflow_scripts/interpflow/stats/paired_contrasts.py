"""Paired contrasts of many conditions with one baseline: per condition, the mean difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.maxt import DEFAULT_RESAMPLES, MaxTMap, max_t
from interpflow.stats.permutation import sign_flip
from interpflow.stats.record import EMPTY_CELL, TOO_FEW_CLUSTERS, Estimate, undefined
from interpflow.stats.units import codes_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


def cell_means(
    values: ArrayLike, units: ArrayLike, cells: ArrayLike, n_units: int, n_cells: int
) -> FloatArray:
    """Mean of `values` [n] per unit and cell, [n_units, n_cells]; NaN where there is none.

    `units`, `cells` [n] are integer codes. Non-finite values are left out.
    """
    data = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(data)
    where = np.asarray(units)[finite] * n_cells + np.asarray(cells)[finite]
    size = n_units * n_cells
    totals = np.bincount(where, weights=data[finite], minlength=size)
    counts = np.bincount(where, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, totals / counts, np.nan)
    return np.asarray(means.reshape(n_units, n_cells), dtype=np.float64)


def mean_over(columns: FloatArray) -> FloatArray:
    """Mean [units] of the finite entries of each row of [units, k]; NaN for a row without any."""
    finite = np.isfinite(columns)
    counts = finite.sum(axis=1)
    totals = np.where(finite, columns, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(counts > 0, totals / counts, np.nan))


def paired_contrasts(
    differences: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "mean difference",
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    family: str = "",
) -> tuple[Estimate, ...]:
    """Mean difference from the baseline for each of k conditions, in the order of the columns.

    `differences` [units, k]: condition minus baseline of each unit, draws of a condition averaged
    before; NaN leaves a unit out of that condition only and is counted as dropped. Interval:
    clustered t (Liang & Zeger 1986); p: sign-flip by cluster; adjusted p: step-down max-T over the
    k conditions (Westfall & Young 1993). A condition whose differences are all equal and not zero
    has no t statistic: it keeps its sign-flip p, adjusted by Bonferroni.
    Raises UserError for differences that are not two-dimensional.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.ndim != 2:
        raise UserError(f"paired contrasts need differences [units, k], got shape {data.shape}")
    n_units, n_cells = data.shape
    _, n_groups = codes_of(clusters, n_units)
    if n_cells == 0:
        return ()
    if n_groups < 2:
        flag = EMPTY_CELL if n_units == 0 else TOO_FEW_CLUSTERS
        return (undefined(quantity, flag, ci_level=level, family=family),) * n_cells
    found = max_t(data, clusters=clusters, n_resamples=n_resamples, seed=seed, level=level)
    return tuple(_record(data, found, cell, clusters, quantity, family) for cell in range(n_cells))


def _record(
    data: FloatArray,
    found: MaxTMap,
    cell: int,
    clusters: ArrayLike | None,
    quantity: str,
    family: str,
) -> Estimate:
    present = np.isfinite(data[:, cell])
    record = replace(
        found.estimate(cell, quantity, family=family), n_dropped=int(len(present) - present.sum())
    )
    if clusters is not None:
        n_clusters = len(np.unique(np.asarray(clusters)[present]))
        record = replace(record, n_clusters=n_clusters)
    if found.degenerate[cell] and record.defined and record.estimate != 0:
        alone = sign_flip(
            data[:, cell], clusters=clusters, n_resamples=found.n_resamples, seed=found.seed
        )
        record = replace(
            record,
            p_value=alone.p_value,
            p_adjusted=min(1.0, alone.p_value * data.shape[1]),
            test="sign_flip_bonferroni",
        )
    return record
