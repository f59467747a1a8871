"""Regressions that statsmodels fits: population-average logistic, and a random intercept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interpflow.stats.quantiles import normal_quantile, normal_two_sided
from interpflow.stats.record import (
    MIN_CLUSTERS,
    NO_VARIATION,
    NOT_CONVERGED,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)

# Below this many groups the robust variance of a GEE is corrected for its bias (Mancl & DeRouen).
_FEW_GROUPS = 50


def gee_slope(
    outcomes: ArrayLike,
    regressor: ArrayLike,
    groups: ArrayLike,
    *,
    quantity: str = "population-average slope",
    level: float = 0.95,
) -> Estimate:
    """Slope of 0/1 `outcomes` [n] on `regressor` [n], averaged over groups (Liang & Zeger 1986).

    Logistic, exchangeable correlation within `groups` [n], robust standard error. Smaller than the
    slope within groups by the spread between them: the two are never pooled.
    """
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    y, x = (np.asarray(values, dtype=np.float64) for values in (outcomes, regressor))
    kept = np.isfinite(y) & np.isfinite(x)
    y, x, labels = y[kept], x[kept], np.asarray(groups)[kept]
    n_groups = len(np.unique(labels))
    counts: dict[str, Any] = {
        "ci_level": level, "test": "gee_logistic", "n_units": n_groups, "n_clusters": n_groups,
        "n_dropped": int((~kept).sum()),
    }  # fmt: skip
    if len(y) == 0 or np.ptp(y) == 0 or np.ptp(x) == 0 or n_groups < 2:
        return undefined(quantity, NO_VARIATION, **counts)
    spread = float(x.std())
    _, codes = np.unique(labels, return_inverse=True)
    design = np.column_stack([np.ones_like(x), x / spread])
    model = GEE(y, design, groups=codes, family=Binomial(), cov_struct=Exchangeable())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit: Any = model.fit(cov_type="bias_reduced" if n_groups < _FEW_GROUPS else "robust")
    slope, error = float(fit.params[1]) / spread, float(fit.bse[1]) / spread
    if not (fit.converged and math.isfinite(slope) and error > 0):
        return undefined(quantity, NOT_CONVERGED, **counts)
    reach = normal_quantile(0.5 + level / 2) * error
    few = n_groups < MIN_CLUSTERS
    return Estimate(
        quantity=quantity,
        estimate=slope,
        ci_low=slope - reach,
        ci_high=slope + reach,
        p_value=math.nan if few else normal_two_sided(slope / error),
        flags=(TOO_FEW_CLUSTERS,) if few else (),
        **counts,
    )


def random_intercept(
    values: ArrayLike,
    conditions: ArrayLike,
    groups: ArrayLike,
    *,
    baseline: str,
    level: float = 0.95,
) -> tuple[tuple[str, ...], tuple[Estimate, ...]]:
    """Mean of each condition minus the baseline's under a random intercept for each group, by
    REML: the names of the conditions, and their records.

    `values` [n], `conditions` [n] (strings), `groups` [n]. Flagged where the fit does not converge
    or the groups' variance is 0. Gaussian errors, equal in all conditions: a second opinion beside
    contrasts within units.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM

    y, labels = np.asarray(values, dtype=np.float64), np.asarray(conditions)
    kept = np.isfinite(y)
    y, labels, units = y[kept], labels[kept], np.asarray(groups)[kept]
    names = tuple(str(name) for name in sorted(set(labels.tolist()) - {baseline}))
    n_groups = len(np.unique(units))
    counts: dict[str, Any] = {
        "ci_level": level, "test": "mixed_random_intercept", "n_units": n_groups,
        "n_clusters": n_groups, "n_dropped": int((~kept).sum()),
    }  # fmt: skip
    quantity = "difference by a mixed model"
    present = baseline in labels
    if not names or not present or n_groups < 2 or len(y) <= len(names) + 2 or np.ptp(y) == 0:
        return names, (undefined(quantity, NO_VARIATION, **counts),) * len(names)
    spread = float(y.std())
    design = np.column_stack([np.ones_like(y), *(labels == name for name in names)]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit: Any = MixedLM(y / spread, design, groups=units).fit(reml=True)
        except np.linalg.LinAlgError:
            return names, (undefined(quantity, NOT_CONVERGED, **counts),) * len(names)
    flags = () if fit.converged and float(np.asarray(fit.cov_re)[0, 0]) > 0 else (NOT_CONVERGED,)
    return names, _mixed_records(fit, names, spread, quantity, level, flags, counts)


def _mixed_records(
    fit: Any,
    names: Sequence[str],
    spread: float,
    quantity: str,
    level: float,
    flags: tuple[str, ...],
    counts: dict[str, Any],
) -> tuple[Estimate, ...]:
    params = np.asarray(fit.fe_params) * spread
    errors = np.asarray(fit.bse_fe) * spread
    reach = normal_quantile(0.5 + level / 2)
    return tuple(
        Estimate(
            quantity=quantity,
            estimate=params[i],
            ci_low=params[i] - reach * errors[i],
            ci_high=params[i] + reach * errors[i],
            p_value=normal_two_sided(float(params[i] / errors[i])),
            flags=flags,
            **counts,
        )
        for i in range(1, len(names) + 1)
    )
