"""Bootstrap of statistics that are functions of unit weights: many quantities at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError
from interpflow.stats.bootstrap import bca_limits
from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
)

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]

DEFAULT_DRAWS = 1999
# Weights held at once while resampling: 5e5 float64 is 4 MB per temporary.
_BLOCK = 500_000
# Spread of the draws, relative to the estimate, that rounding alone can produce.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class WeightDraws:
    """What a resampling of `n_groups` units gave for m quantities.

    `observed` [m] at equal weights, `draws` [b, m], `left_out` [groups, m] with one unit left out.
    Quantities of one resampling share their draws, so differences of columns keep their pairing.
    """

    observed: FloatArray
    draws: FloatArray
    left_out: FloatArray
    n_groups: int
    seed: int

    def estimate(
        self, index: int, quantity: str, *, level: float = 0.95, spread: float = 1.0, **fields: Any
    ) -> Estimate:
        """The record of one quantity with its bias-corrected accelerated interval (Efron 1987).

        `spread` widens the draws around the estimate, for variation that resampling cannot see.
        NaN limits and a flag with fewer than three units or when nothing varies.
        """
        record, problem = self._record(index, quantity, level, "bootstrap_bca", fields)
        if problem:
            return Estimate(**record)
        observed = float(self.observed[index])
        draws = observed + spread * (self._finite(index) - observed)
        low, high = bca_limits(draws, self.left_out[:, index], observed, level)
        return Estimate(ci_low=low, ci_high=high, **record)

    def error_estimate(
        self,
        index: int,
        quantity: str,
        *,
        level: float = 0.95,
        bounds: tuple[float, float] = (-math.inf, math.inf),
        **fields: Any,
    ) -> Estimate:
        """The record of one quantity ± t_{G−1} times the standard deviation of its draws.

        For statistics whose draws are shifted against the estimate because resampling adds noise
        to a noisy score: their quantiles would miss. Limits are kept inside `bounds`.
        """
        record, problem = self._record(index, quantity, level, "bootstrap_se_t", fields)
        if problem:
            return Estimate(**record)
        observed = float(self.observed[index])
        reach = t_quantile(0.5 + level / 2, self.n_groups - 1) * self._finite(index).std(ddof=1)
        low, high = max(bounds[0], observed - reach), min(bounds[1], observed + reach)
        return Estimate(ci_low=low, ci_high=high, **record)

    def _finite(self, index: int) -> FloatArray:
        draws = self.draws[:, index]
        return draws[np.isfinite(draws)]

    def _record(
        self, index: int, quantity: str, level: float, test: str, fields: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        """Fields of the record, and whether they end there because no interval exists."""
        observed, draws = float(self.observed[index]), self._finite(index)
        flags = list(fields.pop("flags", ()))
        if self.n_groups < MIN_CLUSTERS:
            flags.append(TOO_FEW_CLUSTERS)
        still = len(draws) < 2 or np.ptp(draws) <= _ROUNDING * max(1.0, abs(observed))
        still = still or not np.isfinite(self.left_out[:, index]).all()
        if self.n_groups >= 3 and (still or not math.isfinite(observed)):
            flags.append(DEGENERATE_VARIANCE)
        record: dict[str, Any] = {
            "quantity": quantity,
            "estimate": observed,
            "ci_level": level,
            "test": test,
            "n_units": self.n_groups,
            "n_resamples": len(self.draws),
            "seed": self.seed,
            "flags": tuple(flags),
        } | fields
        return record, self.n_groups < 3 or DEGENERATE_VARIANCE in flags


def draw_weights(
    statistic: Statistic, n_groups: int, *, n_resamples: int = DEFAULT_DRAWS, seed: int
) -> WeightDraws:
    """Values of `statistic` under multinomial weights of `n_groups` exchangeable units.

    `statistic` maps weights [b, groups] to values [b] or [b, m]; weight w of a unit means that the
    unit is counted w times. Drawing rows and weighting units is the same bootstrap; weights let
    many draws be evaluated as one matrix product.
    Raises UserError when `n_resamples` < 1 or there are no units.
    """
    if n_resamples < 1:
        raise UserError("a bootstrap needs at least one resample", where="n_resamples")
    if n_groups < 1:
        raise UserError("a bootstrap needs at least one unit", where="n_groups")

    def on(weights: FloatArray) -> FloatArray:
        return np.asarray(statistic(weights), dtype=np.float64).reshape(len(weights), -1)

    rng = np.random.default_rng(seed)
    shares = np.full(n_groups, 1 / n_groups)
    block = max(1, _BLOCK // n_groups)
    drawn = []
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        drawn.append(on(rng.multinomial(n_groups, shares, size=size).astype(np.float64)))
    left_out = [
        on(1.0 - np.eye(n_groups)[start : start + block]) for start in range(0, n_groups, block)
    ]
    return WeightDraws(
        observed=on(np.ones((1, n_groups)))[0],
        draws=np.concatenate(drawn),
        left_out=np.concatenate(left_out),
        n_groups=n_groups,
        seed=seed,
    )
