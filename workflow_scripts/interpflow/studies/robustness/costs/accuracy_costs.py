"""What perturbations cost in accuracy: changes, equivalence, flips and the worst case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interpflow.config.identity import derived_seed
from interpflow.stats.equivalence import mean_equivalence
from interpflow.stats.flips import expected_worst, flips, worst_case
from interpflow.stats.multiplicity import adjust
from interpflow.stats.power import detectable_mean
from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import Estimate
from interpflow.studies.robustness.costs.estimate_rows import ACCEPTED, Analyst, Row
from interpflow.studies.robustness.costs.outcomes import (
    FloatArray,
    Outcomes,
    factors_of,
    level_means,
    reference_conditions,
)

ANALYSES = {
    "accuracy strict": "strict",
    "accuracy lenient": "lenient",
    "gold log-probability": "log_prob",
}
CONTROL_FACTOR = "operator − control"  # each operator against the matched control's edits
# Of accepted variants alone; by all the other factors the two hardly differ.
ACCEPTED_FACTORS = ("operator", "family", "n_edits", "rate", "strength")


def measured(outcomes: Outcomes) -> list[str]:
    """The analyses that these answers allow: accuracies only where there is a gold answer."""
    return [
        analysis for analysis, name in ANALYSES.items() if np.isfinite(outcomes.clean[name]).any()
    ]


def change_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Changes from the clean prompt by every factor, all variants and accepted ones alone."""
    factors = factors_of(outcomes.conditions)
    rows: list[Row] = []
    for analysis in measured(outcomes):
        name = ANALYSES[analysis]
        proportion = name != "log_prob"
        for suffix in ("", ACCEPTED):
            means = outcomes.means(outcomes.values[name], accepted_only=bool(suffix))
            used = {f: levels for f, levels in factors.items() if f in ACCEPTED_FACTORS}
            rows += analyst.changes(
                analysis + suffix,
                means,
                outcomes.clean[name],
                used if suffix else factors,
                is_proportion=proportion,
            )
        rows += _against_control(analyst, analysis, outcomes, outcomes.values[name])
    return rows


def _against_control(
    analyst: Analyst, analysis: str, outcomes: Outcomes, values: FloatArray
) -> list[Row]:
    reference = reference_conditions(outcomes.conditions)
    control = reference.pop("control", None)
    edited = {
        operator: places
        for operator, places in reference.items()
        if outcomes.conditions[places[0]].family in ("typo", "obfuscation")
    }
    if control is None or not edited:
        return []
    means = outcomes.means(values)
    against = level_means(means, {"control": control})
    found = analyst.contrasts(analysis, CONTROL_FACTOR, level_means(means, edited) - against)
    return [
        analyst.row(analysis, CONTROL_FACTOR, operator, estimate)
        for operator, estimate in zip(edited, found, strict=True)
    ]


def equivalence_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Is the loss within the bound (two one-sided tests, Holm over operators), and the smallest
    change that these prompts would have shown: what a null result is worth."""
    rows: list[Row] = []
    bound = analyst.settings.equivalence
    factors = factors_of(outcomes.conditions)
    for suffix in ("", ACCEPTED):
        analysis = f"equivalence{suffix}"
        means = outcomes.means(outcomes.values["strict"], accepted_only=bool(suffix))
        for factor in ("operator", "n_edits"):
            levels = factors.get(factor, {})
            if not levels:
                continue
            change = level_means(means, levels) - outcomes.clean["strict"][:, None]
            tests = [
                mean_equivalence(
                    change[:, place],
                    low=-bound,
                    high=bound,
                    clusters=analyst.clusters,
                    quantity=f"change within ±{bound:g}",
                ).estimate
                for place in range(len(levels))
            ]
            tests = adjust(tests, method="holm", family=f"{analysis} by {factor}")
            for level, test in zip(levels, tests, strict=True):
                rows += analyst.rows(analysis, factor, level, (test, _detectable(test)))
    return rows


def _detectable(test: Estimate) -> Estimate:
    """Smallest change seen with 80 % power, from the standard error of an interval."""
    n = test.n_clusters or test.n_units
    reach = t_quantile(0.5 + test.ci_level / 2, max(n - 1, 1))
    error = test.half_width / reach if n > 1 else math.nan
    return Estimate(
        quantity="smallest detectable change",
        estimate=detectable_mean(error * math.sqrt(n), n) if n > 1 else math.nan,
        test="power_0.8",
        n_units=test.n_units,
        n_clusters=test.n_clusters,
    )


def flip_rows(analyst: Analyst, outcomes: Outcomes, clean_samples: FloatArray | None) -> list[Row]:
    """Flip rates by operator, and the worst of all variants against repeating the prompt.

    `clean_samples` [bases, k]: whether drawn answers to the clean prompt are right, None without.
    """
    clean, values = outcomes.clean["strict"], outcomes.values["strict"]
    settings, clusters = analyst.settings, analyst.clusters
    reference = reference_conditions(outcomes.conditions)
    rows: list[Row] = []
    for operator, places in reference.items():
        found = flips(
            clean, outcomes.single(values, places), clusters=clusters, level=settings.level
        )
        rows += analyst.rows(
            "flips", "operator", operator, (found.to_wrong, found.to_right, found.net)
        )
    damaging = [i for i, c in enumerate(outcomes.conditions) if c.family != "control"]
    variants = outcomes.single(values, damaging)
    if variants.shape[1] == 0:
        return rows
    seed = derived_seed(analyst.seed, analyst.model, "worst case")
    worst = worst_case(
        clean, variants, clusters=clusters, level=settings.level,
        n_resamples=settings.n_resamples, seed=seed,
    )  # fmt: skip
    rows += analyst.rows(
        "flips", "worst case", f"worst of {worst.n_variants} variants",
        (worst.broken, worst.independent, worst.excess),
    )  # fmt: skip
    repeats = outcomes.single(values, reference.get("null", []))
    if repeats.shape[1]:
        null = worst_case(
            clean, repeats, clusters=clusters, level=settings.level, n_resamples=1, seed=seed
        )
        level = f"same prompt, worst of {repeats.shape[1]}"
        rows.append(analyst.row("flips", "worst case", level, null.broken))
    if clean_samples is not None and clean_samples.shape[1] > 1:
        k = min(clean_samples.shape[1], variants.shape[1])
        right = np.where(clean == 1, 0.0, np.nan)
        for level, data in (("drawn answers to the same prompt", clean_samples),
                            ("variants", variants)):  # fmt: skip
            share = analyst.mean(
                expected_worst(data, k) + right,
                quantity="broken by the worst of as many",
                is_proportion=True,
            )
            rows.append(analyst.row("flips", "worst case", f"{level}, worst of {k}", share))
    return rows


def sample_matrix(
    outcomes: Outcomes, samples: Sequence[Mapping[str, Any]], measure: str = "strict_correct"
) -> FloatArray | None:
    """Whether drawn answers to the clean prompts are right, [bases, samples]; None without any."""
    code = {example: i for i, example in enumerate(outcomes.clean_ids)}
    chosen = [row for row in samples if row["example_id"] in code and row[measure] is not None]
    if not chosen:
        return None
    width = max(row["sample"] for row in chosen) + 1
    found = np.full((outcomes.n_bases, width), np.nan)
    for row in chosen:
        found[code[row["example_id"]], row["sample"]] = float(row[measure])
    return found
