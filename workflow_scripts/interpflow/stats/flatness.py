"""Distance of a realised design from the intended one: decided by effect size, not by p."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.permutation import permutation_p
from interpflow.stats.quantiles import chi2_upper
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined

# Largest acceptable upper bound of the total variation between design and data.
FLATNESS_LIMIT = 0.05
# Below this expected count the χ² approximation fails and p is simulated.
MIN_EXPECTED = 5
DEFAULT_RESAMPLES = 9999


@dataclass(frozen=True)
class Flatness:
    """`tv` in [0, 1] carries the one-sided 95 % upper bound as ci_high; `chi2` the test.

    `effect_size` is w = √Σ(p̂ − p)²/p. `exact`: every count equals its expectation.
    """

    tv: Estimate
    chi2: Estimate
    effect_size: float
    exact: bool
    passed: bool


def _expected_shares(counts: np.ndarray, expected: ArrayLike | None) -> np.ndarray:
    if expected is None:
        return np.full(len(counts), 1 / len(counts))
    shares = np.asarray(expected, dtype=np.float64)
    if shares.shape != counts.shape or not np.all(shares > 0):
        raise UserError(
            "expected shares must be positive, one per category", where="expected shares"
        )
    return shares / shares.sum()


def flatness(
    counts: ArrayLike,
    *,
    expected: ArrayLike | None = None,
    limit: float = FLATNESS_LIMIT,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    quantity: str = "design",
) -> Flatness:
    """Compare category counts [K] with expected shares [K] (None: equal).

    Passes when the upper 95 % multinomial-bootstrap bound of the total variation is ≤ `limit`, or
    when a stratified design is met exactly. p is asymptotic, or simulated when an expected count
    is below 5. Raises UserError for expected shares that are not positive.
    """
    observed = np.asarray(counts, dtype=np.float64)
    shares = _expected_shares(observed, expected)
    total = int(observed.sum())
    record: dict[str, Any] = {"n_units": total, "seed": seed}
    if total == 0:
        tv = undefined(f"TV of {quantity}", EMPTY_CELL, **record)
        return Flatness(
            tv, undefined(f"flatness of {quantity}", EMPTY_CELL, **record), math.nan, False, False
        )
    goal = total * shares
    statistic = float(((observed - goal) ** 2 / goal).sum())
    found = observed / total
    distance = float(np.abs(found - shares).sum() / 2)
    rng = np.random.default_rng(seed)
    exact = bool(np.all(np.abs(observed - goal) < 1e-9))
    boots = rng.multinomial(total, found, size=n_resamples) / total
    bound = float(np.quantile(np.abs(boots - shares).sum(axis=1) / 2, 0.95))
    simulated = goal.min() < MIN_EXPECTED
    if simulated:
        draws = rng.multinomial(total, shares, size=n_resamples)
        p_value = permutation_p(statistic, ((draws - goal) ** 2 / goal).sum(axis=1))
    else:
        p_value = chi2_upper(statistic, len(observed) - 1)
    chi2 = Estimate(
        quantity=f"flatness of {quantity}",
        estimate=statistic,
        p_value=p_value,
        test="chi2_monte_carlo" if simulated else "chi2",
        n_resamples=n_resamples if simulated else None,
        **record,
    )
    tv = Estimate(
        quantity=f"TV of {quantity}",
        estimate=distance,
        ci_low=0.0,
        ci_high=distance if exact else bound,
        test="multinomial_bootstrap_upper",
        n_resamples=n_resamples,
        **record,
    )
    effect_size = math.sqrt(float(((found - shares) ** 2 / shares).sum()))
    return Flatness(tv, chi2, effect_size, exact, exact or bound <= limit)
