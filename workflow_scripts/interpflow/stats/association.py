"""Association of a design variable with nuisance factors: V, mutual information, eta squared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.stats.permutation import permutation_p
from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, Estimate, undefined
from interpflow.stats.response import information_of_table, permuted_information
from interpflow.stats.units import codes_of, group_sums

# A nuisance is acceptable up to this bias-corrected V, and this upper bootstrap bound of it.
V_LIMIT = 0.1
V_UPPER_LIMIT = 0.15
DEFAULT_RESAMPLES = 999


@dataclass(frozen=True)
class Association:
    """Association of two categorical factors.

    `cramers_v` is bias-corrected (Bergsma 2013) with a bootstrap interval, `information` in nats
    (plug-in, with permutation p), `information_corrected` minus its bias under independence.
    """

    cramers_v: Estimate
    information: Estimate
    information_corrected: float
    passed: bool


def cross_table(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Counts [levels of first, levels of second] of two label arrays [items]."""
    a = np.asarray(first)
    codes_a, rows = codes_of(a, len(a))
    codes_b, columns = codes_of(second, len(a))
    table = np.zeros((rows, columns))
    np.add.at(table, (codes_a, codes_b), 1)
    return table


def cramers_v(table: ArrayLike, *, corrected: bool = True) -> float:
    """Cramér's V of a table of counts, bias-corrected (Bergsma 2013) or plain.

    Empty margins are left out. NaN unless two rows and two columns have counts.
    """
    counts = np.asarray(table, dtype=np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    rows, columns = counts.shape if counts.ndim == 2 else (0, 0)
    n = counts.sum()
    if min(rows, columns) < 2 or n < 2:
        return math.nan
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    phi2 = float(((counts - expected) ** 2 / expected).sum() / n)
    if not corrected:
        return math.sqrt(phi2 / min(rows - 1, columns - 1))
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    rows_c = rows - (rows - 1) ** 2 / (n - 1)
    columns_c = columns - (columns - 1) ** 2 / (n - 1)
    smallest = min(rows_c - 1, columns_c - 1)
    return math.sqrt(phi2 / smallest) if smallest > 0 else math.nan


def categorical_association(
    first: ArrayLike,
    second: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    quantity: str = "association",
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
) -> Association:
    """Association of two label arrays [items]; passes for V ≤ 0.1 with upper bound ≤ 0.15.

    `strata` [items]: permute within them (a count is tied to the list length by construction, so
    test it within length).
    """
    a, b = np.asarray(first), np.asarray(second)
    n = len(a)
    record: dict[str, Any] = {"n_units": n, "n_resamples": n_resamples, "seed": seed}
    names = (f"Cramér V of {quantity}", f"I of {quantity}")
    if n == 0:
        missing = [undefined(name, EMPTY_CELL, **record) for name in names]
        return Association(missing[0], missing[1], math.nan, False)
    table = cross_table(a, b)
    value = cramers_v(table)
    information = information_of_table(table)
    codes_a, rows = codes_of(a, n)
    codes_b, columns = codes_of(b, n)
    codes_s, _ = codes_of(np.zeros(n) if strata is None else strata, n)
    if min(rows, columns) < 2:
        missing = [undefined(name, NO_VARIATION, **record) for name in names]
        return Association(missing[0], missing[1], math.nan, True)
    draws = permuted_information(codes_a, codes_b, codes_s, n_resamples=n_resamples, seed=seed)
    boots = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=n_resamples)
    resampled = np.array([cramers_v(boot.reshape(table.shape)) for boot in boots])
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Association(
        cramers_v=Estimate(
            quantity=names[0],
            estimate=value,
            ci_low=float(low),
            ci_high=float(high),
            test="multinomial_bootstrap",
            **record,
        ),
        information=Estimate(
            quantity=names[1],
            estimate=information,
            p_value=permutation_p(information, draws),
            test="permutation",
            **record,
        ),
        information_corrected=information - (rows - 1) * (columns - 1) / (2 * n),
        passed=bool(value <= V_LIMIT and high <= V_UPPER_LIMIT),
    )


def eta_squared(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    quantity: str = "eta squared",
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
) -> Estimate:
    """Share of the variance of `values` [items] that lies between `groups`, permutation p."""
    numbers, labels = np.asarray(values, dtype=np.float64), np.asarray(groups)
    finite = np.isfinite(numbers)
    numbers, labels = numbers[finite], labels[finite]
    n = len(numbers)
    record: dict[str, Any] = {
        "n_units": n,
        "n_dropped": int(np.sum(~finite)),
        "n_resamples": n_resamples,
        "seed": seed,
        "test": "permutation",
    }
    if n == 0:
        return undefined(quantity, EMPTY_CELL, **record)
    codes, n_groups = codes_of(labels, n)
    centred = numbers - numbers.mean()
    total = float((centred**2).sum())
    if total == 0 or n_groups < 2:
        return undefined(quantity, NO_VARIATION, **record)
    sizes = np.bincount(codes, minlength=n_groups)

    def share(ordered: NDArray[np.float64]) -> float:
        return float((group_sums(ordered, codes, n_groups) ** 2 / sizes).sum()) / total

    observed = share(centred)
    rng = np.random.default_rng(seed)
    draws = [share(centred[rng.permutation(n)]) for _ in range(n_resamples)]
    return Estimate(
        quantity=quantity, estimate=observed, p_value=permutation_p(observed, draws), **record
    )
