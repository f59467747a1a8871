"""Trends over ordered conditions: isotonic means, Page's test, the dose of a given loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from interpflow.errors import UserError
from interpflow.stats.record import (
    ABOVE_LARGEST_DOSE,
    DEGENERATE_VARIANCE,
    EMPTY_CELL,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import codes_of, group_sums
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS, draw_weights

FloatArray = NDArray[np.float64]

# Above this many conditions a row has too many orders to list; the normal approximation is used.
_MOST_ENUMERATED = 6


@dataclass(frozen=True)
class DoseCurve:
    """Decreasing means by dose, each with its percentile band, and where the loss is reached.

    `raw` [k] are the plain means. `threshold`: dose at which the fitted curve has fallen by `drop`
    from its value at the lowest dose. Beyond the largest dose tried it is undefined and flagged,
    and a limit there is NaN: the loss was not reached in so many draws.
    """

    doses: FloatArray
    raw: FloatArray
    points: tuple[Estimate, ...]
    threshold: Estimate
    drop: float


def decreasing_fit(means: ArrayLike, weights: ArrayLike) -> FloatArray:
    """Least-squares non-increasing fit along the last axis; `means`, `weights` [..., k].

    The min–max formula of Barlow et al. (1972): fit_i = min over a ≤ i of max over b ≥ i of the
    weighted mean of a…b. Many rows at once; k is small.
    """
    y, w = np.broadcast_arrays(
        np.asarray(means, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    )
    k = y.shape[-1]
    zero = np.zeros((*y.shape[:-1], 1))
    total = np.concatenate([zero, np.cumsum(w * y, axis=-1)], axis=-1)
    weight = np.concatenate([zero, np.cumsum(w, axis=-1)], axis=-1)
    fitted = np.full(y.shape, np.inf)
    for start in range(k):
        spans = (total[..., start + 1 :] - total[..., start, None]) / (
            weight[..., start + 1 :] - weight[..., start, None]
        )
        highest = np.maximum.accumulate(spans[..., ::-1], axis=-1)[..., ::-1]
        fitted[..., start:] = np.minimum(fitted[..., start:], highest)
    return fitted


def dose_of_loss(doses: ArrayLike, curve: ArrayLike, drop: float) -> FloatArray:
    """Dose [...] at which decreasing `curve` [..., k] has lost `drop` from its first value, linear
    between doses [k]; infinite where it never has."""
    x, fit = np.asarray(doses, dtype=np.float64), np.asarray(curve, dtype=np.float64)
    bar = fit[..., :1] - drop
    # A loss of exactly `drop` counts as reached, whatever rounding did to it.
    below = fit <= bar + 1e-12
    at = np.argmax(below, axis=-1)
    reached = below.any(axis=-1)
    upper = np.maximum(at, 1)
    high = np.take_along_axis(fit, (upper - 1)[..., None], axis=-1)[..., 0]
    low = np.take_along_axis(fit, upper[..., None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((high - bar[..., 0]) / (high - low), 0.0, 1.0)
    return np.where(reached, x[upper - 1] + share * (x[upper] - x[upper - 1]), np.inf)


def dose_curve(
    outcomes: ArrayLike,
    doses: ArrayLike,
    *,
    drop: float,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> DoseCurve:
    """Isotonic (non-increasing) means of `outcomes` [units, k] over increasing `doses` [k].

    Clusters are resampled whole; percentile limits, which are too short below about 40 clusters.
    NaN entries are left out of their dose; a dose whose outcomes are all equal has no limits and is
    flagged. Raises UserError unless the doses increase.
    """
    data, x = np.asarray(outcomes, dtype=np.float64), np.asarray(doses, dtype=np.float64)
    if data.ndim != 2 or x.shape != (data.shape[1],) or np.any(np.diff(x) <= 0):
        raise UserError(
            f"a dose curve needs outcomes [units, k] and k increasing doses, got {data.shape} "
            f"and {x.tolist()}"
        )
    present = np.isfinite(data)
    codes, n_groups = codes_of(clusters, len(data))
    sums = group_sums(np.where(present, data, 0.0), codes, n_groups)
    sizes = group_sums(present, codes, n_groups)
    if n_groups < 2 or not present.any(axis=0).all():
        missing = undefined("dose of loss", EMPTY_CELL, ci_level=level, n_units=len(data))
        return DoseCurve(x, np.full(len(x), math.nan), (missing,) * len(x), missing, drop)

    def statistic(weights: FloatArray) -> FloatArray:
        counts = weights @ sizes
        means = weights @ sums / np.maximum(counts, 1e-300)
        fitted = decreasing_fit(means, np.maximum(counts, 1e-300))
        return np.column_stack([fitted, dose_of_loss(x, fitted, drop)])

    drawn = draw_weights(statistic, n_groups, n_resamples=n_resamples, seed=seed)
    shares = [0.5 - level / 2, 0.5 + level / 2]
    limits = np.quantile(drawn.draws, shares, axis=0, method="inverted_cdf")
    finite = np.where(np.isfinite(limits), limits, math.nan)
    few = (TOO_FEW_CLUSTERS,) if n_groups < MIN_CLUSTERS else ()
    observed = drawn.observed

    def used(place: int) -> NDArray[np.bool_]:
        return np.asarray(present[:, place] if place < len(x) else present.any(axis=1))

    def record(place: int, quantity: str) -> Estimate:
        value = float(observed[place])
        # Resampling cannot show how a mean over equal outcomes would vary.
        still = place < len(x) and float(np.ptp(data[present[:, place], place])) == 0
        flags = (*few, *((DEGENERATE_VARIANCE,) if still else ()))
        return Estimate(
            quantity=quantity,
            estimate=value if math.isfinite(value) else math.nan,
            ci_low=math.nan if still else finite[0, place],
            ci_high=math.nan if still else finite[1, place],
            ci_level=level,
            test="bootstrap_percentile",
            n_units=int(used(place).sum()),
            n_clusters=None if clusters is None else n_groups,
            n_dropped=int((~used(place)).sum()),
            n_resamples=n_resamples,
            seed=seed,
            flags=flags if math.isfinite(value) else (*flags, ABOVE_LARGEST_DOSE),
        )

    return DoseCurve(
        doses=x,
        raw=sums.sum(axis=0) / sizes.sum(axis=0),
        points=tuple(record(place, "isotonic mean") for place in range(len(x))),
        threshold=record(len(x), "dose of loss"),
        drop=drop,
    )


def _ranks(rows: FloatArray) -> FloatArray:
    """Mid-ranks [n, k] within rows."""
    below = (rows[:, None, :] < rows[:, :, None]).sum(axis=2)
    same = (rows[:, None, :] == rows[:, :, None]).sum(axis=2)
    return below + (same + 1) / 2


def page_trend(
    outcomes: ArrayLike, *, clusters: ArrayLike | None = None, quantity: str = "Page's L"
) -> Estimate:
    """Page's (1963) test that `outcomes` [units, k] fall from the first to the last column.

    L = Σ_j j · (sum of the ranks of column j, the lowest outcome ranked first, columns reversed):
    larger where the fall is clearer. One-sided p from the orders of each row, ties included: exact
    up to six columns, else normal with the exact variance. Clusters are averaged first, being what
    is independent; units with a missing entry are left out.
    """
    data = np.asarray(outcomes, dtype=np.float64)
    complete = np.isfinite(data).all(axis=1)
    kept = data[complete]
    codes, n_groups = codes_of(
        None if clusters is None else np.asarray(clusters)[complete], len(kept)
    )
    counts = {
        "n_units": len(kept),
        "n_clusters": None if clusters is None else n_groups,
        "n_dropped": int((~complete).sum()),
    }
    if len(kept) == 0 or data.shape[1] < 3:
        return undefined(quantity, EMPTY_CELL, test="page", **counts)
    means = group_sums(kept, codes, n_groups) / np.bincount(codes)[:, None]
    # Sums of equal outcomes in another order must still tie.
    ranks = _ranks(np.round(means, 12)[:, ::-1])
    observed = float((ranks @ np.arange(1, data.shape[1] + 1)).sum())
    exact = data.shape[1] <= _MOST_ENUMERATED
    p_value = _page_exact(ranks, observed) if exact else _page_normal(ranks, observed)
    return Estimate(
        quantity=quantity,
        estimate=observed,
        p_value=p_value,
        test="page_exact" if exact else "page_normal",
        **counts,
    )


def _page_exact(ranks: FloatArray, observed: float) -> float:
    """P(L ≥ observed) when every row's ranks stand in any order; ranks in halves, so 2L counts."""
    weights = np.arange(1, ranks.shape[1] + 1)
    patterns, counts = np.unique(np.sort(2 * ranks, axis=1), axis=0, return_counts=True)
    law, lowest = np.ones(1), 0
    for pattern, count in zip(patterns, counts, strict=True):
        values = np.array([int(np.dot(weights, order)) for order in permutations(pattern)])
        one = np.bincount(values - values.min()) / len(values)
        lowest += int(values.min()) * int(count)
        law = np.convolve(law, _power(one, int(count)))
    above = round(2 * observed) - lowest
    return float(min(1.0, law[max(above, 0) :].sum()))


def _power(law: FloatArray, count: int) -> FloatArray:
    """The law of a sum of `count` independent draws, by repeated squaring."""
    result, square = np.ones(1), law
    while count:
        if count & 1:
            result = np.convolve(result, square)
        count >>= 1
        if count:
            square = np.convolve(square, square)
    return result


def _page_normal(ranks: FloatArray, observed: float) -> float:
    k = ranks.shape[1]
    weights = np.arange(1, k + 1) - (k + 1) / 2
    expected = len(ranks) * k * (k + 1) ** 2 / 4
    spread = ((ranks - (k + 1) / 2) ** 2).sum() * (weights**2).sum() / (k - 1)
    if spread == 0:
        return 1.0
    return float(ndtr(-(observed - expected - 0.25) / math.sqrt(spread)))
