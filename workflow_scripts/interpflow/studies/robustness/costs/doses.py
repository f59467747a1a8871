"""How accuracy falls with the dose: slopes, curve, trend, and the dose of a given loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interpflow.config.identity import derived_seed
from interpflow.stats.conditional_logit import conditional_logit
from interpflow.stats.population_models import gee_slope
from interpflow.stats.record import Estimate
from interpflow.stats.trend import dose_curve, page_trend
from interpflow.studies.robustness.costs.estimate_rows import ACCEPTED, Analyst, Row
from interpflow.studies.robustness.costs.outcomes import FloatArray, Outcomes, ladders


def dose_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Dose–response of every operator that was given at several doses.

    Logistic slopes on the delivered dose within prompts and over them, isotonic curve, Page's
    test, and the dose of a loss that would matter.
    """
    rows: list[Row] = []
    for kind in ("n_edits", "rate", "strength"):
        for operator, steps in ladders(outcomes.conditions, kind).items():
            for suffix in ("", ACCEPTED):
                rows += _dose_rows(analyst, outcomes, kind, operator, steps, suffix)
    return rows


def _dose_rows(
    analyst: Analyst,
    outcomes: Outcomes,
    kind: str,
    operator: str,
    steps: Sequence[int],
    suffix: str,
) -> list[Row]:
    analysis, settings = f"dose{suffix}", analyst.settings
    values = outcomes.kept(outcomes.values["strict"], accepted_only=bool(suffix))
    clean = outcomes.clean["strict"]
    curve = np.column_stack([clean, outcomes.means(values)[:, list(steps)]])
    # Prompts that have some doses only (too few words, not accepted) would make doses differ in
    # their prompts.
    complete: NDArray[np.bool_] = np.asarray(np.isfinite(curve).all(axis=1))
    curve = np.where(complete[:, None], curve, np.nan)
    nominal = np.array([0.0, *(float(getattr(outcomes.conditions[i], kind)) for i in steps)])
    rows_in = np.isin(outcomes.condition, steps) & complete[outcomes.base]
    delivered = outcomes.delivered
    if kind == "strength":  # templates differ in length, not in how much they garble
        strengths = np.array([float(c.strength or 0) for c in outcomes.conditions])
        delivered = strengths[outcomes.condition]
    y = np.concatenate([clean[complete], values[rows_in]])
    x = np.concatenate([np.zeros(int(complete.sum())), delivered[rows_in]])
    base = np.concatenate([np.flatnonzero(complete), outcomes.base[rows_in]])
    clusters = analyst.clusters
    labels = base if clusters is None else clusters[base]
    within = conditional_logit(
        y, x, base, clusters=labels, quantity="log-odds per delivered dose, same prompt",
        level=settings.level,
    )  # fmt: skip
    unvaried = Estimate(
        quantity="prompts answered alike at all doses",
        estimate=within.n_constant,
        n_units=within.n_constant + within.n_informative,
    )
    seed = derived_seed(analyst.seed, analyst.model, analysis, operator, kind)
    shape = dose_curve(
        curve, nominal, drop=settings.smallest_effect, clusters=clusters, level=settings.level,
        n_resamples=settings.n_resamples, seed=seed,
    )  # fmt: skip
    reached = delivered_levels(outcomes, delivered, rows_in, steps)
    found = [
        within.slope,
        unvaried,
        gee_slope(
            y, x, labels, quantity="log-odds per delivered dose, over prompts",
            level=settings.level,
        ),
        page_trend(curve, clusters=clusters),
        shape.threshold.renamed(f"{kind} at which accuracy has fallen by {shape.drop:g}"),
    ]  # fmt: skip
    if kind != "strength" and np.all(np.diff(reached) > 0):
        threshold = dose_curve(
            curve, reached, drop=settings.smallest_effect, clusters=clusters,
            level=settings.level, n_resamples=settings.n_resamples, seed=seed,
        ).threshold  # fmt: skip
        found.append(threshold.renamed(f"delivered dose at which accuracy has fallen by "
                                       f"{shape.drop:g}"))  # fmt: skip
    rows = analyst.rows(analysis, "operator", operator, found)
    for dose, at, point in zip(nominal, reached, shape.points, strict=True):
        amount = Estimate(quantity="delivered dose", estimate=at, n_units=point.n_units)
        rows += analyst.rows(analysis, kind, f"{operator}:{dose:g}", (point, amount))
    return rows


def delivered_levels(
    outcomes: Outcomes, delivered: FloatArray, rows_in: NDArray[np.bool_], steps: Sequence[int]
) -> FloatArray:
    """Mean delivered dose of the clean prompt (0) and of each step."""
    means = [0.0]
    for step in steps:
        there = delivered[rows_in & (outcomes.condition == step)]
        means.append(float(np.nanmean(there)) if np.isfinite(there).any() else math.nan)
    return np.array(means)
