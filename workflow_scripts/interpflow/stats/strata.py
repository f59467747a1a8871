"""Accuracy by stratum: one global test first, then each stratum against the rest, shrunk rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln

from interpflow.stats.intervals import mean_interval, wilson
from interpflow.stats.multiplicity import bh
from interpflow.stats.quantiles import beta_quantile, chi2_upper, f_upper, t_quantile, t_two_sided
from interpflow.stats.record import (
    EMPTY_CELL,
    MIN_CLUSTERS,
    NO_VARIATION,
    SHRUNK_TO_POOLED,
    SMALL_STRATUM,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import codes_of, group_sums

# Strata smaller than this are shown grey: their rate is mostly noise.
SMALL_STRATUM_SIZE = 20
# Above this prior weight the strata do not differ more than binomial noise allows.
LARGEST_PRIOR_WEIGHT = 1e4


@dataclass(frozen=True)
class Stratum:
    """One stratum. `shrunk` and its limits are empirical Bayes, for display.

    `contrast` is its rate minus the rate of all the others, with p and BH-adjusted p in the factor.
    """

    name: str
    n: int
    n_correct: int
    rate: float
    ci_low: float
    ci_high: float
    shrunk: float
    shrunk_low: float
    shrunk_high: float
    contrast: Estimate
    flags: tuple[str, ...]


@dataclass(frozen=True)
class StratifiedAccuracy:
    """The strata of one factor, the global test that they share a rate, and the fitted prior."""

    factor: str
    overall: Estimate
    strata: tuple[Stratum, ...]
    prior_a: float
    prior_b: float


def beta_binomial_prior(successes: ArrayLike, sizes: ArrayLike) -> tuple[float, float, bool]:
    """Maximum-likelihood (a, b) of a beta prior on the strata's rates, and whether a+b was capped.

    `successes`, `sizes` [strata]; empty strata are ignored. NaN when no stratum has items.
    """
    from scipy.optimize import minimize

    k, n = (np.asarray(x, dtype=np.float64) for x in (successes, sizes))
    k, n = k[n > 0], n[n > 0]
    if len(k) == 0:
        return math.nan, math.nan, False
    pooled = (k.sum() + 0.5) / (n.sum() + 1)
    if len(k) == 1:
        return pooled * LARGEST_PRIOR_WEIGHT, (1 - pooled) * LARGEST_PRIOR_WEIGHT, True

    def loss(point: np.ndarray) -> float:
        # Mean on the logit scale and prior weight on the log scale: near-orthogonal.
        mean, weight = 1 / (1 + math.exp(-point[0])), math.exp(min(point[1], 20.0))
        a, b = mean * weight, (1 - mean) * weight
        return -float((betaln(k + a, n - k + b) - betaln(a, b)).sum())

    logit = math.log(pooled / (1 - pooled))
    ceiling = math.log(LARGEST_PRIOR_WEIGHT)
    starts = [np.array([logit, math.log(weight)]) for weight in (2.0, 50.0)]
    bounds = [(-15.0, 15.0), (-5.0, ceiling)]
    fits = [minimize(loss, start, method="L-BFGS-B", bounds=bounds, tol=1e-12) for start in starts]
    best = min(fits, key=lambda fit: fit.fun)
    mean, weight = 1 / (1 + math.exp(-best.x[0])), math.exp(best.x[1])
    capped = bool(best.x[1] > ceiling - 1e-3)
    return mean * weight, (1 - mean) * weight, capped


def _contrast(
    right: np.ndarray, inside: np.ndarray, clusters: np.ndarray | None, name: str
) -> Estimate:
    """Rate inside minus rate outside: Fisher's exact test, or a cluster-robust t."""
    n1, n0 = int(inside.sum()), int((~inside).sum())
    quantity = f"{name} − rest"
    if n1 == 0 or n0 == 0:
        return undefined(quantity, EMPTY_CELL, n_units=len(right))
    mean1, mean0 = float(right[inside].mean()), float(right[~inside].mean())
    influence = np.where(inside, (right - mean1) / n1, -(right - mean0) / n0)
    codes, groups = codes_of(clusters, len(right))
    sums = group_sums(influence, codes, groups)
    variance = float((sums**2).sum()) * groups / max(groups - 1, 1)
    error = math.sqrt(variance)
    reach = t_quantile(0.975, max(groups - 1, 1)) * error if error > 0 else math.nan
    few = clusters is not None and groups < MIN_CLUSTERS
    if clusters is None:
        from scipy.stats import fisher_exact

        k1, k0 = int(right[inside].sum()), int(right[~inside].sum())
        p_value = float(np.asarray(fisher_exact([[k1, n1 - k1], [k0, n0 - k0]])[1]))
        test = "fisher_exact"
    else:
        usable = error > 0 and not few
        p_value = t_two_sided((mean1 - mean0) / error, groups - 1) if usable else math.nan
        test = "cluster_t"
    return Estimate(
        quantity=quantity,
        estimate=mean1 - mean0,
        ci_low=mean1 - mean0 - reach,
        ci_high=mean1 - mean0 + reach,
        p_value=p_value,
        test=test,
        n_units=len(right),
        n_clusters=None if clusters is None else groups,
        flags=(TOO_FEW_CLUSTERS,) if few else (),
    )


