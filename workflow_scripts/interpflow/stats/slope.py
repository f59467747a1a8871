"""The running-count slope: how much of a patched-in count change arrives in the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from interpflow.errors import UserError
from interpflow.stats.equivalence import ZERO_BOUNDS, Equivalence, tost
from interpflow.stats.intervals import mean_interval, t_estimate
from interpflow.stats.record import NO_VARIATION, Estimate, undefined
from interpflow.stats.units import Units, codes_of, complete_units, group_sums

FloatArray = NDArray[np.float64]

# A slope whose lower limit exceeds this is a route that matters; inside the second bounds, the
# only route.
PRESENT_ABOVE = 0.1
SOLE_ROUTE_BOUNDS = (0.8, 1.2)

Verdict = Literal["sole route", "present", "absent", "undetermined"]


@dataclass(frozen=True)
class SlopeMap:
    """Slopes through the origin per cell: arrays [cells]; NaN where no dose varies."""

    slope: FloatArray
    error: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    n_units: NDArray[np.intp]
    n_clusters: int | None
    ci_level: float


def _dosed(dose: ArrayLike, response: ArrayLike, clusters: ArrayLike | None) -> Units:
    """Complete rows with a dose other than 0: the others say nothing about a slope through 0."""
    doses = np.asarray(dose, dtype=np.float64)
    responses = np.asarray(response, dtype=np.float64)
    moved = doses != 0
    labels = None if clusters is None else np.asarray(clusters)[moved]
    return complete_units(doses[moved], responses[moved], clusters=labels)


def _slope_variance(units: Units) -> tuple[float, float]:
    doses, responses = units.columns
    power = float((doses**2).sum())
    slope = float((doses * responses).sum()) / power
    if units.n_groups < 2:
        return slope, float("nan")
    scores = group_sums(doses * (responses - slope * doses), units.codes, units.n_groups)
    factor = units.n_groups / (units.n_groups - 1)
    return slope, factor * float((scores**2).sum()) / power**2


def slope_through_origin(
    dose: ArrayLike,
    response: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "slope",
    level: float = 0.95,
) -> Estimate:
    """β = Σδ∆/Σδ² with HC1 or cluster-robust standard error and t_{G−1} interval.

    `dose` δ [n] (change of the running count put in), `response` ∆ [n] (change of the expected
    count that came out). 1: the whole count passes through the site; 0: none. Rows with δ = 0
    carry no information and are not counted as units.
    """
    units = _dosed(dose, response, clusters)
    if units.n_rows == 0:
        return undefined(quantity, NO_VARIATION, ci_level=level, n_dropped=units.n_dropped)
    slope, variance = _slope_variance(units)
    name = "slope_hc1_t" if clusters is None else "slope_cluster_t"
    return t_estimate(slope, variance, units, quantity=quantity, level=level, name=name)


def slope_equivalence(
    dose: ArrayLike,
    response: ArrayLike,
    *,
    low: float = ZERO_BOUNDS[0],
    high: float = ZERO_BOUNDS[1],
    clusters: ArrayLike | None = None,
    quantity: str = "slope",
    alpha: float = 0.05,
) -> Equivalence:
    """Whether the slope lies inside (low, high): a control passes by this, not by p > 0.05."""
    units = _dosed(dose, response, clusters)
    if units.n_rows == 0:
        missing = undefined(quantity, NO_VARIATION, ci_level=1 - 2 * alpha, test="tost")
        return Equivalence(missing, low, high, False)
    slope, variance = _slope_variance(units)
    return tost(slope, variance, units, low=low, high=high, quantity=quantity, alpha=alpha)


def slope_verdict(
    dose: ArrayLike, response: ArrayLike, *, clusters: ArrayLike | None = None
) -> Verdict:
    """What the slope shows of the route: sole, present, absent, or not decided by these data."""
    slope = slope_through_origin(dose, response, clusters=clusters)
    low, high = SOLE_ROUTE_BOUNDS
    if slope_equivalence(dose, response, low=low, high=high, clusters=clusters).equivalent:
        return "sole route"
    if slope.ci_low > PRESENT_ABOVE:
        return "present"
    if slope_equivalence(dose, response, clusters=clusters).equivalent:
        return "absent"
    return "undetermined"


def slope_map(
    dose: ArrayLike,
    response: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> SlopeMap:
    """`slope_through_origin` for every cell: `dose` [n] or [n, cells], `response` [n, cells].

    Non-finite responses leave their row out of that cell only.
    """
    responses = np.asarray(response, dtype=np.float64)
    doses = np.asarray(dose, dtype=np.float64)
    doses = doses[:, None] if doses.ndim == 1 else doses
    if responses.ndim != 2 or doses.shape not in {(len(responses), 1), responses.shape}:
        raise UserError(
            f"a slope map needs doses [n] or [n, cells] and responses [n, cells], "
            f"got {doses.shape} and {responses.shape}"
        )
    present = np.isfinite(responses) & np.isfinite(doses) & (doses != 0)
    x = np.where(present, doses, 0.0)
    y = np.where(present, responses, 0.0)
    codes, n_groups = codes_of(clusters, len(y))
    with np.errstate(divide="ignore", invalid="ignore"):
        power = (x**2).sum(axis=0)
        slope = np.where(power > 0, (x * y).sum(axis=0) / power, np.nan)
        scores = group_sums(np.where(present, x * (y - slope * x), 0.0), codes, n_groups)
        groups = (group_sums(present, codes, n_groups) > 0).sum(axis=0)
        factor = np.where(groups > 1, groups / (groups - 1), np.nan)
        error = np.sqrt(factor * (scores**2).sum(axis=0)) / power
    reach = stdtrit(np.maximum(groups - 1, 1), 0.5 + level / 2) * error
    return SlopeMap(
        slope=slope,
        error=error,
        ci_low=slope - reach,
        ci_high=slope + reach,
        n_units=present.sum(axis=0),
        n_clusters=None if clusters is None else n_groups,
        ci_level=level,
    )


def slope_contrast(dose: ArrayLike, real: ArrayLike, placebo: ArrayLike) -> FloatArray:
    """δ·(∆_real − ∆_placebo)/mean δ² per pair: its mean is the difference of the two slopes.

    `dose` [n], `real`, `placebo` [n] or [n, cells]. Feed it to `sign_flip` or `max_t`: under the
    null real and placebo donors are exchangeable, so the contrast is symmetric about 0.
    """
    doses = np.asarray(dose, dtype=np.float64)
    difference = np.asarray(real, dtype=np.float64) - np.asarray(placebo, dtype=np.float64)
    scale = doses / np.mean(doses**2)
    return difference * (scale if difference.ndim == 1 else scale[:, None])


def shifted_accuracy(
    answer: ArrayLike,
    base_answer: ArrayLike,
    dose: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Share of patched answers equal to the base answer plus the dose, over pairs with dose ≠ 0.

    All [n], counts; an unparsed (NaN) patched answer is wrong, an unparsed base drops the pair.
    """
    patched, base, shift = (np.asarray(x, dtype=np.float64) for x in (answer, base_answer, dose))
    moved = (shift != 0) & np.isfinite(shift) & np.isfinite(base)
    dropped = int(np.sum((shift != 0) & ~(np.isfinite(shift) & np.isfinite(base))))
    hits = (patched == base + shift)[moved].astype(np.float64)
    labels = None if clusters is None else np.asarray(clusters)[moved]
    found = mean_interval(
        hits,
        clusters=labels,
        quantity="shifted interchange accuracy",
        level=level,
        is_proportion=True,
    )
    return replace(found, n_dropped=dropped)
