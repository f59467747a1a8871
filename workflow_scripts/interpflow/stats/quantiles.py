"""Quantiles and tail probabilities from scipy.special, which loads far faster than scipy.stats."""

from __future__ import annotations

from scipy import special


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal."""
    return float(special.ndtri(probability))


def normal_two_sided(z: float) -> float:
    """P(|Z| ≥ |z|)."""
    return float(2 * special.ndtr(-abs(z)))


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t."""
    return float(special.stdtrit(df, probability))


def t_upper(t: float, df: float) -> float:
    """P(T ≥ t)."""
    return float(special.stdtr(df, -t))


def t_two_sided(t: float, df: float) -> float:
    """P(|T| ≥ |t|)."""
    return float(2 * special.stdtr(df, -abs(t)))


def chi2_upper(statistic: float, df: float) -> float:
    """P(χ² ≥ statistic)."""
    return float(special.chdtrc(df, statistic))


def f_upper(statistic: float, df_between: float, df_within: float) -> float:
    """P(F ≥ statistic)."""
    return float(special.fdtrc(df_between, df_within, statistic))


def binomial_two_sided_half(successes: int, trials: int) -> float:
    """Exact two-sided P that Binomial(trials, ½) is as far from the middle; 1 for no trial."""
    if trials == 0:
        return 1.0
    smaller = min(successes, trials - successes)
    return min(1.0, 2 * float(special.bdtr(smaller, trials, 0.5)))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Quantile of Beta(a, b)."""
    return float(special.betaincinv(a, b, probability))