def _global_test(
    right: np.ndarray, codes: np.ndarray, n_strata: int, clusters: np.ndarray | None, factor: str
) -> Estimate:
    """Pearson χ² of stratum × right, or a cluster-robust Wald F that all rates are equal."""
    quantity = f"accuracy differs by {factor}"
    sizes = np.bincount(codes, minlength=n_strata).astype(np.float64)
    hits = np.bincount(codes, weights=right, minlength=n_strata)
    counts: dict[str, Any] = {"n_units": len(right)}
    if n_strata < 2 or hits.sum() in (0, len(right)):
        return undefined(quantity, NO_VARIATION, **counts)
    if clusters is None:
        expected = sizes * hits.sum() / len(right)
        other = sizes - expected
        statistic = float(((hits - expected) ** 2 * (1 / expected + 1 / other)).sum())
        p_value = chi2_upper(statistic, n_strata - 1)
        return Estimate(
            quantity=quantity, estimate=statistic, p_value=p_value, test="chi2", **counts
        )
    cluster_codes, groups = codes_of(clusters, len(right))
    rates = hits / sizes
    influence = np.zeros((len(right), n_strata))
    influence[np.arange(len(right)), codes] = (right - rates[codes]) / sizes[codes]
    sums = group_sums(influence, cluster_codes, groups)
    covariance = sums.T @ sums * groups / max(groups - 1, 1)
    contrast = np.column_stack([-np.ones(n_strata - 1), np.eye(n_strata - 1)])
    difference = contrast @ rates
    middle = contrast @ covariance @ contrast.T
    counts["n_clusters"] = groups
    if groups <= n_strata or np.linalg.matrix_rank(middle) < n_strata - 1:
        return undefined(quantity, TOO_FEW_CLUSTERS, test="cluster_wald", **counts)
    statistic = float(difference @ np.linalg.solve(middle, difference)) / (n_strata - 1)
    p_value = f_upper(statistic, n_strata - 1, groups - 1)
    return Estimate(
        quantity=quantity, estimate=statistic, p_value=p_value, test="cluster_wald", **counts
    )


def stratified_accuracy(
    correct: ArrayLike,
    strata: ArrayLike,
    *,
    factor: str,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> StratifiedAccuracy:
    """Accuracy within each level of a factor (`correct` bool [items], `strata` labels [items]).

    Per stratum: rate with Wilson (or cluster t) interval, beta-binomial shrunken rate, and the
    contrast with the rest, Benjamini–Hochberg over the strata of the factor.
    """
    right, labels = np.asarray(correct, dtype=np.float64), np.asarray(strata)
    cluster_labels = None if clusters is None else np.asarray(clusters)
    names = np.unique(labels)
    codes, n_strata = codes_of(labels, len(right))
    sizes = np.bincount(codes, minlength=n_strata)
    hits = np.bincount(codes, weights=right, minlength=n_strata)
    a, b, capped = beta_binomial_prior(hits, sizes)
    contrasts = [
        _contrast(right, codes == h, cluster_labels, str(names[h])) for h in range(n_strata)
    ]
    adjusted = bh([contrast.p_value for contrast in contrasts]) if contrasts else []
    rows = []
    for h in range(n_strata):
        n, k = int(sizes[h]), int(hits[h])
        low, high = _stratum_interval(right[codes == h], cluster_labels, codes == h, level)
        flags = (SHRUNK_TO_POOLED,) if capped else ()
        flags += (SMALL_STRATUM,) if n < SMALL_STRATUM_SIZE else ()
        rows.append(
            Stratum(
                name=str(names[h]),
                n=n,
                n_correct=k,
                rate=k / n,
                ci_low=low,
                ci_high=high,
                shrunk=(k + a) / (n + a + b),
                shrunk_low=beta_quantile(0.5 - level / 2, k + a, n - k + b),
                shrunk_high=beta_quantile(0.5 + level / 2, k + a, n - k + b),
                contrast=_adjusted(contrasts[h], float(adjusted[h]), factor),
                flags=flags,
            )
        )
    overall = _global_test(right, codes, n_strata, cluster_labels, factor)
    return StratifiedAccuracy(factor, overall, tuple(rows), a, b)


def _stratum_interval(
    hits: np.ndarray, clusters: np.ndarray | None, inside: np.ndarray, level: float
) -> tuple[float, float]:
    if clusters is None:
        return wilson(float(hits.sum()), len(hits), level)
    found = mean_interval(hits, clusters=clusters[inside], level=level, is_proportion=True)
    return found.ci_low, found.ci_high


def _adjusted(contrast: Estimate, p_adjusted: float, factor: str) -> Estimate:
    return replace(contrast, p_adjusted=p_adjusted, family=f"strata of {factor}")
