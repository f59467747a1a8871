"""Rows of the table `estimates` of this study, and the contrasts that most of them come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import SurgeryAnalysis
from interpflow.stats.paired_contrasts import paired_contrasts
from interpflow.stats.power import DEFAULT_ALPHA, detectable_mean
from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import Estimate, undefined

Row = dict[str, Any]
FloatArray = NDArray[np.float64]

STUDY = "layer_surgery"
# More draws than this do not change a max-T p-value that anybody would act upon; the endpoints,
# which are few, take all that the config asks for.
MAX_FAMILY_DRAWS = 1999


@dataclass(frozen=True)
class Analyst:
    """Which model is analysed, and how: what every row has in common."""

    model: str
    settings: SurgeryAnalysis
    seed: int

    def row(self, analysis: str, factor: str, level: str, estimate: Estimate) -> Row:
        """One row of `estimates`."""
        return {
            "study": STUDY, "model": self.model, "analysis": analysis, "factor": factor,
            "level": level, **estimate.to_row(),
        }  # fmt: skip

    def seed_of(self, *names: str) -> int:
        return derived_seed(self.seed, STUDY, self.model, *names)

    def changes(
        self,
        analysis: str,
        factor: str,
        levels: Sequence[str],
        differences: FloatArray,
        *,
        clusters: NDArray[Any] | None = None,
        quantity: str,
    ) -> list[Row]:
        """Mean differences [units, levels] from the intact model, one family under max-T, and
        beside each that is not significant the smallest one that these units would have shown."""
        family = f"{analysis} by {factor}"
        if not len(levels):
            return []
        found = paired_contrasts(
            differences, clusters=clusters, quantity=quantity, level=self.settings.level,
            n_resamples=min(self.settings.n_permutations, MAX_FAMILY_DRAWS),
            seed=self.seed_of(analysis, factor), family=family,
        )  # fmt: skip
        rows = []
        for level, estimate in zip(levels, found, strict=True):
            rows.append(self.row(analysis, factor, level, estimate))
            if estimate.defined and not estimate.p_adjusted <= DEFAULT_ALPHA:
                rows.append(
                    self.row(analysis, factor, level, detectable(estimate, n_tests=len(levels)))
                )
        return rows


def detectable(estimate: Estimate, *, n_tests: int = 1) -> Estimate:
    """The smallest effect seen with 80 % power, from the standard error of a t interval."""
    quantity = "smallest detectable change"
    n = estimate.n_clusters or estimate.n_units
    if n < 2 or math.isnan(estimate.half_width):
        return undefined(quantity, *estimate.flags, test="power_0.8", n_units=estimate.n_units)
    error = estimate.half_width / t_quantile(0.5 + estimate.ci_level / 2, n - 1)
    return Estimate(
        quantity=quantity,
        estimate=detectable_mean(error * math.sqrt(n), n, n_tests=n_tests),
        test="power_0.8",
        n_units=estimate.n_units,
        n_clusters=estimate.n_clusters,
        family=estimate.family,
    )
