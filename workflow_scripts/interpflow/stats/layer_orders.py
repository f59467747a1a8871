"""Damage by layer order: rank correlation with distance, its curve, and the null band it gives.

The unit is the plan, not the document: all plans are measured on the same documents, so that a
second sample, of documents, is crossed with the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.permutation import MAX_ENUMERATED, permutation_p
from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, Estimate, undefined
from interpflow.stats.signed_ranks import mid_ranks
from interpflow.stats.trend import decreasing_fit
from interpflow.stats.units import codes_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# Fewer plans than this have no rank correlation worth the name.
MIN_PLANS = 4
# Damage below this share of its largest value is rounding.
_ROUNDING = 1e-12


def distance_correlation(
    distances: ArrayLike,
    damage: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    covariates: ArrayLike | None = None,
    n_permutations: int = 9999,
    n_resamples: int = 1999,
    seed: int,
    level: float = 0.95,
    quantity: str = "partial rank correlation",
) -> Estimate:
    """Spearman's ρ of distance and mean damage over plans, within strata, given covariates.

    distances [plans]; damage [plans, documents] (or [plans]); strata [plans]: labels, such as
    whether the first and the last block moved; covariates [plans, k]. Ranks over all plans are
    centred within strata and freed of the covariates' ranks by least squares, and correlated.
    p, two-sided: the damage is permuted within strata, which is exact without covariates; all
    permutations where they are at most 20 000. With covariates the residuals are permuted
    (Freedman & Lane 1983). Interval: percentiles over plans × documents drawn with replacement.
    Damage or distance that does not vary within any stratum is NaN with a flag, never 0.
    Raises UserError for shapes that do not fit.
    """
    x, rows = np.asarray(distances, dtype=np.float64), _matrix(damage)
    if x.shape != (len(rows),):
        raise UserError(f"{len(x)} distances for the damage of {len(rows)} plans")
    counts: dict[str, Any] = {"n_units": len(x), "ci_level": level, "seed": seed}
    if len(x) < MIN_PLANS:
        return undefined(quantity, EMPTY_CELL, **counts)
    codes, _ = codes_of(strata, len(x)) if strata is not None else (np.zeros(len(x), np.intp), 1)
    others = None if covariates is None else np.asarray(covariates, float).reshape(len(x), -1)
    freed_x, freed_y = _freed(x, rows.mean(axis=1), codes, others)
    observed = _correlation(freed_x, freed_y)
    if not np.isfinite(observed):
        return undefined(quantity, NO_VARIATION, **counts)
    drawn, exact = _permuted(freed_y, codes, n_permutations, seed, listed=others is None)
    scale = np.linalg.norm(freed_x) * np.linalg.norm(freed_y)
    p_value = permutation_p(abs(observed), np.abs(drawn @ freed_x) / scale, exact=exact)
    draws = _two_way(x, rows, codes, others, n_resamples, seed)
    low, high = _limits(draws, level)
    return Estimate(
        quantity=quantity, estimate=observed, ci_low=low, ci_high=high, p_value=p_value,
        test="permutation_exact" if exact else "permutation", n_resamples=len(drawn), **counts,
    )  # fmt: skip


def damage_curve(
    distances: ArrayLike,
    damage: ArrayLike,
    edges: Sequence[float],
    *,
    n_resamples: int = 1999,
    seed: int,
    level: float = 0.95,
) -> tuple[Estimate, ...]:
    """Isotonic (non-decreasing) mean damage in each bin of distance, k = len(edges) − 1.

    distances [plans]; damage [plans, documents]; a bin holds low < distance ≤ high. Interval:
    percentiles over plans × documents drawn with replacement. `n_units` counts the plans of the
    bin; a bin without plans is flagged.
    """
    x, rows = np.asarray(distances, dtype=np.float64), _matrix(damage)
    k = len(edges) - 1
    places = np.searchsorted(np.asarray(edges), x) - 1
    inside = (places >= 0) & (places < k)
    places, rows = places[inside], rows[inside]
    n_plans = np.bincount(places, minlength=k)
    if not len(rows):
        return (undefined("mean damage", EMPTY_CELL, ci_level=level),) * k

    def fitted(means: FloatArray, at: IntArray) -> FloatArray:
        weights = np.bincount(at, minlength=k).astype(np.float64)
        sums = np.bincount(at, weights=means, minlength=k)
        found = np.full(k, np.nan)
        present = weights > 0
        values = sums[present] / weights[present]
        found[present] = -decreasing_fit(-values, weights[present])
        return found

    point = fitted(rows.mean(axis=1), places)
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            fitted(_document_means(rows, rng)[chosen], places[chosen])
            for chosen in rng.integers(0, len(rows), size=(n_resamples, len(rows)))
        ]
    )
    found = []
    for place in range(k):
        if n_plans[place] == 0:
            found.append(undefined("mean damage", EMPTY_CELL, ci_level=level))
            continue
        low, high = _limits(draws[:, place], level)
        found.append(
            Estimate(
                quantity="mean damage", estimate=point[place], ci_low=low, ci_high=high,
                ci_level=level, test="two_way_bootstrap", n_units=int(n_plans[place]),
                n_resamples=n_resamples, seed=seed,
            )
        )  # fmt: skip
    return tuple(found)


def share_as_mild(damage: float, band: ArrayLike) -> Estimate:
    """Share of a null band's plans [n] that harm no more than `damage`, as a one-sided p-value that
    a plan drawn from the band is as mild: (1 + #)/(n + 1)."""
    values = np.asarray(band, dtype=np.float64)
    values = values[np.isfinite(values)]
    quantity = "share of random orders that harm no more"
    if len(values) == 0 or not np.isfinite(damage):
        return undefined(quantity, EMPTY_CELL)
    return Estimate(
        quantity=quantity,
        estimate=float(np.mean(values <= damage)),
        p_value=permutation_p(-damage, -values),
        test="null_band",
        n_units=len(values),
    )


def _matrix(damage: ArrayLike) -> FloatArray:
    rows = np.asarray(damage, dtype=np.float64)
    return rows[:, None] if rows.ndim == 1 else rows


def _freed(
    x: FloatArray, y: FloatArray, codes: IntArray, covariates: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Ranks of x and y without what strata and covariates say about them."""
    # Rounding noise must not be ranked: damage that is 0 but for it has no order.
    y = np.where(np.abs(y) <= _ROUNDING * max(1.0, float(np.abs(y).max())), 0.0, y)
    columns = [mid_ranks(x), mid_ranks(y)]
    columns += [] if covariates is None else [mid_ranks(column) for column in covariates.T]
    centred = [_centred(column, codes) for column in columns]
    if covariates is None:
        return centred[0], centred[1]
    known = np.column_stack(centred[2:])
    both = np.column_stack(centred[:2])
    left = both - known @ np.linalg.lstsq(known, both, rcond=None)[0]
    return left[:, 0], left[:, 1]


def _centred(values: FloatArray, codes: IntArray) -> FloatArray:
    sizes = np.bincount(codes)
    means = np.bincount(codes, weights=values) / np.maximum(sizes, 1)
    return values - means[codes]


def _correlation(x: FloatArray, y: FloatArray) -> float:
    """NaN where one of them does not vary; ranks are of the order of n."""
    floor = 1e-9 * len(x)
    lengths = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    return float(x @ y / (lengths[0] * lengths[1])) if min(lengths) > floor else np.nan


def _permuted(
    y: FloatArray, codes: IntArray, n_permutations: int, seed: int, *, listed: bool
) -> tuple[FloatArray, bool]:
    """Permutations [draws, plans] of y within strata, and whether they are all there are."""
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    sizes = [len(places) for places in members]
    if listed and len(members) == 1 and factorial(min(sizes[0], 20)) <= MAX_ENUMERATED:
        return np.array([y[list(order)] for order in permutations(range(len(y)))]), True
    rng = np.random.default_rng(seed)
    drawn = np.tile(y, (n_permutations, 1))
    for places in members:
        drawn[:, places] = rng.permuted(drawn[:, places], axis=1)
    return drawn, False


def _document_means(rows: FloatArray, rng: np.random.Generator) -> FloatArray:
    n = rows.shape[1]
    return rows @ (rng.multinomial(n, np.full(n, 1 / n)) / n)


def _two_way(
    x: FloatArray,
    rows: FloatArray,
    codes: IntArray,
    covariates: FloatArray | None,
    n_resamples: int,
    seed: int,
) -> FloatArray:
    rng = np.random.default_rng([seed, 1])
    draws = np.empty(n_resamples)
    for place in range(n_resamples):
        means = _document_means(rows, rng)
        chosen = rng.integers(0, len(x), len(x))
        others = None if covariates is None else covariates[chosen]
        draws[place] = _correlation(*_freed(x[chosen], means[chosen], codes[chosen], others))
    return draws


def _limits(draws: FloatArray, level: float) -> tuple[float, float]:
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return np.nan, np.nan
    low, high = np.quantile(finite, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
