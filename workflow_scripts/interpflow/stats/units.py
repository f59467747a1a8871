"""Rows, the units they come from, and sums over those units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Units:
    """Complete rows with the code of the unit each row belongs to.

    `columns` are float64 [n], `codes` integers 0…n_groups−1 [n]. `n_clusters` is None when no
    clusters were given, so that every row is its own unit.
    """

    columns: tuple[FloatArray, ...]
    codes: IntArray
    n_groups: int
    n_clusters: int | None
    n_dropped: int
    kept: NDArray[np.bool_]

    @property
    def n_rows(self) -> int:
        return len(self.codes)


def codes_of(labels: ArrayLike | None, n_rows: int) -> tuple[IntArray, int]:
    """Integer codes and number of distinct labels; None gives every row its own code."""
    if labels is None:
        return np.arange(n_rows), n_rows
    values = np.asarray(labels)
    if values.shape != (n_rows,):
        raise UserError(
            f"labels have shape {values.shape}, the data have {n_rows} rows",
            remedy="give one label per row",
        )
    distinct, codes = np.unique(values, return_inverse=True)
    return codes.reshape(-1), len(distinct)


def complete_units(*columns: ArrayLike, clusters: ArrayLike | None = None) -> Units:
    """Rows finite in every column ([n] each), the rest counted as dropped.

    Raises UserError when the columns have different lengths.
    """
    arrays = [np.asarray(column, dtype=np.float64).reshape(-1) for column in columns]
    n_rows = len(arrays[0])
    if any(len(array) != n_rows for array in arrays):
        raise UserError(
            f"columns have lengths {[len(array) for array in arrays]}",
            remedy="give one value per row in every column",
        )
    kept = np.all([np.isfinite(array) for array in arrays], axis=0)
    labels = None if clusters is None else np.asarray(clusters)
    if labels is not None and labels.shape != (n_rows,):
        codes_of(labels, n_rows)
    codes, n_groups = codes_of(None if labels is None else labels[kept], int(kept.sum()))
    return Units(
        columns=tuple(array[kept] for array in arrays),
        codes=codes,
        n_groups=n_groups,
        n_clusters=None if clusters is None else n_groups,
        n_dropped=int(n_rows - kept.sum()),
        kept=kept,
    )


def group_sums(values: NDArray[Any], codes: IntArray, n_groups: int) -> FloatArray:
    """Sums of rows by unit: [n] → [groups], [n, cells] → [groups, cells]."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        sums = np.bincount(codes, weights=values, minlength=n_groups)
        return np.asarray(sums, dtype=np.float64)
    if n_groups == len(codes) and np.array_equal(codes, np.arange(n_groups)):
        return values
    if len(codes) == 0:
        return np.zeros((n_groups, values.shape[1]))
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    sums = np.zeros((n_groups, values.shape[1]))
    sums[present] = np.add.reduceat(values[order], starts, axis=0)
    return sums


def mean_covariance(units: Units) -> tuple[FloatArray, FloatArray]:
    """Means [k] of the columns and the CR1 sandwich covariance [k, k] of these means.

    V = G/(G−1) · Σ_g S_g S_gᵀ / n² with S_g the residual sums of cluster g (Liang & Zeger 1986;
    Cameron, Gelbach & Miller 2008). Without clusters this is the usual covariance of the mean.
    NaN with fewer than two groups.
    """
    data = np.column_stack(units.columns)
    n_rows, n_columns = data.shape
    if n_rows == 0:
        return np.full(n_columns, np.nan), np.full((n_columns, n_columns), np.nan)
    means = data.mean(axis=0)
    if units.n_groups < 2:
        return means, np.full((n_columns, n_columns), np.nan)
    sums = group_sums(data - means, units.codes, units.n_groups)
    scale = units.n_groups / (units.n_groups - 1) / n_rows**2
    return means, sums.T @ sums * scale
