"""Conditional logistic regression on one regressor: the slope within groups, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.quantiles import normal_quantile, normal_two_sided, t_quantile, t_two_sided
from interpflow.stats.record import (
    MIN_CLUSTERS,
    NO_VARIATION,
    SEPARATION,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import codes_of, group_sums

FloatArray = NDArray[np.float64]

_MAX_STEPS = 60
_TOLERANCE = 1e-10
_LARGEST_STEP = 2.0  # in standard deviations of the regressor, against overshooting


@dataclass(frozen=True)
class ConditionalFit:
    """`slope`: change of the log-odds per unit of the regressor, for one and the same group.

    Groups whose outcomes are all equal say nothing of it: `n_constant` of them were left out.
    """

    slope: Estimate
    n_informative: int
    n_constant: int
    separated: bool


@dataclass(frozen=True)
class _Groups:
    """Informative groups, padded: regressor [g, m], which entries exist, positives k [g] and the
    sum of their regressors [g]."""

    x: FloatArray
    present: NDArray[np.bool_]
    positives: NDArray[np.intp]
    observed: FloatArray


def conditional_logit(
    outcomes: ArrayLike,
    regressor: ArrayLike,
    groups: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "slope",
    level: float = 0.95,
) -> ConditionalFit:
    """Slope of 0/1 `outcomes` [n] on `regressor` [n] within `groups` [n] (McFadden 1974;
    Breslow & Day 1980, ch. 7), all differences between groups conditioned away.

    `clusters` [n] hold whole groups: variance by sandwich over them, t_{G−1} interval; None: the
    inverse information and normal quantiles. Rows with a non-finite value are left out. When the
    regressor separates right from wrong in every group the slope is infinite: undefined, flagged.
    """
    y, x = (np.asarray(values, dtype=np.float64) for values in (outcomes, regressor))
    kept = np.isfinite(y) & np.isfinite(x)
    y, x = y[kept], x[kept]
    if not np.isin(y, (0, 1)).all():
        raise UserError("a conditional logistic regression needs outcomes 0 and 1")
    codes, n_groups = codes_of(np.asarray(groups)[kept], len(y))
    counts: dict[str, Any] = {
        "n_dropped": int((~kept).sum()), "ci_level": level, "test": "conditional_logit"
    }  # fmt: skip
    sizes = np.bincount(codes, minlength=n_groups)
    positives = np.bincount(codes, weights=y, minlength=n_groups)
    varied = (positives > 0) & (positives < sizes)
    rows = varied[codes]
    n_varied, n_constant = int(varied.sum()), int(n_groups - varied.sum())
    spread = float(x[rows].std()) if n_varied else 0.0
    if spread == 0:
        missing = undefined(quantity, NO_VARIATION, n_units=n_varied, **counts)
        return ConditionalFit(missing, n_varied, n_constant, False)
    data = _padded(y[rows], (x[rows] - x.mean()) / spread, codes[rows])
    lowest, highest = _extreme_sums(data)
    at_low = np.abs(data.observed - lowest) < _TOLERANCE
    at_high = np.abs(data.observed - highest) < _TOLERANCE
    if at_low.all() or at_high.all():
        still = bool((at_low & at_high).all())
        flag = NO_VARIATION if still else SEPARATION
        missing = undefined(quantity, flag, n_units=n_varied, **counts)
        return ConditionalFit(missing, n_varied, n_constant, not still)
    beta = _maximum(data)
    expected, variance = _moments(data, beta)
    labels = None
    if clusters is not None:
        by_row = np.asarray(clusters)[kept][rows]
        _, first = np.unique(codes[rows], return_index=True)
        labels = by_row[first]
    slope = _record(
        beta / spread, (data.observed - expected) * spread, float(variance.sum()) * spread**2,
        labels, quantity, level, counts,
    )  # fmt: skip
    return ConditionalFit(slope, n_varied, n_constant, False)


def _padded(y: FloatArray, x: FloatArray, codes: NDArray[np.intp]) -> _Groups:
    codes, n_groups = codes_of(codes, len(codes))
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=n_groups)
    column = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    padded = np.zeros((n_groups, int(sizes.max())))
    padded[codes[order], column] = x[order]
    present = np.arange(padded.shape[1]) < sizes[:, None]
    return _Groups(
        x=padded,
        present=present,
        positives=np.bincount(codes, weights=y, minlength=n_groups).astype(np.intp),
        observed=group_sums(x * y, codes, n_groups),
    )


def _extreme_sums(data: _Groups) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest sum that as many positives could have in each group."""
    rows = np.arange(len(data.x))

    def smallest(values: FloatArray) -> FloatArray:
        ordered = np.sort(np.where(data.present, values, np.inf), axis=1)
        sums = np.cumsum(np.where(np.isfinite(ordered), ordered, 0.0), axis=1)
        return sums[rows, data.positives - 1]

    return smallest(data.x), -smallest(-data.x)


