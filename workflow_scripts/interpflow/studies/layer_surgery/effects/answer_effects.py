"""What plans cost task by task: log-probability of answers, retention, and generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from interpflow.plans.families import FAMILIES, INTACT
from interpflow.stats.clustered_share import mean_share
from interpflow.studies.layer_surgery.effects.outcomes import Outcomes
from interpflow.studies.layer_surgery.estimate_rows import Analyst, FloatArray, Row

ANSWERS, GENERATION = "answers", "generation"
CHANGE, RETENTION = "log-probability change", "retention"
# Columns of generations and what they are called in estimates.
QUALITIES = {"correct": "correct", "format_score": "format", "repetition": "repetition"}


def answer_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Of every structured plan and task: mean change of the answer's log-probability in nats, and
    retention, the share of the items answered by the intact model that are answered still.

    Items are paired with themselves under the intact model; the unit is the item family. The plans
    of a family on one task are a family of hypotheses. Factor: the task; level: the plan.
    """
    rows: list[Row] = []
    for family in FAMILIES:
        plans = outcomes.plans.of_family(family)
        if family == INTACT or not plans:
            continue
        names, labels = [row["plan"] for row in plans], [row["label"] for row in plans]
        for task, answers in outcomes.tasks.items():
            deltas = answers.delta(names)
            if not np.isfinite(deltas).any():
                continue
            analysis = f"{ANSWERS} {family}"
            rows += analyst.changes(
                analysis, task, labels, deltas.T, clusters=answers.families, quantity=CHANGE
            )
            for label, still in zip(labels, answers.retained(names), strict=True):
                share = mean_share(
                    still, clusters=answers.families, quantity=RETENTION,
                    level=analyst.settings.level,
                )  # fmt: skip
                rows.append(analyst.row(analysis, task, label, share))
    return rows


def generation_rows(analyst: Analyst, outcomes: Outcomes) -> list[Row]:
    """Correctness, format and repetition of generated text under each plan, and their change from
    what the intact model generates for the same prompts."""
    rows: list[Row] = []
    by_plan: dict[str, dict[str, Row]] = {}
    for row in outcomes.generations:
        by_plan.setdefault(row["plan"], {})[row["example_id"]] = row
    intact = by_plan.get(outcomes.plans.intact, {})
    for family in FAMILIES:
        plans = [row for row in outcomes.plans.of_family(family) if row["plan"] in by_plan]
        labels = [row["label"] for row in plans]
        ids = sorted({one for row in plans for one in by_plan[row["plan"]]})
        if not ids:
            continue
        families = np.array([outcomes.items[one]["family_id"] for one in ids])
        for column, quantity in QUALITIES.items():
            values = np.array([_column(by_plan[row["plan"]], ids, column) for row in plans])
            for label, found in zip(labels, values, strict=True):
                mean = mean_share(
                    found, clusters=families, quantity=quantity, level=analyst.settings.level
                )
                rows.append(analyst.row(GENERATION, family, label, mean))
            change = values - _column(intact, ids, column)
            if family != INTACT and np.isfinite(change).any():
                rows += analyst.changes(
                    f"{GENERATION} {quantity}", family, labels, change.T, clusters=families,
                    quantity=f"change: {quantity}",
                )  # fmt: skip
    return rows


def _column(rows: Mapping[str, Row], ids: Sequence[str], column: str) -> FloatArray:
    values = [rows[one][column] if one in rows else None for one in ids]
    return np.array([np.nan if value is None else float(value) for value in values])
