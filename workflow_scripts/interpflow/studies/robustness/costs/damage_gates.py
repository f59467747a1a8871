"""Conditions under which the costs of perturbations mean something, and why to patch nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interpflow.config.identity import derived_seed
from interpflow.stats.permutation import sign_flip
from interpflow.stats.record import EMPTY_CELL, Estimate, Gate, undefined
from interpflow.studies.robustness.costs.baselines import Floors
from interpflow.studies.robustness.costs.estimate_rows import Analyst
from interpflow.studies.robustness.costs.outcomes import Outcomes, level_means, reference_conditions

SIGNIFICANT = 0.05
MIN_PARSE_RATE = 0.97


def gates(
    analyst: Analyst,
    outcomes: Outcomes,
    floor: Floors | None,
    answers: Mapping[str, Mapping[str, Any]],
) -> list[Gate]:
    """Clean accuracy above the floor, answers readable, null operator without effect, typos with.

    `answers`: rows of robustness_answers by example id.
    """
    found = [_null_gate(outcomes, answers)]
    if floor is None:
        return found
    above = floor.above
    clean = [answers[example] for example in outcomes.clean_ids]
    scored = [row for row in clean if row["strict_correct"] is not None]
    parse_rate = float(np.mean([row["strict"] is not None for row in scored]))
    cost = _typo_cost(analyst, outcomes)
    return [
        Gate(
            name="clean_accuracy_above_floor",
            passed=above.estimate > 0 and above.p_value < SIGNIFICANT,
            value=above.p_value,
            threshold=SIGNIFICANT,
            reason=f"clean prompts are answered rightly more often than by the {floor.best}, "
            "which reads no meaning; else there is nothing to lose",
        ),
        Gate(
            name="parse_rate",
            passed=parse_rate >= MIN_PARSE_RATE,
            value=parse_rate,
            threshold=MIN_PARSE_RATE,
            reason="share of clean answers that state a result in a declared form; where it fails "
            "trust the lenient accuracy and the log-probability of the gold answer",
        ),
        *found,
        Gate(
            name="typo_cost",
            passed=cost.estimate < 0 and cost.p_value < SIGNIFICANT,
            value=cost.p_value,
            threshold=SIGNIFICANT,
            reason="typing errors, over all their operators, cost accuracy that these prompts "
            "can show",
        ),
    ]


def _null_gate(outcomes: Outcomes, answers: Mapping[str, Mapping[str, Any]]) -> Gate:
    null = {i for i, condition in enumerate(outcomes.conditions) if condition.operator == "null"}
    compared = ("generated", "strict_correct", "lenient_correct", "gold_log_prob")
    rows = [r for r, condition in enumerate(outcomes.condition) if condition in null]
    differ = sum(
        any(
            answers[outcomes.example_ids[r]][key] != answers[outcomes.clean_ids[base]][key]
            for key in compared
        )
        for r, base in ((r, outcomes.base[r]) for r in rows)
    )
    return Gate(
        name="null_operator",
        passed=bool(rows) and differ == 0,
        value=float(differ) if rows else math.nan,
        threshold=0.0,
        reason="answers to the same prompt given again that differ from the first",
    )


def _typo_cost(analyst: Analyst, outcomes: Outcomes) -> Estimate:
    reference = reference_conditions(outcomes.conditions)
    typos = [
        i for places in reference.values() for i in places
        if outcomes.conditions[i].family == "typo"
    ]  # fmt: skip
    if not typos:
        return undefined("cost of typing errors", EMPTY_CELL)
    means = level_means(outcomes.means(outcomes.values["strict"]), {"typo": typos})[:, 0]
    return sign_flip(
        means - outcomes.clean["strict"],
        clusters=analyst.clusters,
        quantity="cost of typing errors",
        level=analyst.settings.level,
        n_resamples=analyst.settings.n_permutations,
        seed=derived_seed(analyst.seed, analyst.model, "typo cost"),
    )


def n_damaged(outcomes: Outcomes) -> int:
    """Variants answered wrong whose prompt was answered right; controls do not count."""
    damaging = np.array([condition.family != "control" for condition in outcomes.conditions])
    if len(damaging) == 0:
        return 0
    wrong = (outcomes.values["strict"] == 0) & damaging[outcomes.condition]
    return int((wrong & (outcomes.clean["strict"][outcomes.base] == 1)).sum())


def refusal(outcomes: Outcomes, found: Sequence[Gate]) -> str:
    """Why there is nothing to patch; empty where there is."""
    if not np.isfinite(outcomes.clean["strict"]).any():
        return "these prompts have no gold answer, so no answer counts as damaged"
    floor = next(gate for gate in found if gate.name == "clean_accuracy_above_floor")
    if not floor.passed:
        return (
            "clean prompts are not answered better than by a rule that reads no meaning "
            f"(p = {floor.value:.3g}, gate at {floor.threshold:g}): nothing is lost that could "
            "be restored"
        )
    if n_damaged(outcomes) == 0:
        return "no perturbation turned a right answer into a wrong one"
    return ""
