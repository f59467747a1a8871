"""What a registered prediction came to, decided by rule from paired differences of units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError
from interpflow.stats.intervals import mean_interval
from interpflow.stats.quantiles import t_quantile, t_upper
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    EMPTY_CELL,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)

Verdict = Literal[
    "CONFIRMED", "CONTRADICTED", "NEGLIGIBLE", "DIRECTION_ONLY", "INCONCLUSIVE", "INVALID"
]


@dataclass(frozen=True)
class Directed:
    """The prediction that the mean difference is larger than `smallest_effect` (> 0) on the side
    of `sign`. Raises UserError otherwise: without an effect that matters nothing is predicted."""

    sign: Literal[1, -1]
    smallest_effect: float

    def __post_init__(self) -> None:
        if self.sign not in (1, -1) or not 0 < self.smallest_effect < math.inf:
            raise UserError(
                f"sign {self.sign} with smallest effect {self.smallest_effect} is no prediction",
                where="prediction",
                remedy="give sign 1 or -1 and a smallest effect above 0",
            )


@dataclass(frozen=True)
class Within:
    """The prediction that the mean difference lies inside (low, high)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high or not math.isfinite(self.high - self.low):
            raise UserError(
                f"({self.low}, {self.high}) is no interval",
                where="prediction",
                remedy="give two finite numbers, the smaller one first",
            )


Prediction = Directed | Within


@dataclass(frozen=True)
class Judged:
    """A prediction beside its data.

    estimate: mean difference as measured, with an interval at the level asked for (95 %) and the
    p-value of the prediction's null hypothesis. test_low, test_high: the two-sided 1 − 2α interval
    that the verdict reads; p ≤ α is the same event as CONFIRMED.
    """

    verdict: Verdict
    estimate: Estimate
    test_low: float
    test_high: float
    alpha: float

    @property
    def confirmed(self) -> bool:
        return self.verdict == "CONFIRMED"


def verdict(ci_low: float, ci_high: float, smallest_effect: float) -> Verdict:
    """Verdict on a prediction whose effect is signed so that it is predicted positive.

    ci_low, ci_high: the 1 − 2α interval. The first of these that holds: not finite → INVALID;
    low ≥ δ → CONFIRMED; high < 0 → CONTRADICTED; high < δ → NEGLIGIBLE; low > 0 → DIRECTION_ONLY;
    else INCONCLUSIVE.
    """
    if math.isnan(ci_low) or math.isnan(ci_high):
        return "INVALID"
    if ci_low >= smallest_effect:
        return "CONFIRMED"
    if ci_high < 0:
        return "CONTRADICTED"
    if ci_high < smallest_effect:
        return "NEGLIGIBLE"
    return "DIRECTION_ONLY" if ci_low > 0 else "INCONCLUSIVE"


def verdict_within(ci_low: float, ci_high: float, low: float, high: float) -> Verdict:
    """Verdict on the prediction that an effect lies inside (low, high): CONFIRMED if the 1 − 2α
    interval does (two one-sided tests), CONTRADICTED if it lies outside, else INCONCLUSIVE."""
    if math.isnan(ci_low) or math.isnan(ci_high):
        return "INVALID"
    if low <= ci_low and ci_high <= high:
        return "CONFIRMED"
    return "CONTRADICTED" if ci_low > high or ci_high < low else "INCONCLUSIVE"


def judge(
    differences: ArrayLike,
    prediction: Prediction,
    alpha: float,
    *,
    quantity: str = "mean difference",
    level: float = 0.95,
    valid: bool = True,
) -> Judged:
    """The verdict on paired differences [n] of independent units at the one-sided level `alpha`.

    Test: t on n − 1 degrees of freedom, of mean ≤ δ for a direction, of mean ≤ low and of
    mean ≥ high for an interval (the larger p counts). `valid` False: a gate failed.

    Differences that are all equal to c have no t test. Then the sign test speaks: if the median
    were on the other side of the bound, all n units would fall on this side with probability 2⁻ⁿ
    at most, which is the p-value (1 if c is not beyond the bound); the interval is {c} once
    2⁻ⁿ ≤ α, its coverage for the median being at least 1 − 2·2⁻ⁿ, and the whole line before.
    Fewer than 8 finite differences are INVALID.
    """
    data = np.asarray(differences, dtype=np.float64).reshape(-1)
    finite = data[np.isfinite(data)]
    n, n_dropped = len(finite), len(data) - len(finite)
    if not valid or n < MIN_CLUSTERS:
        flag = EMPTY_CELL if n == 0 else TOO_FEW_CLUSTERS
        flags = (flag,) if n < MIN_CLUSTERS else ()
        record = undefined(quantity, *flags, n_units=n, n_dropped=n_dropped, ci_level=level)
        return Judged("INVALID", record, math.nan, math.nan, alpha)
    described = mean_interval(finite, quantity=quantity, level=level)
    mean = described.estimate
    constant = DEGENERATE_VARIANCE in described.flags
    if constant:
        mean = float(finite[0])
        certain = 0.5**n
        error, reach = 0.0, 0.0 if certain <= alpha else math.inf
        low, high = (mean, mean) if certain <= (1 - level) / 2 else (math.nan, math.nan)
    else:
        error = float(finite.std(ddof=1)) / math.sqrt(n)
        reach = t_quantile(1 - alpha, n - 1) * error
        low, high = described.ci_low, described.ci_high

    def above(bound: float) -> float:
        """p-value of: the mean is at most `bound`."""
        if constant:
            return 0.5**n if mean > bound else 1.0
        return t_upper((mean - bound) / error, n - 1)

    def below(bound: float) -> float:
        if constant:
            return 0.5**n if mean < bound else 1.0
        return t_upper((bound - mean) / error, n - 1)

    if isinstance(prediction, Directed):
        bound = prediction.sign * prediction.smallest_effect
        p_value = above(bound) if prediction.sign > 0 else below(bound)
    else:
        p_value = max(above(prediction.low), below(prediction.high))
    record = Estimate(
        quantity=quantity,
        estimate=mean,
        ci_low=low,
        ci_high=high,
        ci_level=level,
        p_value=p_value,
        test="sign_bound" if constant else "t_one_sided",
        n_units=n,
        n_dropped=n_dropped,
        flags=described.flags,
    )
    found = _decided(mean - reach, mean + reach, prediction, p_value, alpha)
    return Judged(found, record, mean - reach, mean + reach, alpha)


def _decided(
    low: float, high: float, prediction: Prediction, p_value: float, alpha: float
) -> Verdict:
    """The rule on the interval, with CONFIRMED left to the p-value: on the bound itself, to the
    last digit, the two could differ."""
    if p_value <= alpha:
        return "CONFIRMED"
    if isinstance(prediction, Within):
        found = verdict_within(low, high, prediction.low, prediction.high)
        return "INCONCLUSIVE" if found == "CONFIRMED" else found
    if prediction.sign < 0:
        low, high = -high, -low
    found = verdict(low, high, prediction.smallest_effect)
    return "DIRECTION_ONLY" if found == "CONFIRMED" else found
