"""How the meaning of answers moves, and what judges prefer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interpflow.studies.robustness.costs.estimate_rows import Analyst, Row, grouped, means_by
from interpflow.studies.robustness.costs.outcomes import (
    Outcomes,
    factors_of,
    level_means,
    reference_conditions,
)

# What a judge's verdict on the variant's answer counts; one that follows the order counts nothing.
VERDICTS = {"better": 1.0, "worse": -1.0, "same": 0.0, "order": 0.0}


def semantics_rows(analyst: Analyst, outcomes: Outcomes, semantics: Sequence[Row]) -> list[Row]:
    """Likeness of each variant's greedy answer to the clean one. Where answers were drawn, that of
    a variant's drawn answers to the clean prompt's, against two drawn answers to the same prompt:
    greedy answers vary less than drawn ones, and would look too alike beside them."""
    rows: list[Row] = []
    for (measure,), found in grouped(semantics, "measure").items():
        analysis = f"semantics {measure}"
        answers = [row for row in found if row["kind"] == "answer"]
        values, _ = outcomes.aligned(means_by(answers, "example_id", "value"))
        drawn = [row for row in found if row["kind"] == "baseline"]
        by_base = means_by(drawn, "base_id", "value")
        sampled = [row for row in found if row["kind"] == "sampled"]
        drawn_values, _ = outcomes.aligned(means_by(sampled, "example_id", "value"))
        drawn_means = outcomes.means(drawn_values)
        baseline = np.array([by_base.get(base, np.nan) for base in outcomes.base_ids])
        factors = factors_of(outcomes.conditions)
        means = outcomes.means(values)
        for factor, levels in factors.items():
            by_level = level_means(means, levels)
            for place, level in enumerate(levels):
                rows.append(analyst.row(analysis, factor, level, analyst.mean(by_level[:, place])))
            if sampled and np.isfinite(baseline).sum() > 1:
                changes = analyst.contrasts(
                    analysis, factor, level_means(drawn_means, levels) - baseline[:, None],
                    quantity="drawn answers: difference from two answers to the same prompt",
                )  # fmt: skip
                rows += [
                    analyst.row(analysis, factor, level, change)
                    for level, change in zip(levels, changes, strict=True)
                ]
        if np.isfinite(baseline).any():
            level = "two drawn answers to the same prompt"
            rows.append(analyst.row(analysis, "null", level, analyst.mean(baseline)))
    return rows


def judgement_rows(analyst: Analyst, outcomes: Outcomes, judgements: Sequence[Row]) -> list[Row]:
    """Net verdict of each judge (better minus worse) by operator, and how often the order of
    showing decided."""
    rows: list[Row] = []
    levels = reference_conditions(outcomes.conditions)
    for (judge,), found in grouped(judgements, "judge").items():
        analysis = f"judge {judge}"
        verdicts = {row["example_id"]: row["verdict"] for row in found}
        net, _ = outcomes.aligned(
            {example: VERDICTS[v] for example, v in verdicts.items() if v in VERDICTS}
        )
        order, _ = outcomes.aligned(
            {example: float(v == "order") for example, v in verdicts.items() if v in VERDICTS}
        )
        present = {
            level: places
            for level, places in levels.items()
            if np.isfinite(outcomes.means(net)[:, places]).any()
        }
        if not present:
            continue
        changes = analyst.contrasts(
            analysis, "operator", level_means(outcomes.means(net), present),
            quantity="better minus worse",
        )  # fmt: skip
        orders = level_means(outcomes.means(order), present)
        for place, (level, change) in enumerate(zip(present, changes, strict=True)):
            share = analyst.mean(
                orders[:, place], quantity="decided by the order", is_proportion=True
            )
            rows += analyst.rows(analysis, "operator", level, (change, share))
    return rows
