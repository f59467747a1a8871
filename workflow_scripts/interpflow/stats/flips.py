"""Answers that change when a prompt does: flip rates, and the worst of several variants."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from interpflow.errors import UserError
from interpflow.stats.clustered_share import mean_share
from interpflow.stats.intervals import mean_interval
from interpflow.stats.paired_contrasts import mean_over
from interpflow.stats.record import DEGENERATE_VARIANCE, EMPTY_CELL, Estimate, undefined
from interpflow.stats.units import codes_of, group_sums
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS, draw_weights

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Flips:
    """`to_wrong`: share of the variants of rightly answered prompts that are answered wrong;
    `to_right`: the reverse; `net`: to right minus to wrong, as a share of all prompts, which is
    the change of accuracy."""

    to_wrong: Estimate
    to_right: Estimate
    net: Estimate


@dataclass(frozen=True)
class WorstCase:
    """Of the prompts answered rightly, how many at least one variant breaks.

    `broken`: share that any of the `n_variants` breaks. `independent`: what the variants' own flip
    rates would give if prompts did not differ in how easily they break. `excess`: the difference;
    below 0 where the same prompts break again and again.
    """

    broken: Estimate
    independent: Estimate
    excess: Estimate
    n_variants: int


def flips(
    clean: ArrayLike,
    variants: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Flips:
    """Flip rates of `variants` [prompts, k] against `clean` [prompts], all 0, 1 or NaN.

    Variants of one prompt are averaged before prompts are; intervals by cluster.
    """
    before, after = _checked(clean, variants)
    wrong = mean_over(np.where(np.isfinite(after), 1 - after, np.nan))
    right = mean_over(after)
    labels = None if clusters is None else np.asarray(clusters)

    def share(values: FloatArray, kept: NDArray[np.bool_], quantity: str) -> Estimate:
        return mean_share(
            values[kept],
            clusters=None if labels is None else labels[kept],
            quantity=quantity,
            level=level,
        )

    everyone = np.isfinite(before)
    net = np.where(before == 1, -wrong, right)
    return Flips(
        to_wrong=share(wrong, before == 1, "right to wrong"),
        to_right=share(right, before == 0, "wrong to right"),
        net=mean_interval(
            net[everyone],
            clusters=None if labels is None else labels[everyone],
            quantity="net flips",
            level=level,
        ),
    )


def expected_worst(variants: ArrayLike, k: int) -> FloatArray:
    """Chance [prompts] that at least one of `k` variants is wrong, drawn without replacement from
    a prompt's own in `variants` [prompts, m] (0, 1, NaN); NaN where it has fewer than `k`.

    1 − C(m − w, k)/C(m, k) with w wrong of m: comparable between sets of different size.
    """
    after = np.asarray(variants, dtype=np.float64)
    total = np.isfinite(after).sum(axis=1).astype(np.float64)
    right = np.where(np.isfinite(after), after, 0.0).sum(axis=1)

    def log_choose(n: FloatArray) -> FloatArray:
        return np.asarray(gammaln(n + 1) - gammaln(np.maximum(n - k, 0) + 1))

    spared = np.where(right >= k, np.exp(log_choose(right) - log_choose(total)), 0.0)
    return np.where(total >= k, 1 - spared, np.nan)


def worst_case(
    clean: ArrayLike,
    variants: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> WorstCase:
    """Worst case over the columns of `variants` [prompts, k] (1 right, 0 wrong, NaN not given).

    Prompts with a wrong `clean` answer are left out. Columns are comparable over prompts (one kind
    of variant each). Intervals by a bootstrap of clusters (BCa); of `broken` that of a share.
    """
    before, after = _checked(clean, variants)
    kept = (before == 1) & np.isfinite(after).any(axis=1)
    if not kept.any():
        missing = undefined("worst case", EMPTY_CELL, ci_level=level)
        return WorstCase(missing, missing, missing, after.shape[1])
    data = after[kept]
    labels = None if clusters is None else np.asarray(clusters)[kept]
    codes, n_groups = codes_of(labels, len(data))
    present = np.isfinite(data)
    wrong = group_sums(np.where(present, 1 - data, 0.0), codes, n_groups)
    given = group_sums(present, codes, n_groups)
    any_wrong = group_sums(np.where(present, 1 - data, 0.0).max(axis=1), codes, n_groups)
    sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = np.nan_to_num((weights @ wrong) / (weights @ given))
            broken = (weights @ any_wrong) / (weights @ sizes)
        alone = 1 - np.prod(1 - rates, axis=1)
        return np.column_stack([broken, alone, broken - alone])

    drawn = draw_weights(statistic, n_groups, n_resamples=n_resamples, seed=seed)
    counts: dict[str, Any] = {
        "n_units": len(data),
        "n_clusters": None if clusters is None else n_groups,
        "level": level,
    }
    hit = np.where(present, 1 - data, 0.0).max(axis=1)
    excess = drawn.estimate(2, "worst variant beyond independence", **counts)
    if np.ptp(hit) == 0:
        # Resampling cannot show how a share of 0 or 1 would vary.
        excess = replace(excess, ci_low=math.nan, ci_high=math.nan).with_flags(DEGENERATE_VARIANCE)
    return WorstCase(
        broken=mean_share(
            hit, clusters=labels, quantity="broken by the worst variant", level=level
        ),
        independent=drawn.estimate(1, "worst variant if prompts broke independently", **counts),
        excess=excess,
        n_variants=after.shape[1],
    )


def _checked(clean: ArrayLike, variants: ArrayLike) -> tuple[FloatArray, FloatArray]:
    before = np.asarray(clean, dtype=np.float64)
    after = np.asarray(variants, dtype=np.float64)
    if after.ndim != 2 or before.shape != (len(after),):
        raise UserError(
            f"flips need clean [prompts] and variants [prompts, k], got {before.shape} and "
            f"{after.shape}"
        )
    return before, after
