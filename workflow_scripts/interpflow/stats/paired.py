"""Models compared on the same items: McNemar, Newcombe's interval, Cochran's Q."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from interpflow.errors import UserError
from interpflow.stats.intervals import wilson
from interpflow.stats.multiplicity import adjust
from interpflow.stats.permutation import DEFAULT_RESAMPLES, sign_flip
from interpflow.stats.quantiles import binomial_two_sided_half, chi2_upper
from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, Estimate, undefined


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of the discordant counts against ½ (McNemar 1947); 1 for none."""
    return binomial_two_sided_half(only_first, only_first + only_second)


def mcnemar_mid_p(only_first: int, only_second: int) -> float:
    """Mid-p version, less conservative; a labelled secondary only."""
    trials, smaller = only_first + only_second, min(only_first, only_second)
    if trials == 0:
        return 1.0
    below = float(bdtr(smaller, trials, 0.5))
    at = below - (float(bdtr(smaller - 1, trials, 0.5)) if smaller else 0.0)
    return min(1.0, 2 * (below - at / 2))


def newcombe_paired(
    both: int, only_first: int, only_second: int, neither: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions (Newcombe 1998, method 10)."""
    a, b, c, d = both, only_first, only_second, neither
    n = a + b + c + d
    if n == 0:
        return math.nan, math.nan
    first, second = (a + b) / n, (a + c) / n
    low1, high1 = wilson(a + b, n, level)
    low2, high2 = wilson(a + c, n, level)
    phi = _newcombe_phi(a, b, c, d)
    difference = (b - c) / n
    down1, up1, down2, up2 = first - low1, high1 - first, second - low2, high2 - second
    lower = down1**2 - 2 * phi * down1 * up2 + up2**2
    upper = up1**2 - 2 * phi * up1 * down2 + down2**2
    return difference - math.sqrt(max(lower, 0)), difference + math.sqrt(max(upper, 0))


def _newcombe_phi(a: int, b: int, c: int, d: int) -> float:
    """Correlation of the two responses, numerator shrunk by n/2 when positive."""
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    numerator = a * d - b * c
    if numerator > 0:
        numerator = max(numerator - (a + b + c + d) / 2, 0)
    return numerator / math.sqrt(margins)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "accuracy difference",
    level: float = 0.95,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    family: str = "",
) -> Estimate:
    """Share right of `first` minus share right of `second`, both bool [n] on the same items.

    Independent items: exact McNemar p and Newcombe's interval. Clustered items: cluster t
    interval and sign-flip p over clusters (`seed` is used only there).
    Raises UserError when the lengths differ.
    """
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape:
        raise UserError(f"paired answers have shapes {one.shape} and {two.shape}")
    if clusters is not None:
        return sign_flip(
            one.astype(np.float64) - two,
            clusters=clusters,
            quantity=quantity,
            n_resamples=n_resamples,
            seed=seed,
            level=level,
            family=family,
        )
    if len(one) == 0:
        return undefined(quantity, EMPTY_CELL, ci_level=level, family=family)
    both, neither = int(np.sum(one & two)), int(np.sum(~one & ~two))
    b, c = int(np.sum(one & ~two)), int(np.sum(~one & two))
    low, high = newcombe_paired(both, b, c, neither, level)
    return Estimate(
        quantity=quantity,
        estimate=(b - c) / len(one),
        ci_low=low,
        ci_high=high,
        ci_level=level,
        p_value=mcnemar_exact(b, c),
        test="mcnemar_exact",
        n_units=len(one),
        family=family,
    )


def cochran_q(correct: ArrayLike, *, quantity: str = "Cochran Q") -> Estimate:
    """Test that K models (or templates) share one accuracy on the same items (Cochran 1950).

    `correct` bool [items, K]; the estimate is Q on K − 1 degrees of freedom. Undefined when every
    item is answered alike by all.
    """
    table = np.asarray(correct, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise UserError(f"Cochran's Q needs [items, at least 2 models], got shape {table.shape}")
    k = table.shape[1]
    columns, rows = table.sum(axis=0), table.sum(axis=1)
    denominator = k * rows.sum() - (rows**2).sum()
    counts: dict[str, Any] = {"n_units": len(table), "test": "cochran_q"}
    if denominator == 0:
        return undefined(quantity, NO_VARIATION, **counts)
    q = float((k - 1) * (k * (columns**2).sum() - columns.sum() ** 2) / denominator)
    return Estimate(quantity=quantity, estimate=q, p_value=chi2_upper(q, k - 1), **counts)


def pairwise_differences(
    correct: ArrayLike,
    names: Sequence[str],
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
    family: str = "model pairs",
) -> tuple[Estimate, ...]:
    """Every pair of models compared on the same items, Holm over the pairs.

    `correct` bool [items, models]; quantities read "a − b".
    """
    table = np.asarray(correct, dtype=bool)
    if table.ndim != 2 or table.shape[1] != len(names):
        raise UserError(f"{len(names)} names for correct answers of shape {table.shape}")
    found = [
        paired_difference(
            table[:, i],
            table[:, j],
            clusters=clusters,
            quantity=f"{names[i]} − {names[j]}",
            level=level,
            seed=seed,
        )
        for i, j in combinations(range(len(names)), 2)
    ]
    return adjust(found, method="holm", family=family)


def against_constant(
    correct: ArrayLike,
    truth: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
    family: str = "",
) -> Estimate:
    """Strict accuracy minus that of the best constant answer, on the same items.

    `correct` bool [n], `truth` [n] counts.
    """
    truths = np.asarray(truth)
    if len(truths) == 0:
        return undefined("accuracy − best constant", EMPTY_CELL, ci_level=level)
    values, counts = np.unique(truths, return_counts=True)
    return paired_difference(
        correct,
        truths == values[np.argmax(counts)],
        clusters=clusters,
        quantity="accuracy − best constant",
        level=level,
        seed=seed,
        family=family,
    )
