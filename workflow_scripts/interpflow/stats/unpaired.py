"""Two groups of independent units: the difference of their means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.stats.permutation import DEFAULT_RESAMPLES, permutation_p
from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    EMPTY_CELL,
    MIN_CLUSTERS,
    NO_VARIATION,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import codes_of, group_sums

FloatArray = NDArray[np.float64]
# Numbers permuted at once.
_BLOCK = 2_000_000


def cluster_means(values: ArrayLike, clusters: ArrayLike | None = None) -> FloatArray:
    """Mean [cluster] of the finite values [n] of each cluster, in the order of the labels."""
    data = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(data)
    labels = None if clusters is None else np.asarray(clusters)[finite]
    codes, n_groups = codes_of(labels, int(finite.sum()))
    counts = np.bincount(codes, minlength=n_groups)
    return group_sums(data[finite], codes, n_groups) / np.maximum(counts, 1)


def unpaired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    first_clusters: ArrayLike | None = None,
    second_clusters: ArrayLike | None = None,
    quantity: str = "difference of means",
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    family: str = "",
) -> Estimate:
    """Mean of `first` [n] minus mean of `second` [m]; values of a cluster are averaged before.

    Interval: Welch's t (Welch 1947). p: units are dealt out to the groups anew, and Welch's t is
    compared (Janssen 1997: right in large samples even for unequal variances). `n_units` counts the
    units of both. A group of one unit has neither. No cluster may be in both groups.
    """
    one = cluster_means(first, first_clusters)
    two = cluster_means(second, second_clusters)
    n_dropped = sum(int((~np.isfinite(np.asarray(x, dtype=float))).sum()) for x in (first, second))
    has_clusters = first_clusters is not None or second_clusters is not None
    counts: dict[str, Any] = {
        "n_units": len(one) + len(two),
        "n_clusters": len(one) + len(two) if has_clusters else None,
        "n_dropped": n_dropped,
        "ci_level": level,
        "family": family,
    }
    if not len(one) or not len(two):
        return undefined(quantity, EMPTY_CELL, **counts)
    fewest = min(len(one), len(two))
    record = Estimate(
        quantity=quantity, estimate=one.mean() - two.mean(),
        flags=(TOO_FEW_CLUSTERS,) if fewest < MIN_CLUSTERS else (), **counts,
    )  # fmt: skip
    if fewest < 2:
        return record
    parts = [group.var(ddof=1) / len(group) for group in (one, two)]
    error = math.sqrt(sum(parts))
    if not error > 1e-13 * max(1.0, abs(one.mean())):
        flag = NO_VARIATION if record.estimate == 0 else DEGENERATE_VARIANCE
        return record.with_flags(flag)
    df = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (one, two), strict=True)
    )
    reach = t_quantile(0.5 + level / 2, df) * error
    draws = _permuted_t(np.concatenate([one, two]), len(one), n_resamples, seed)
    return replace(
        record,
        ci_low=record.estimate - reach,
        ci_high=record.estimate + reach,
        p_value=permutation_p(abs(record.estimate) / error, draws),
        test="welch_t_permutation",
        n_resamples=n_resamples,
        seed=seed,
    )


def _permuted_t(values: FloatArray, n_first: int, n_resamples: int, seed: int) -> FloatArray:
    """|Welch's t| [draw] of random splits into `n_first` units and the rest."""
    rng = np.random.default_rng(seed)
    n, drawn = len(values), []
    values = values - values.mean()
    for start in range(0, n_resamples, max(1, _BLOCK // n)):
        size = min(max(1, _BLOCK // n), n_resamples - start)
        mixed = rng.permuted(np.broadcast_to(values, (size, n)), axis=1)
        groups = mixed[:, :n_first], mixed[:, n_first:]
        errors = sum(group.var(axis=1, ddof=1) / group.shape[1] for group in groups)
        gap = np.abs(groups[0].mean(axis=1) - groups[1].mean(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            t = gap / np.sqrt(errors)
        # No spread within the groups: as extreme as can be, or nothing at all.
        drawn.append(np.where(np.isfinite(t), t, np.where(gap > 0, math.inf, 0.0)))
    return np.concatenate(drawn)
