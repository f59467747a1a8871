"""How much accuracy depends on the wording: spread over templates beyond sampling noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.intervals import two_way_mean
from interpflow.stats.paired import cochran_q
from interpflow.stats.record import EMPTY_CELL, FLOORED_AT_ZERO, Estimate, undefined

DEFAULT_RESAMPLES = 1999


@dataclass(frozen=True)
class TemplateSensitivity:
    """Accuracy over wordings of the same items.

    `sd_corrected` removes the sampling noise of the per-template accuracies; `range_null_mean`
    and `range_null_95` describe the range that identical templates would show on these items.
    """

    mean: Estimate
    accuracies: NDArray[np.float64]
    sd: float
    sd_corrected: float
    range: Estimate
    range_null_mean: float
    range_null_95: float
    cochran: Estimate
    flags: tuple[str, ...]


@dataclass(frozen=True)
class CorrectedSpread:
    """Standard deviation over templates, raw and noise-corrected, with the range."""

    sd: float
    sd_corrected: float
    range: float
    floored: bool


def corrected_spread(accuracies: ArrayLike, n_items: int) -> CorrectedSpread:
    """Spread of accuracies [templates], each on its own `n_items` independent items.

    σ̂² = s²(acc) − mean(acc(1 − acc)/n), floored at 0.
    """
    rates = np.asarray(accuracies, dtype=np.float64)
    if len(rates) < 2 or n_items < 1:
        return CorrectedSpread(math.nan, math.nan, math.nan, False)
    raw = float(rates.var(ddof=1))
    corrected = raw - float((rates * (1 - rates)).mean()) / n_items
    return CorrectedSpread(
        math.sqrt(raw), math.sqrt(max(corrected, 0.0)), float(np.ptp(rates)), corrected < 0
    )


def _crossed_spread(table: NDArray[np.float64]) -> tuple[float, bool]:
    """SD over templates when all share the items: s²(column means) − MS_residual/items."""
    n_items, n_templates = table.shape
    columns, rows, grand = table.mean(axis=0), table.mean(axis=1), table.mean()
    residual = table - columns - rows[:, None] + grand
    mean_square = float((residual**2).sum()) / max((n_items - 1) * (n_templates - 1), 1)
    variance = float(columns.var(ddof=1)) - mean_square / n_items
    return math.sqrt(max(variance, 0.0)), variance < 0


def _null_ranges(table: NDArray[np.float64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Ranges of template accuracy when answers are permuted over templates within each item."""
    rng = np.random.default_rng(seed)
    n_items, n_templates = table.shape
    # Items answered alike under every template stay as they are: only the others are shuffled.
    mixed = table[(table.sum(axis=1) > 0) & (table.sum(axis=1) < n_templates)]
    ranges = np.empty(n_resamples)
    for index in range(n_resamples):
        ranges[index] = np.ptp(rng.permuted(mixed, axis=1).sum(axis=0)) / n_items
    return ranges


def template_sensitivity(
    correct: ArrayLike,
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    level: float = 0.95,
) -> TemplateSensitivity:
    """Sensitivity of accuracy to wording; `correct` bool [items, templates], fully crossed.

    Mean with a two-way clustered interval, template spread corrected for noise, the range against
    its permutation null (templates exchangeable within an item), Cochran's Q.
    Raises UserError unless there are at least two templates.
    """
    table = np.asarray(correct, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise UserError(f"template sensitivity needs [items, ≥ 2 templates], got {table.shape}")
    n_items, n_templates = table.shape
    if n_items == 0:
        missing = undefined("accuracy over templates", EMPTY_CELL)
        empty = np.full(n_templates, math.nan)
        nan = math.nan
        return TemplateSensitivity(missing, empty, nan, nan, missing, nan, nan, missing, ())
    rates = table.mean(axis=0)
    corrected, floored = _crossed_spread(table)
    null = _null_ranges(table, n_resamples, seed)
    observed = float(np.ptp(rates))
    mean = two_way_mean(
        table.ravel(),
        np.repeat(np.arange(n_items), n_templates),
        np.tile(np.arange(n_templates), n_items),
        quantity="accuracy over templates",
        level=level,
        null=math.nan,
        is_proportion=True,
    )
    spread_range = Estimate(
        quantity="range over templates",
        estimate=observed,
        p_value=float((1 + np.sum(null >= observed - 1e-12)) / (n_resamples + 1)),
        test="permutation_within_item",
        n_units=n_items,
        n_resamples=n_resamples,
        seed=seed,
    )
    return TemplateSensitivity(
        mean=mean,
        accuracies=rates,
        sd=float(rates.std(ddof=1)),
        sd_corrected=corrected,
        range=spread_range,
        range_null_mean=float(null.mean()),
        range_null_95=float(np.quantile(null, 0.95)),
        cochran=cochran_q(table),
        flags=(FLOORED_AT_ZERO,) if floored else (),
    )


def rank_stability(accuracies: ArrayLike) -> float:
    """Mean Kendall τ-b of the models' ranking over pairs of templates; [models, templates].

    NaN with fewer than two models or templates, or when no pair of templates is defined.
    """
    from scipy.stats import kendalltau

    rates = np.asarray(accuracies, dtype=np.float64)
    if rates.ndim != 2 or min(rates.shape) < 2:
        return math.nan
    taus = [
        float(np.asarray(kendalltau(rates[:, i], rates[:, j])[0]))
        for i in range(rates.shape[1])
        for j in range(i)
    ]
    return float(np.nanmean(taus)) if np.isfinite(taus).any() else math.nan
