"""What plans did to units: differences paired by unit, and their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.stats.quantiles import t_quantile

FloatArray = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Effect:
    """Mean difference over units with its 95 % t interval; sd of the units' differences."""

    estimate: float
    sd: float
    n: int
    ci_low: float
    ci_high: float

    def to_dict(self) -> dict[str, Any]:
        """JSON; undefined numbers are null."""
        found = {"estimate": self.estimate, "ci_low": self.ci_low, "ci_high": self.ci_high}
        numbers = {**found, "sd": self.sd}
        return {
            **{k: _rounded(v) if math.isfinite(v) else None for k, v in numbers.items()},
            "n": self.n,
        }


def effect_of(values: FloatArray) -> Effect:
    """values [units]: differences, of which those not finite are left out."""
    kept = values[np.isfinite(values)]
    n = len(kept)
    if n == 0:
        return Effect(math.nan, math.nan, 0, math.nan, math.nan)
    mean = float(kept.mean())
    if n == 1:
        return Effect(mean, math.nan, 1, math.nan, math.nan)
    sd = float(kept.std(ddof=1))
    reach = t_quantile(0.5 + LEVEL / 2, n - 1) * sd / math.sqrt(n)
    return Effect(mean, sd, n, mean - reach, mean + reach)


def unit_means(rows: Sequence[Mapping[str, Any]], units: Sequence[str], metric: str) -> FloatArray:
    """[units] mean of a metric over the items of each unit; NaN for a unit without a number."""
    place = {unit: i for i, unit in enumerate(units)}
    sums, counts = np.zeros(len(units)), np.zeros(len(units))
    for row in rows:
        i, value = place.get(row["unit"]), row[metric]
        if i is not None and value is not None and math.isfinite(value):
            sums[i] += value
            counts[i] += 1
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.nan)


def differences(
    rows: Sequence[Mapping[str, Any]],
    against: Sequence[Mapping[str, Any]],
    units: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, FloatArray]:
    """By metric, [units] plan minus against; NaN for a unit that lacks one of the two."""
    return {
        metric: unit_means(rows, units, metric) - unit_means(against, units, metric)
        for metric in metrics
    }


def _rounded(value: float) -> float:
    """Six significant digits: what an agent reads is the same on every machine."""
    return float(f"{value:.6g}")
