"""Smallest effect a design can see, and the sample an effect needs (normal approximation)."""

from __future__ import annotations

import math

from scipy.special import ndtr

from interpflow.stats.quantiles import normal_quantile

DEFAULT_ALPHA = 0.05
DEFAULT_POWER = 0.8


def _reach(alpha: float, power: float, n_tests: int) -> float:
    """z_{1−α/(2m)} + z_power: two-sided, Bonferroni over `n_tests`."""
    return normal_quantile(1 - alpha / (2 * n_tests)) + normal_quantile(power)


def design_effect(mean_cluster_size: float, intraclass_correlation: float) -> float:
    """1 + (m̄ − 1)·ICC: the factor by which clustering multiplies a variance (Kish 1965)."""
    return 1 + (mean_cluster_size - 1) * intraclass_correlation


def detectable_mean(
    sd: float,
    n: float,
    *,
    alpha: float = DEFAULT_ALPHA,
    power: float = DEFAULT_POWER,
    n_tests: int = 1,
) -> float:
    """Smallest mean seen with this power in `n` units of standard deviation `sd`; NaN if n < 2."""
    return _reach(alpha, power, n_tests) * sd / math.sqrt(n) if n >= 2 else math.nan


def units_for_mean(
    effect: float,
    sd: float,
    *,
    alpha: float = DEFAULT_ALPHA,
    power: float = DEFAULT_POWER,
    n_tests: int = 1,
) -> int:
    """Units needed to see `effect` with this power."""
    return math.ceil((_reach(alpha, power, n_tests) * sd / effect) ** 2)


def items_for_paired_difference(
    difference: float,
    discordance: float,
    *,
    alpha: float = DEFAULT_ALPHA,
    power: float = DEFAULT_POWER,
) -> int:
    """Items needed by McNemar's test for a difference of paired proportions (Connor 1987).

    `discordance` is the share of items on which the two differ, at least |difference|.
    """
    spread = normal_quantile(1 - alpha / 2) * math.sqrt(discordance)
    spread += normal_quantile(power) * math.sqrt(discordance - difference**2)
    return math.ceil((spread / difference) ** 2)


def detectable_paired_difference(
    discordance: float, n: float, *, alpha: float = DEFAULT_ALPHA, power: float = DEFAULT_POWER
) -> float:
    """Smallest difference of paired proportions McNemar's test sees in `n` items.

    Solves Connor's (1987) formula for the difference; NaN when even the largest possible
    difference (the discordance itself) is out of reach.
    """
    if n <= 0 or discordance <= 0:
        return math.nan
    low_z, power_z = normal_quantile(1 - alpha / 2), normal_quantile(power)
    # δ√n = a√ψ + b√(ψ − δ²): square once, a quadratic in δ.
    a = low_z * math.sqrt(discordance)
    square, linear = n + power_z**2, -2 * a * math.sqrt(n)
    constant = a**2 - power_z**2 * discordance
    root = (-linear + math.sqrt(linear**2 - 4 * square * constant)) / (2 * square)
    return root if root <= discordance else math.nan


def items_for_proportion(
    rate: float,
    baseline: float,
    *,
    alpha: float = DEFAULT_ALPHA,
    power: float = DEFAULT_POWER,
) -> int:
    """Items needed to tell one proportion from a known baseline."""
    spread = normal_quantile(1 - alpha / 2) * math.sqrt(baseline * (1 - baseline))
    spread += normal_quantile(power) * math.sqrt(rate * (1 - rate))
    return math.ceil((spread / (rate - baseline)) ** 2)


def detectable_slope(
    residual_sd: float,
    mean_squared_dose: float,
    n: float,
    *,
    alpha: float = DEFAULT_ALPHA,
    power: float = DEFAULT_POWER,
    n_tests: int = 1,
) -> float:
    """Smallest slope through the origin seen in `n` pairs; NaN without doses."""
    if n < 2 or mean_squared_dose <= 0:
        return math.nan
    return _reach(alpha, power, n_tests) * residual_sd / math.sqrt(n * mean_squared_dose)


def pairs_for_slope(
    slope: float,
    residual_sd: float,
    mean_squared_dose: float,
    *,
    alpha: float = DEFAULT_ALPHA,
    power: float = DEFAULT_POWER,
    n_tests: int = 1,
) -> int:
    """Pairs needed to see a slope through the origin."""
    spread = _reach(alpha, power, n_tests) * residual_sd
    return math.ceil(spread**2 / (slope**2 * mean_squared_dose))


def units_for_equivalence(
    bound: float, variance: float, *, alpha: float = DEFAULT_ALPHA, power: float = DEFAULT_POWER
) -> int:
    """Units needed by two one-sided tests when the true difference is 0."""
    reach = normal_quantile(1 - alpha) + normal_quantile((1 + power) / 2)
    return math.ceil(reach**2 * variance / bound**2)


def power_of_mean(
    effect: float, sd: float, n: float, *, alpha: float = DEFAULT_ALPHA, n_tests: int = 1
) -> float:
    """Chance that a two-sided z test of `n` units rejects when the mean is `effect`."""
    threshold = normal_quantile(1 - alpha / (2 * n_tests))
    shift = effect * math.sqrt(n) / sd
    return float(ndtr(shift - threshold) + ndtr(-shift - threshold))
