"""What perturbations do to answers: accuracy, flips, doses, rewards, meaning, mistakes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.robustness import RobustnessSettings
from interpflow.stats.record import CONTAMINATED, Estimate, Gate, flagged_row
from interpflow.studies.robustness.costs.accuracy_costs import (
    change_rows,
    equivalence_rows,
    flip_rows,
    measured,
    sample_matrix,
)
from interpflow.studies.robustness.costs.answer_mistakes import error_kinds, error_rows
from interpflow.studies.robustness.costs.baselines import Floors, ceiling_rows, floors
from interpflow.studies.robustness.costs.damage_gates import gates, n_damaged, refusal
from interpflow.studies.robustness.costs.doses import dose_rows
from interpflow.studies.robustness.costs.endpoints import (
    PRIMARY_VIEW,
    Endpoint,
    endpoints,
    median_change,
)
from interpflow.studies.robustness.costs.estimate_rows import CLEAN_LEVEL, Analyst, Row, means_by
from interpflow.studies.robustness.costs.meaning_changes import judgement_rows, semantics_rows
from interpflow.studies.robustness.costs.outcomes import FloatArray, Outcomes, outcomes_of
from interpflow.studies.robustness.costs.reward_changes import GREEDY, reward_rows
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, read_table, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.answer_errors import ERROR_KINDS

_log = logging.getLogger(__name__)

# Answers are read without their tokens, which the statistics do not use.
ANSWER_COLUMNS = (
    "example_id", "generated", "finish_reason", "strict", "lenient", "strict_correct",
    "lenient_correct", "gold_log_prob",
)  # fmt: skip
EXAMPLE_COLUMNS = (
    "example_id", "prompt", "gold", "gold_kind", "continuation", "number_starts", "number_ends",
)  # fmt: skip
NO_GOLD = "these prompts have no gold answer"


def benchmark(
    name: str,
    settings: RobustnessSettings,
    seed: int,
    *,
    contaminated: str = "",
    examples_path: Path | str,
    answers_path: Path | str,
    samples_path: Path | str | None = None,
    rewards_path: Path | str | None = None,
    semantics_path: Path | str | None = None,
    judgements_path: Path | str | None = None,
    estimates_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `estimates` and the document `robustness_benchmark` of one model.

    Everything is paired with the clean prompt and clustered by family. Of `settings`, `analysis`
    is used; doses and operators are those of the answers. `contaminated`: why the model should not
    be measured on these data, where it made or validated some of them; every row then carries the
    flag.
    """
    table = read_table(answers_path, "robustness_answers")
    outcomes = outcomes_of(table, where=str(answers_path))
    answers = table.select(list(ANSWER_COLUMNS)).to_pylist()
    examples = {
        row["example_id"]: row
        for row in read_table(examples_path, "robustness_examples")
        .select(list(EXAMPLE_COLUMNS))
        .to_pylist()
    }
    samples = _read(samples_path, "robustness_samples")
    rewards = _read(rewards_path, "robustness_rewards")
    semantics = _read(semantics_path, "robustness_semantics")
    judgements = _read(judgements_path, "robustness_judgements")
    analyst = Analyst(name, settings.analysis, seed, outcomes.clusters)
    has_gold = "accuracy strict" in measured(outcomes)

    rows: list[Row] = change_rows(analyst, outcomes)
    counts: dict[str, dict[str, int]] = {}
    if has_gold:
        rows += equivalence_rows(analyst, outcomes)
        rows += flip_rows(analyst, outcomes, sample_matrix(outcomes, samples))
        rows += dose_rows(analyst, outcomes)
        chains = {example: row["continuation"] for example, row in examples.items()}
        found, counts = error_rows(analyst, outcomes, error_kinds(answers, chains), ERROR_KINDS)
        rows += found
    rows += reward_rows(analyst, outcomes, rewards)
    rows += semantics_rows(analyst, outcomes, semantics)
    rows += judgement_rows(analyst, outcomes, judgements)

    by_example = {row["example_id"]: row for row in answers}
    floor = floors(analyst, outcomes, examples)
    ceiling = ceiling_rows(analyst, outcomes, samples, examples) if has_gold else {}
    reward = _primary_reward(outcomes, rewards)
    asked = endpoints(analyst, outcomes, settings, reward)
    checks = gates(analyst, outcomes, floor, by_example)
    rows += _headline_rows(analyst, floor, ceiling, asked)
    if contaminated:
        rows = [flagged_row(row, CONTAMINATED) for row in rows]
    write_table(estimates_path, "estimates", rows, provenance)

    refused = refusal(outcomes, checks)
    document = {
        "model": name,
        "n_prompts": outcomes.n_bases,
        "n_families": _n_families(outcomes),
        "n_variants": len(outcomes.base),
        "n_accepted": int(outcomes.accepted.sum()),
        "n_left_out": _left_out(answers),
        "n_damaged": n_damaged(outcomes),
        "absent": _absent(has_gold, outcomes, samples, rewards, semantics, judgements),
        "accuracy": _record(ceiling.get("clean accuracy")),
        "floors": None if floor is None else {**floor.shares, "best": floor.best},
        "above_floor": _record(None if floor is None else floor.above),
        "ceiling": {level: estimate.to_row() for level, estimate in ceiling.items()},
        "endpoints": [endpoint.to_row() for endpoint in asked],
        "median_change_of_reward": (
            None if reward is None else median_change(outcomes, settings, reward)
        ),
        "error_kinds": counts,
        "gates": [gate.to_row() for gate in checks],
        "mediation_refused": refused,
        "contaminated": contaminated,
        "sentence": _sentence(name, settings, ceiling, floor, asked, checks, refused),
    }
    if contaminated:
        document["sentence"] += f" CONTAMINATED: {contaminated}."
    write_document(document_path, "robustness_benchmark", document, provenance)
    _log.info("%s", document["sentence"])


