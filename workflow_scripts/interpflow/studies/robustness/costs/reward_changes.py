"""How reward models score the answers to perturbed prompts, against those to the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.config.identity import derived_seed
from interpflow.stats.clustered_regression import adjusted_mean
from interpflow.stats.population_models import random_intercept
from interpflow.stats.record import Estimate
from interpflow.stats.signed_ranks import (
    hodges_lehmann,
    rank_biserial,
    standardized_mean,
    wilcoxon_p,
)
from interpflow.stats.units import codes_of, group_sums
from interpflow.stats.weighted_bootstrap import draw_weights
from interpflow.studies.robustness.costs.estimate_rows import (
    ACCEPTED,
    CLEAN_LEVEL,
    Analyst,
    Row,
    grouped,
    means_by,
)
from interpflow.studies.robustness.costs.outcomes import (
    FloatArray,
    IntArray,
    Outcomes,
    factors_of,
    level_means,
    reference_conditions,
)

GREEDY = -1  # sample number of the greedy answer


def reward_name(reward_model: str, view: str) -> str:
    """The analysis of one reward model's scores in one view."""
    return f"reward {reward_model} {view}"


def reward_rows(analyst: Analyst, outcomes: Outcomes, rewards: Sequence[Row]) -> list[Row]:
    """Changes of every reward model's score in every view, with effect sizes by operator."""
    rows: list[Row] = []
    for (reward_model, view), scores in grouped(rewards, "reward_model", "view").items():
        analysis = reward_name(reward_model, view)
        greedy = [row for row in scores if row["sample"] == GREEDY]
        values, clean = outcomes.aligned(means_by(greedy, "example_id", "score"))
        lengths, clean_length = outcomes.aligned(means_by(greedy, "example_id", "n_answer_tokens"))
        factors = factors_of(outcomes.conditions)
        rows += analyst.changes(analysis, outcomes.means(values), clean, factors)
        rows += analyst.changes(
            analysis + ACCEPTED,
            outcomes.means(values, accepted_only=True),
            clean,
            {"operator": factors["operator"]},
        )
        rows += _effect_sizes(analyst, analysis, outcomes, (values, clean), (lengths, clean_length))
        rows += _mixed(analyst, analysis, outcomes, values, clean)
        rows += _null_spread(analyst, analysis, outcomes, scores)
    return rows


def family_means(values: FloatArray, clusters: NDArray[Any] | None) -> FloatArray:
    """Means over the finite entries of each family [families] of [bases]: independent units."""
    kept = np.isfinite(values)
    codes, n = codes_of(None if clusters is None else clusters[kept], int(kept.sum()))
    return group_sums(values[kept], codes, n) / np.maximum(np.bincount(codes, minlength=n), 1)


def _effect_sizes(
    analyst: Analyst,
    analysis: str,
    outcomes: Outcomes,
    scores: tuple[FloatArray, FloatArray],
    lengths: tuple[FloatArray, FloatArray],
) -> list[Row]:
    levels = reference_conditions(outcomes.conditions)
    change = level_means(outcomes.means(scores[0]), levels) - scores[1][:, None]
    longer = level_means(outcomes.means(lengths[0]), levels) - lengths[1][:, None]
    boot = _bootstrapped(analyst, analysis, change)
    rows: list[Row] = []
    for place, level in enumerate(levels):
        units = family_means(change[:, place], outcomes.clusters)
        n: dict[str, Any] = {"n_units": len(units)}
        adjusted, slope = adjusted_mean(
            change[:, place], longer[:, place], clusters=outcomes.clusters,
            quantity="change at equal length", level=analyst.settings.level,
        )  # fmt: skip
        falls = np.where(np.isfinite(change[:, place]), change[:, place] < 0, np.nan)
        same = np.where(np.isfinite(change[:, place]), change[:, place] == 0, np.nan)
        found = [
            Estimate(quantity="rank-biserial correlation", estimate=rank_biserial(units),
                     p_value=wilcoxon_p(units), test="wilcoxon_pratt", **n),
            Estimate(quantity="median change (Hodges-Lehmann)", estimate=hodges_lehmann(units),
                     **n),
            Estimate(quantity="standardized change (d_z, Hedges)",
                     estimate=standardized_mean(units), **n),
            adjusted,
            slope.renamed("change per answer token"),
            analyst.mean(falls, quantity="score falls", is_proportion=True),
            analyst.mean(same, quantity="score unchanged", is_proportion=True),
        ]  # fmt: skip
        if boot is not None:
            found.append(boot[place])
        rows += analyst.rows(analysis, "operator", level, found)
    return rows


def _bootstrapped(
    analyst: Analyst, analysis: str, change: FloatArray
) -> tuple[Estimate, ...] | None:
    """Mean changes [levels] of [bases, levels] with BCa intervals, families resampled whole."""
    codes, n_groups = codes_of(analyst.clusters, len(change))
    if n_groups < 2:
        return None
    present = np.isfinite(change)
    sums = group_sums(np.where(present, change, 0.0), codes, n_groups)
    sizes = group_sums(present, codes, n_groups)

    def statistic(weights: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ sums) / (weights @ sizes)

    drawn = draw_weights(
        statistic, n_groups, n_resamples=analyst.settings.n_resamples,
        seed=derived_seed(analyst.seed, analyst.model, analysis, "bca"),
    )  # fmt: skip
    return tuple(
        drawn.estimate(place, "change (bootstrap)", level=analyst.settings.level)
        for place in range(change.shape[1])
    )


def _mixed(
    analyst: Analyst, analysis: str, outcomes: Outcomes, values: FloatArray, clean: FloatArray
) -> list[Row]:
    levels = reference_conditions(outcomes.conditions)
    label = np.full(len(outcomes.conditions), "", dtype=object)
    for level, places in levels.items():
        label[places] = level
    labels = np.concatenate(
        [label[outcomes.condition], np.full(outcomes.n_bases, CLEAN_LEVEL, dtype=object)]
    )
    base: IntArray = np.concatenate([outcomes.base, np.arange(outcomes.n_bases)])
    scores = np.concatenate([values, clean])
    kept = labels != ""
    names, found = random_intercept(
        scores[kept], labels[kept], base[kept], baseline=CLEAN_LEVEL, level=analyst.settings.level
    )
    return [
        analyst.row(analysis, "operator", level, estimate)
        for level, estimate in zip(names, found, strict=True)
    ]


def _null_spread(
    analyst: Analyst, analysis: str, outcomes: Outcomes, scores: Sequence[Row]
) -> list[Row]:
    """How far two drawn answers to the same clean prompt lie apart: what is no difference."""
    clean = set(outcomes.clean_ids)
    drawn = grouped(
        (row for row in scores if row["sample"] != GREEDY and row["example_id"] in clean),
        "example_id",
    )
    pairs = []
    for found in drawn.values():
        ordered = sorted(found, key=lambda row: row["sample"])
        if len(ordered) > 1:
            pairs.append(ordered[0]["score"] - ordered[1]["score"])
    if len(pairs) < 2:
        return []
    spread = Estimate(
        quantity="standard deviation of differences",
        estimate=float(np.std(pairs, ddof=1)),
        n_units=len(pairs),
    )
    return [analyst.row(analysis, "null", "two drawn answers to the same prompt", spread)]
