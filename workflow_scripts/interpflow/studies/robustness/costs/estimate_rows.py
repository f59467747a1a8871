"""Rows of the table `estimates` of this study, and the contrasts that most of them come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis
from interpflow.stats.clustered_share import mean_share
from interpflow.stats.intervals import mean_interval
from interpflow.stats.paired_contrasts import paired_contrasts
from interpflow.stats.record import Estimate
from interpflow.studies.robustness.costs.outcomes import level_means

FloatArray = NDArray[np.float64]

Row = dict[str, Any]

STUDY = "robustness"
CLEAN_LEVEL = "clean"  # the prompts themselves, among the levels of the factor operator
ACCEPTED = " (accepted)"  # after the name of an analysis of accepted variants alone


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of their keys, in the order of these."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    return dict(sorted(found.items()))


def means_by(rows: Iterable[Row], key: str, value: str) -> dict[str, float]:
    """Mean of a column by the values of another; rows without a value are left out."""
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        if row[value] is not None:
            total, n = sums.get(row[key], (0.0, 0))
            sums[row[key]] = (total + float(row[value]), n + 1)
    return {name: total / n for name, (total, n) in sums.items()}


@dataclass(frozen=True)
class Analyst:
    """Whose answers are analysed, and how: what every row has in common."""

    model: str
    settings: RobustnessAnalysis
    seed: int
    clusters: NDArray[Any] | None

    def row(self, analysis: str, factor: str, level: str, estimate: Estimate) -> Row:
        """One row of `estimates`."""
        return {
            "study": STUDY,
            "model": self.model,
            "analysis": analysis,
            "factor": factor,
            "level": level,
            **estimate.to_row(),
        }

    def rows(
        self, analysis: str, factor: str, level: str, estimates: Iterable[Estimate]
    ) -> list[Row]:
        return [self.row(analysis, factor, level, estimate) for estimate in estimates]

    def contrasts(
        self,
        analysis: str,
        factor: str,
        differences: FloatArray,
        *,
        quantity: str = "change",
    ) -> tuple[Estimate, ...]:
        """`paired_contrasts` of [bases, levels] at this study's settings and seed."""
        return paired_contrasts(
            differences,
            clusters=self.clusters,
            quantity=quantity,
            level=self.settings.level,
            n_resamples=self.settings.n_permutations,
            seed=derived_seed(self.seed, self.model, analysis, factor),
            family=f"{analysis} by {factor}",
        )

    def changes(
        self,
        analysis: str,
        means: FloatArray,
        baseline: FloatArray,
        factors: Mapping[str, Mapping[str, list[int]]],
        *,
        is_proportion: bool = False,
    ) -> list[Row]:
        """For every factor and level: the mean, and its change from the baseline.

        `means` [bases, conditions], `baseline` [bases], of the same prompts; a prompt without a
        baseline is left out of both.
        """
        rows: list[Row] = []
        given = np.where(np.isfinite(baseline), 0.0, np.nan)[:, None]
        for factor, levels in factors.items():
            values = level_means(means, dict(levels)) + given
            found = self.contrasts(analysis, factor, values - baseline[:, None])
            for place, (level, change) in enumerate(zip(levels, found, strict=True)):
                mean = self.mean(values[:, place], is_proportion=is_proportion)
                rows += self.rows(analysis, factor, level, (change, mean))
        clean = self.mean(baseline, is_proportion=is_proportion)
        return [self.row(analysis, "operator", CLEAN_LEVEL, clean), *rows]

    def mean(
        self, values: FloatArray, *, quantity: str = "mean", is_proportion: bool = False
    ) -> Estimate:
        """Mean of [bases] with its clustered interval and no test."""
        level, clusters = self.settings.level, self.clusters
        if is_proportion:
            return mean_share(values, clusters=clusters, quantity=quantity, level=level)
        return mean_interval(
            values, clusters=clusters, quantity=quantity, level=level, null=float("nan")
        )
