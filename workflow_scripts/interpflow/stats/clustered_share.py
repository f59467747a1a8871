"""A share of items that come in clusters of unequal size, as a sample of independent items."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.intervals import mean_interval, proportion, wilson
from interpflow.stats.record import EMPTY_CELL, MIN_CLUSTERS, TOO_FEW_CLUSTERS, Estimate, undefined
from interpflow.stats.units import complete_units, group_sums


@dataclass(frozen=True)
class ClusteredShare:
    """A share of `n_items` in `n_clusters`, as exact as one of `n_effective` independent items."""

    share: float
    n_items: int
    n_clusters: int
    n_effective: float


def clustered_share(right: ArrayLike, sizes: ArrayLike) -> ClusteredShare | None:
    """Share of items that are right, of which each cluster has `right` of `sizes` (both [G]).

    `n_effective` is what binomial sampling would need for the variance of the ratio of sums
    between clusters, G/(G−1) · Σ (right − share·size)² / (Σ size)², but never more than the number
    of equal clusters, (Σ size)² / Σ size² (Kish 1965): items of a cluster may go wrong together,
    and few clusters do not show it. Null without items.
    """
    y, w = (np.asarray(values, dtype=np.float64) for values in (right, sizes))
    if y.shape != w.shape or np.any(y > w) or np.any(y < 0):
        raise UserError("every cluster needs its size, and at most as many right items")
    y, w = y[w > 0], w[w > 0]
    if not len(w):
        return None
    total = w.sum()
    share = float(y.sum() / total)
    n_effective = float(total**2 / (w**2).sum())
    residuals = float(((y - share * w) ** 2).sum())
    if len(w) > 1 and residuals > 0 and 0 < share < 1:
        variance = len(w) / (len(w) - 1) * residuals / total**2
        n_effective = min(share * (1 - share) / variance, n_effective)
    return ClusteredShare(share, int(total), len(w), n_effective)


def clustered_proportion(
    right: ArrayLike,
    sizes: ArrayLike,
    *,
    quantity: str = "proportion",
    level: float = 0.95,
    n_dropped: int = 0,
) -> Estimate:
    """`clustered_share` with Wilson's interval on the effective number; flagged below 8 clusters.

    `n_units` are the items, `n_clusters` what they fall in.
    """
    found = clustered_share(right, sizes)
    if found is None:
        return undefined(quantity, EMPTY_CELL, ci_level=level, n_dropped=n_dropped)
    low, high = wilson(found.share * found.n_effective, found.n_effective, level)
    return Estimate(
        quantity=quantity,
        estimate=found.share,
        ci_low=low,
        ci_high=high,
        ci_level=level,
        test="wilson_on_clusters",
        n_units=found.n_items,
        n_clusters=found.n_clusters,
        n_dropped=n_dropped,
        flags=(TOO_FEW_CLUSTERS,) if found.n_clusters < MIN_CLUSTERS else (),
    )


def mean_share(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "proportion",
    level: float = 0.95,
) -> Estimate:
    """Mean of `values` [n], each a share from 0 to 1, with limits that stay in that range.

    Of 0 and 1 alone: Wilson's interval, on the effective number where there are `clusters` [n].
    Else the clustered t interval, cut off at 0 and 1. Non-finite values are counted as dropped.
    """
    units = complete_units(values, clusters=clusters)
    data = units.columns[0]
    if np.isin(data, (0.0, 1.0)).all():
        if clusters is None:
            return proportion(
                int(data.sum()), len(data), quantity=quantity, level=level,
                n_dropped=units.n_dropped,
            )  # fmt: skip
        return clustered_proportion(
            group_sums(data, units.codes, units.n_groups),
            np.bincount(units.codes, minlength=units.n_groups),
            quantity=quantity,
            level=level,
            n_dropped=units.n_dropped,
        )
    found = mean_interval(
        values, clusters=clusters, quantity=quantity, level=level, null=math.nan, is_proportion=True
    )
    if math.isnan(found.ci_low):
        return found
    return replace(found, ci_low=max(0.0, found.ci_low), ci_high=min(1.0, found.ci_high))
