"""Least squares with clustered errors: a difference adjusted for what changed along with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from interpflow.stats.intervals import t_estimate
from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, Estimate, undefined
from interpflow.stats.units import complete_units, group_sums


def adjusted_mean(
    values: ArrayLike,
    covariate: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "adjusted mean",
    level: float = 0.95,
) -> tuple[Estimate, Estimate]:
    """Mean of `values` [n] at `covariate` [n] = 0, and the slope on it, by least squares.

    CR1 sandwich over clusters (HC1 without any) and t with G−1 degrees of freedom (Liang & Zeger
    1986). Where the covariate does not vary the slope is undefined, and so is the mean unless the
    covariate is 0 throughout, where it is the plain mean.
    """
    units = complete_units(values, covariate, clusters=clusters)
    y, x = units.columns
    names = (quantity, f"slope of {quantity}")
    if units.n_rows == 0:
        first, second = (
            undefined(name, EMPTY_CELL, ci_level=level, n_dropped=units.n_dropped) for name in names
        )
        return first, second
    varies = bool(np.ptp(x) > 0)
    if not varies and x[0] != 0:
        first, second = (
            undefined(name, NO_VARIATION, ci_level=level, n_units=units.n_rows) for name in names
        )
        return first, second
    design = np.column_stack([np.ones_like(x), x]) if varies else np.ones((len(x), 1))
    bread = np.linalg.inv(design.T @ design)
    solution = bread @ design.T @ y
    scores = group_sums(design * (y - design @ solution)[:, None], units.codes, units.n_groups)
    factor = units.n_groups / max(units.n_groups - 1, 1)
    covariance = factor * bread @ scores.T @ scores @ bread
    found = [
        t_estimate(
            float(solution[i]),
            float(covariance[i, i]),
            units,
            quantity=names[i],
            level=level,
            name="regression_cluster_t" if units.n_clusters is not None else "regression_hc1_t",
        )
        for i in range(design.shape[1])
    ]
    if not varies:
        found.append(undefined(names[1], NO_VARIATION, ci_level=level, n_units=units.n_rows))
    return found[0], found[1]
