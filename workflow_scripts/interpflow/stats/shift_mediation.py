"""Observational mediation: does the loss of accuracy go along with a shift inside the prompt?

The mediator is not randomised. A common cause of shift and error gives the same numbers as a
mechanism does; only an intervention tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, Estimate, undefined
from interpflow.stats.units import codes_of, complete_units, group_sums
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS, draw_weights

FloatArray = NDArray[np.float64]

QUANTITIES = (
    "total effect",
    "indirect effect through the shift",
    "direct effect",
    "residual correlation at which the indirect effect is 0",
)
# Residual correlations of shift and outcome at which the indirect effect is stated.
CORRELATIONS = (-0.5, -0.3, -0.1, 0.1, 0.3, 0.5)


@dataclass(frozen=True)
class ShiftMediation:
    """Estimates of one mediator, all observational.

    `total` = `indirect` + `direct`. `zero_correlation`: the correlation of the two regressions'
    errors that alone would explain the indirect effect (small: fragile). `sensitivity`: the
    indirect effect if that correlation were each of `CORRELATIONS`.
    """

    total: Estimate
    indirect: Estimate
    direct: Estimate
    zero_correlation: Estimate
    sensitivity: tuple[Estimate, ...]

    def estimates(self) -> tuple[Estimate, ...]:
        return (self.total, self.indirect, self.direct, self.zero_correlation, *self.sensitivity)


def shift_mediation(
    treated: ArrayLike,
    shift: ArrayLike,
    outcome: ArrayLike,
    prompts: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    correlations: Sequence[float] = CORRELATIONS,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> ShiftMediation:
    """Product of coefficients with prompt fixed effects, intervals by cluster bootstrap (BCa).

    All [rows]: `treated` 0/1, `shift` the mediator, `outcome` (1 right, 0 wrong), `prompts` labels
    of the base prompt, `clusters` labels of what was sampled independently (None: the prompt).
    shift = α_prompt + a·treated + e₁, outcome = γ_prompt + c'·treated + b·shift + e₂; indirect ab.
    Sensitivity after Imai, Keele & Yamamoto (2010), theorem 2: with ρ the correlation of e₁, e₂,
    ab(ρ) = a·(σ₁/σ₂)·(r − ρ·√((1 − r²)/(1 − ρ²))), where r is the correlation of the errors of
    outcome and shift on the treatment alone. Incomplete rows are left out and counted.
    """
    labels = np.asarray(prompts) if clusters is None else np.asarray(clusters)
    units = complete_units(treated, shift, outcome, clusters=labels)
    names = [*QUANTITIES, *(f"indirect effect if the correlation were {r:g}" for r in correlations)]
    counts = {"n_clusters": units.n_groups, "n_dropped": units.n_dropped, "ci_level": level}
    prompt_codes, n_prompts = codes_of(np.asarray(prompts)[units.kept], units.n_rows)
    if units.n_rows == 0:
        return _named([undefined(name, EMPTY_CELL, **counts) for name in names])
    data = np.column_stack(units.columns)
    sizes = np.bincount(prompt_codes, minlength=n_prompts)[:, None]
    data = data - (group_sums(data, prompt_codes, n_prompts) / sizes)[prompt_codes]
    t, m, y = data.T
    products = np.column_stack([t * t, t * m, t * y, m * m, m * y, y * y])
    sums = group_sums(products, units.codes, units.n_groups)
    if not (sums.sum(axis=0)[[0, 3, 5]] > 0).all():
        return _named([undefined(name, NO_VARIATION, **counts) for name in names])

    def statistic(weights: FloatArray) -> FloatArray:
        return _effects(weights @ sums, correlations)

    draws = draw_weights(statistic, units.n_groups, n_resamples=n_resamples, seed=seed)
    return _named(
        [
            draws.estimate(
                i, name, level=level, n_units=units.n_rows, n_clusters=units.n_groups,
                n_dropped=units.n_dropped, flags=("OBSERVATIONAL",),
            )
            for i, name in enumerate(names)
        ]
    )  # fmt: skip


def _named(found: Sequence[Estimate]) -> ShiftMediation:
    return ShiftMediation(found[0], found[1], found[2], found[3], tuple(found[4:]))


def _effects(sums: FloatArray, correlations: Sequence[float]) -> FloatArray:
    """Quantities [b, 4 + correlations] from sums of within-prompt products [b, 6]."""
    tt, tm, ty, mm, my, yy = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        a, total = tm / tt, ty / tt
        spread_shift = mm - tm**2 / tt
        spread_outcome = yy - ty**2 / tt
        shared = my - tm * ty / tt
        slope = np.where(spread_shift > 1e-12 * mm, shared / spread_shift, np.nan)
        r = shared / np.sqrt(spread_shift * spread_outcome)
        scale = a * np.sqrt(spread_outcome / spread_shift)
        moved = [scale * (r - rho * np.sqrt((1 - r**2) / (1 - rho**2))) for rho in correlations]
    return np.column_stack([total, a * slope, total - a * slope, r, *moved])
