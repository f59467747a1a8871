"""t tests of thousands of paired cells (neurons) at once, false discoveries controlled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from interpflow.errors import UserError
from interpflow.stats.multiplicity import bh
from interpflow.stats.record import MIN_CLUSTERS
from interpflow.stats.units import codes_of, group_sums

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PairedMap:
    """Mean difference of every cell with its t test, arrays [cells].

    `p_adjusted` after Benjamini & Hochberg (1995) over all cells. A `degenerate` cell does not
    vary: no interval and no p. With fewer than eight clusters there are no p-values.
    """

    mean: FloatArray
    t: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    p_value: FloatArray
    p_adjusted: FloatArray
    degenerate: NDArray[np.bool_]
    n_units: int
    n_clusters: int | None
    n_dropped: int
    level: float


def paired_t_map(
    differences: ArrayLike, *, clusters: ArrayLike | None = None, level: float = 0.95
) -> PairedMap:
    """Two-sided t tests that the mean of `differences` [units, cells] is 0, cell by cell.

    CR1 sandwich over `clusters` [units], G − 1 degrees of freedom. Units with a value that is not
    finite are left out of all cells and counted. Raises UserError for another shape or fewer than
    two units or clusters.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2:
        raise UserError(f"a map of t tests needs [units, cells], got shape {values.shape}")
    kept = np.isfinite(values).all(axis=1)
    data = values[kept]
    labels = None if clusters is None else np.asarray(clusters)[kept]
    codes, n_groups = codes_of(labels, len(data))
    if n_groups < 2:
        raise UserError("a map of t tests needs at least two complete units", where="differences")
    mean = data.mean(axis=0)
    sums = group_sums(data - mean, codes, n_groups)
    error = np.sqrt((sums**2).sum(axis=0) * n_groups / (n_groups - 1)) / len(data)
    # Rounding leaves about 1e-16 of the size of equal values.
    degenerate = ~(error > 1e-13 * np.abs(data).max(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(degenerate, 0.0, mean / error)
    p_value = np.where(degenerate, np.nan, 2 * stdtr(n_groups - 1, -np.abs(t)))
    if n_groups < MIN_CLUSTERS:
        p_value = np.full_like(p_value, np.nan)
    reach = np.where(degenerate, np.nan, stdtrit(n_groups - 1, 0.5 + level / 2) * error)
    return PairedMap(
        mean=mean,
        t=t,
        ci_low=mean - reach,
        ci_high=mean + reach,
        p_value=p_value,
        p_adjusted=bh(p_value),
        degenerate=degenerate,
        n_units=len(data),
        n_clusters=None if clusters is None else n_groups,
        n_dropped=int((~kept).sum()),
        level=level,
    )