def _moments(data: _Groups, beta: float) -> tuple[FloatArray, FloatArray]:
    """Mean and variance [g] of the positives' sum given their number.

    Elementary symmetric polynomials of exp(βx) and their first two derivatives by the usual
    recursion over members, every group at once, rescaled at each member against overflow.
    """
    n_groups, n_members = data.x.shape
    most = int(data.positives.max())
    zero, first, second = (np.zeros((n_groups, most + 1)) for _ in range(3))
    zero[:, 0] = 1.0
    for member in range(n_members):
        x = data.x[:, member : member + 1]
        weight = np.where(data.present[:, member : member + 1], np.exp(beta * x), 0.0)
        z, f = zero[:, :-1].copy(), first[:, :-1].copy()
        second[:, 1:] += weight * (second[:, :-1] + 2 * x * f + x**2 * z)
        first[:, 1:] += weight * (f + x * z)
        zero[:, 1:] += weight * z
        scale = zero.max(axis=1, keepdims=True)
        for part in (zero, first, second):
            part /= scale
    rows = np.arange(n_groups)
    total = zero[rows, data.positives]
    mean = first[rows, data.positives] / total
    return mean, second[rows, data.positives] / total - mean**2


def _maximum(data: _Groups) -> float:
    """Newton's method on the concave log-likelihood, with bounded steps."""
    beta = 0.0
    for _ in range(_MAX_STEPS):
        expected, variance = _moments(data, beta)
        step = float((data.observed - expected).sum() / variance.sum())
        beta += min(max(step, -_LARGEST_STEP), _LARGEST_STEP)
        if abs(step) < _TOLERANCE * max(1.0, abs(beta)):
            break
    return beta


def _record(
    slope: float,
    scores: FloatArray,
    information: float,
    labels: NDArray[Any] | None,
    quantity: str,
    level: float,
    counts: dict[str, Any],
) -> Estimate:
    """`scores` [g] and `information` are those of the slope in the regressor's own unit."""
    if labels is None:
        error = 1 / math.sqrt(information)
        reach = normal_quantile(0.5 + level / 2) * error
        p_value, n_clusters, few = normal_two_sided(slope / error), None, False
    else:
        codes, n_clusters = codes_of(labels, len(scores))
        if n_clusters < 2:
            return Estimate(
                quantity=quantity, estimate=slope, n_units=len(scores), n_clusters=n_clusters,
                flags=(TOO_FEW_CLUSTERS,), **counts,
            )  # fmt: skip
        sums = group_sums(scores, codes, n_clusters)
        factor = n_clusters / (n_clusters - 1)
        error = math.sqrt(factor * float((sums**2).sum())) / information
        reach = t_quantile(0.5 + level / 2, n_clusters - 1) * error
        few = n_clusters < MIN_CLUSTERS
        p_value = math.nan if few else t_two_sided(slope / error, n_clusters - 1)
    return Estimate(
        quantity=quantity,
        estimate=slope,
        ci_low=slope - reach,
        ci_high=slope + reach,
        p_value=p_value,
        n_units=len(scores),
        n_clusters=n_clusters,
        flags=(TOO_FEW_CLUSTERS,) if few else (),
        **counts,
    )
