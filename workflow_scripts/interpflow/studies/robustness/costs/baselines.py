"""What answers need no model, and how right a model is that answers again and again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpflow.config.identity import derived_seed
from interpflow.stats.paired import paired_difference
from interpflow.stats.record import Estimate
from interpflow.studies.robustness.costs.estimate_rows import Analyst
from interpflow.studies.robustness.costs.outcomes import FloatArray, Outcomes
from interpflow.tasks.arithmetic import is_correct, read_answer

MAJORITY = "majority answer"
LAST_NUMBER = "last number of the question"
FIRST_NUMBER = "first number of the question"


@dataclass(frozen=True)
class Floors:
    """Accuracies [prompts with a gold answer] of answering rules that read no meaning.

    `above`: the model's clean accuracy minus that of the best rule, paired.
    """

    shares: dict[str, float]
    best: str
    above: Estimate


def floors(
    analyst: Analyst, outcomes: Outcomes, examples: Mapping[str, Mapping[str, Any]]
) -> Floors | None:
    """The majority answer and a number copied from the question; None without gold answers.

    `examples`: rows of robustness_examples of the clean prompts by example id. The last number is
    what a scorer finds that reads prompt and answer together and takes the last one.
    """
    clean = outcomes.clean["strict"]
    scored = [i for i in range(outcomes.n_bases) if np.isfinite(clean[i])]
    if not scored:
        return None
    rows = [examples[outcomes.clean_ids[i]] for i in scored]
    golds = [str(row["gold"]) for row in rows]
    common = Counter(golds)
    most = min(common, key=lambda gold: (-common[gold], gold))
    hits = {MAJORITY: np.array([gold == most for gold in golds])}
    numbers = [_numbers(row) for row in rows]
    if any(numbers):
        for name, place in ((FIRST_NUMBER, 0), (LAST_NUMBER, -1)):
            hits[name] = np.array([
                bool(found and is_correct(found[place], row["gold"], row["gold_kind"]))
                for found, row in zip(numbers, rows, strict=True)
            ])  # fmt: skip
    shares = {name: float(hit.mean()) for name, hit in hits.items()}
    best = max(shares, key=lambda name: shares[name])
    above = paired_difference(
        clean[scored] == 1,
        hits[best],
        clusters=None if outcomes.clusters is None else outcomes.clusters[scored],
        quantity=f"clean accuracy above: {best}",
        level=analyst.settings.level,
        n_resamples=analyst.settings.n_permutations,
        seed=derived_seed(analyst.seed, analyst.model, "floor"),
    )
    return Floors(shares, best, above)


def _numbers(row: Mapping[str, Any]) -> list[str]:
    starts, ends = row["number_starts"] or [], row["number_ends"] or []
    return [row["prompt"][start:end] for start, end in zip(starts, ends, strict=True)]


def ceiling_rows(
    analyst: Analyst,
    outcomes: Outcomes,
    samples: Sequence[Mapping[str, Any]],
    examples: Mapping[str, Mapping[str, Any]],
) -> dict[str, Estimate]:
    """Clean accuracy and, with drawn answers, how often they are right, and how often the answer
    that most of them give is (self-consistency)."""
    found = {"clean accuracy": analyst.mean(outcomes.clean["strict"], is_proportion=True)}
    by_prompt: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in samples:
        if row["example_id"] in examples and row["strict_correct"] is not None:
            by_prompt[row["example_id"]].append(row)
    if not by_prompt:
        return found
    drawn: FloatArray = np.full(outcomes.n_bases, np.nan)
    voted: FloatArray = np.full(outcomes.n_bases, np.nan)
    for place, example_id in enumerate(outcomes.clean_ids):
        rows = by_prompt.get(example_id, [])
        if not rows:
            continue
        drawn[place] = np.mean([row["strict_correct"] for row in rows])
        voted[place] = _vote_is_right(rows, examples[example_id])
    found["drawn answers right"] = analyst.mean(drawn)
    found["most frequent drawn answer right"] = analyst.mean(voted, is_proportion=True)
    return found


def _vote_is_right(rows: Sequence[Mapping[str, Any]], example: Mapping[str, Any]) -> float:
    kind = example["gold_kind"]
    readings = Counter(
        reading
        for reading in (read_answer(row["generated"], kind).strict for row in rows)
        if reading is not None
    )
    if not readings:
        return 0.0
    winner = min(readings, key=lambda reading: (-readings[reading], reading))
    return float(bool(is_correct(winner, example["gold"], kind)))
