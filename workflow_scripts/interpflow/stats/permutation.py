"""Sign-flip and permutation p-values: exact when few, with the +1 rule when drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.stats.intervals import mean_interval
from interpflow.stats.record import NO_VARIATION, Estimate
from interpflow.stats.units import complete_units, group_sums

Alternative = Literal["two-sided", "greater", "less"]

DEFAULT_RESAMPLES = 9999
# A group of transformations up to this size is enumerated, so the p-value is exact.
MAX_ENUMERATED = 20_000
# Ties between a permuted and the observed statistic differ by rounding only.
TIE_TOLERANCE = 1e-12
_BLOCK = 2_000_000


def permutation_p(observed: float, draws: ArrayLike, *, exact: bool = False) -> float:
    """Share of `draws` at least as large as `observed`, larger being more extreme.

    Drawn transformations: (1 + #)/(B + 1) (Phipson & Smyth 2010), never 0. `exact`: the draws are
    the whole group, identity included, so #/N.
    """
    values = np.asarray(draws, dtype=np.float64)
    at_least = int(np.sum(values >= observed - TIE_TOLERANCE * max(1.0, abs(observed))))
    return at_least / len(values) if exact else (1 + at_least) / (len(values) + 1)


def smallest_sign_flip_p(n_units: int) -> float:
    """Smallest two-sided p a sign-flip test of `n_units` units can give: 2/2ⁿ."""
    return 2.0 ** (1 - n_units)


def all_signs(n_units: int) -> NDArray[np.float64]:
    """All 2ⁿ sign vectors [2ⁿ, n], the identity first."""
    codes = np.arange(2**n_units)[:, None]
    return np.asarray(1 - 2 * ((codes >> np.arange(n_units)) & 1), dtype=np.float64)


def draw_signs(rng: np.random.Generator, n_draws: int, n_units: int) -> NDArray[np.float64]:
    """Random sign vectors [draws, units]."""
    signs = 2 * rng.integers(0, 2, size=(n_draws, n_units), dtype=np.int8) - 1
    return np.asarray(signs, dtype=np.float64)


def sign_flip(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "mean difference",
    alternative: Alternative = "two-sided",
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    level: float = 0.95,
    family: str = "",
) -> Estimate:
    """Sign-flip test that the differences `values` [n] are symmetric about 0, with the t interval.

    Whole clusters flip together. Exact for up to 14 units. Valid when d is exchangeable with −d
    under the null: take d = (effect of the real donor) − (effect of a matched control donor).
    """
    units = complete_units(values, clusters=clusters)
    base = mean_interval(
        units.columns[0],
        clusters=None if units.n_clusters is None else units.codes,
        quantity=quantity,
        level=level,
    )
    record = replace(base, n_dropped=units.n_dropped, test="sign_flip", seed=seed, family=family)
    if units.n_rows == 0:
        return record
    sums = group_sums(units.columns[0], units.codes, units.n_groups)
    if not np.any(sums):
        return replace(record, p_value=1.0, flags=(*record.flags, NO_VARIATION))
    exact = 2**units.n_groups <= MAX_ENUMERATED
    totals = all_signs(units.n_groups) @ sums if exact else _drawn_totals(sums, n_resamples, seed)
    sides = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}
    side = sides[alternative]
    p_value = permutation_p(float(side(sums.sum())), side(totals), exact=exact)
    return replace(
        record,
        p_value=p_value,
        n_resamples=len(totals),
        test="sign_flip_exact" if exact else "sign_flip",
    )


def _drawn_totals(sums: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(sums))
    return np.concatenate(
        [
            draw_signs(rng, min(block, n_resamples - start), len(sums)) @ sums
            for start in range(0, n_resamples, block)
        ]
    )