def _read(path: Path | str | None, table: str) -> list[Row]:
    return [] if path is None else read_rows(path, table)


def _record(estimate: Estimate | None) -> Row | None:
    return None if estimate is None else estimate.to_row()


def _n_families(outcomes: Outcomes) -> int:
    return outcomes.n_bases if outcomes.clusters is None else len(set(outcomes.clusters))


def _primary_reward(
    outcomes: Outcomes, rewards: Sequence[Row]
) -> tuple[str, FloatArray, FloatArray] | None:
    """Name and scores of the first reward model, asked with the clean question."""
    chosen = [row for row in rewards if row["view"] == PRIMARY_VIEW and row["sample"] == GREEDY]
    if not chosen:
        return None
    name = chosen[0]["reward_model"]
    scores = means_by((r for r in chosen if r["reward_model"] == name), "example_id", "score")
    return (name, *outcomes.aligned(scores))


def _left_out(answers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Answers that no accuracy or log-probability counts, by reason."""
    reasons: Counter[str] = Counter()
    for row in answers:
        if row["finish_reason"] == "too_long":
            reasons["prompt longer than the model's context"] += 1
        elif row["strict_correct"] is None:
            reasons["no gold answer"] += 1
        if row["gold_log_prob"] is None and row["finish_reason"] != "too_long":
            reasons["no log-probability of a gold continuation"] += 1
    return dict(reasons)


def _absent(
    has_gold: bool,
    outcomes: Outcomes,
    samples: Sequence[Row],
    rewards: Sequence[Row],
    semantics: Sequence[Row],
    judgements: Sequence[Row],
) -> dict[str, str]:
    """Analyses that are not there, and why."""
    reasons = {
        "accuracy, flips, doses and mistakes": "" if has_gold else NO_GOLD,
        "gold log-probability": ""
        if np.isfinite(outcomes.clean["log_prob"]).any()
        else "no gold continuation was scored",
        "self-consistency": "" if samples else "no answers were drawn (inference.samples is 0)",
        "reward": "" if rewards else "no reward model was asked",
        "semantics": "" if semantics else "answers were not compared (scoring.embedding is null)",
        "judge": "" if judgements else "no judge was asked (scoring.judge is false)",
    }
    return {analysis: reason for analysis, reason in reasons.items() if reason}


def _headline_rows(
    analyst: Analyst,
    floor: Floors | None,
    ceiling: Mapping[str, Estimate],
    asked: Sequence[Endpoint],
) -> list[Row]:
    rows = [
        analyst.row("confirmatory", endpoint.name, endpoint.about, endpoint.estimate)
        for endpoint in asked
    ]
    rows += [
        analyst.row("ceiling", "operator", CLEAN_LEVEL, estimate.renamed(level))
        for level, estimate in ceiling.items()
    ]
    if floor is not None:
        for rule, share in floor.shares.items():
            accuracy = Estimate(quantity="accuracy", estimate=share, n_units=floor.above.n_units)
            rows.append(analyst.row("floor", "rule", rule, accuracy))
        rows.append(analyst.row("floor", "operator", CLEAN_LEVEL, floor.above))
    return rows


def _sentence(
    name: str,
    settings: RobustnessSettings,
    ceiling: Mapping[str, Estimate],
    floor: Floors | None,
    asked: Sequence[Endpoint],
    checks: Sequence[Gate],
    refused: str,
) -> str:
    """The study's answer in words, by rule."""
    loss, harmless, moved = asked
    parts: list[str] = []
    clean = ceiling.get("clean accuracy")
    if clean is not None and floor is not None:
        best = floor.shares[floor.best]
        parts.append(
            f"{name} answers {clean.estimate:.1%} of clean prompts right "
            f"({_limits(clean, '.1%')}; floor {best:.1%}, the {floor.best})"
        )
    if loss.estimate.defined:
        cost = loss.estimate
        parts.append(
            f"{loss.about}: accuracy moves by {100 * cost.estimate:+.1f} points "
            f"({_limits(cost, '+.1f', 100)}, Holm p = {_p(cost.p_adjusted)})"
        )
        bound = 100 * settings.analysis.equivalence
        known = harmless.estimate.p_adjusted <= 1 - settings.analysis.level
        parts.append(
            f"{harmless.about}: {100 * harmless.estimate.estimate:+.1f} points, "
            f"{'within' if known else 'not shown to lie within'} ±{bound:g} points "
            f"(Holm p = {_p(harmless.estimate.p_adjusted)})"
        )
    if moved.estimate.defined:
        change = moved.estimate
        parts.append(
            f"{moved.about}: the reward moves by {change.estimate:+.3f} "
            f"({_limits(change, '+.3f')}, Holm p = {_p(change.p_adjusted)})"
        )
    text = ". ".join(parts or [f"{name}: {NO_GOLD} and no rewards, so nothing is confirmed"]) + "."
    failed = [gate.name for gate in checks if not gate.passed]
    if failed:
        text += f" Gates not passed: {', '.join(failed)}."
    return f"{text} Patching is refused: {refused}." if refused else text


def _limits(estimate: Estimate, form: str, scale: float = 1.0) -> str:
    if np.isnan(estimate.ci_low):
        return f"without a {estimate.ci_level:.0%} interval"
    low, high = (format(scale * x, form) for x in (estimate.ci_low, estimate.ci_high))
    return f"{estimate.ci_level:.0%} interval {low} to {high}"


def _p(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.2g}"
