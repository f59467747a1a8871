"""Scores of sites from effects per pair, and how sure their ranking is over prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.ranking import (
    Measure,
    RankingScore,
    auprc,
    auroc,
    checked_labels,
    ranking_measure,
)
from interpflow.stats.record import SINGLE_CLASS, Estimate, undefined
from interpflow.stats.units import codes_of, group_sums
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS, draw_weights

FloatArray = NDArray[np.float64]

SiteScore = Literal["mean", "t"]

# Numbers held at once while scoring resamples: 2e6 float64 is 16 MB per temporary.
_BLOCK = 2_000_000
# Variance of a cell, relative to its squared mean, that rounding alone can produce.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class SiteRanking:
    """A ranking of sites scored against truth.

    `score` is the measure on all pairs with its base rate, `interval` the same number with the
    bootstrap interval over pairs, `site_scores` [sites] what was ranked.
    """

    score: RankingScore
    interval: Estimate
    site_scores: FloatArray


@dataclass(frozen=True)
class _Sums:
    """Numbers and sums of the finite effects by group, [groups, cells] each; `shape` of a pair."""

    count: FloatArray
    total: FloatArray
    shape: tuple[int, ...]

    def scores(self, weights: FloatArray, score: SiteScore) -> FloatArray:
        """Site scores [b, sites] under group weights [b, groups]."""
        count = weights @ self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = weights @ self.total / count
            size = np.abs(mean)
            if score == "t":
                size = np.where(mean == 0, 0.0, size / self._error(weights, count, mean))
        cells = np.where(np.isnan(size), -np.inf, size)
        best = cells.reshape(len(weights), self.shape[0], -1).max(axis=2)
        return np.where(np.isneginf(best), np.nan, best)

    def _error(self, weights: FloatArray, count: FloatArray, mean: FloatArray) -> FloatArray:
        """Standard error of the means [b, cells] by the CR1 sandwich; NaN with one group."""
        squares = weights @ self.total**2 - 2 * mean * (weights @ (self.total * self.count))
        squares += mean**2 * (weights @ self.count**2)
        groups = weights @ (self.count > 0)
        variance = squares / count**2 * groups / (groups - 1)
        rounding = variance <= _ROUNDING * mean**2
        return np.sqrt(np.where(rounding, 0.0, variance))


def site_scores(effects: ArrayLike, *, score: SiteScore = "mean") -> FloatArray:
    """Score of every site [sites]: |mean effect| over pairs, or |mean|/SE ("t").

    `effects` [pair, site] or [pair, site, place, …]: over the places of a site (positions,
    directions) the largest counts. Effects that are not finite are left out of their cell. A mean
    of exactly 0 scores 0; equal effects that are not 0 score ∞ by "t"; a site without a finite
    effect ("t": without two) scores NaN. Raises UserError for an unknown score.
    """
    sums = _sums(effects, None, score)
    return sums.scores(np.ones((1, len(sums.count))), score)[0]


def rank_sites(
    effects: ArrayLike,
    labels: ArrayLike,
    *,
    measure: Measure = "auroc",
    score: SiteScore = "mean",
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> SiteRanking:
    """AUROC or AUPRC of the site scores against truth, with a bootstrap interval over pairs.

    `effects` as in `site_scores`, `labels` bool [sites], `clusters` [pair] labels of pairs that
    were not drawn independently (None: every pair by itself). Sites are fixed, only pairs are
    resampled: the interval is for the score expected with this many pairs of the same kind, which
    lies below what an endless supply would give. It is ± t·SE and not made of quantiles, because
    noise on noise blurs the ranking of every draw (simulated coverage .93–.99, BCa .2–.9). When no
    draw moves the score (classes far apart) there is no interval but a flag.
    Raises UserError for misfitting shapes, an unknown measure or score, or a site without score.
    """
    sums = _sums(effects, clusters, score)
    n_pairs, n_groups = np.shape(effects)[0], len(sums.count)
    positive = checked_labels(labels, sums.shape[0])
    scores = sums.scores(np.ones((1, n_groups)), score)[0]
    on_all = (auroc if measure == "auroc" else auprc)(scores, positive)
    scored = ranking_measure(measure)
    if not on_all.defined:
        missing = undefined(on_all.quantity, SINGLE_CLASS, n_units=n_pairs, ci_level=level)
        return SiteRanking(on_all, missing, scores)

    def of_weights(weights: FloatArray) -> FloatArray:
        step = max(1, _BLOCK // sums.count.shape[1])
        values = [
            np.nan if np.isnan(row).any() else scored(row, positive)
            for start in range(0, len(weights), step)
            for row in sums.scores(weights[start : start + step], score)
        ]
        return np.array(values)

    draws = draw_weights(of_weights, n_groups, n_resamples=n_resamples, seed=seed)
    interval = draws.error_estimate(
        0,
        on_all.quantity,
        level=level,
        bounds=(0.0, 1.0),
        n_units=n_pairs,
        n_clusters=None if clusters is None else n_groups,
    )
    return SiteRanking(on_all, interval, scores)


def _sums(effects: ArrayLike, clusters: ArrayLike | None, score: SiteScore) -> _Sums:
    values = np.asarray(effects, dtype=np.float64)
    if values.ndim < 2 or 0 in values.shape:
        raise UserError(
            f"effects have shape {values.shape}, not [pair, site] or [pair, site, place]",
            where="effects",
        )
    if score not in ("mean", "t"):
        raise UserError(f"unknown site score {score!r}", remedy="use 'mean' or 't'")
    cells = values.reshape(len(values), -1)
    codes, n_groups = codes_of(clusters, len(values))
    finite = np.isfinite(cells)
    return _Sums(
        count=group_sums(finite, codes, n_groups),
        total=group_sums(np.where(finite, cells, 0.0), codes, n_groups),
        shape=values.shape[1:],
    )
