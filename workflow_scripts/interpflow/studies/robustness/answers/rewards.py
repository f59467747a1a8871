"""How reward models score a studied model's answers, asked as typed and asked clean."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

# Asked as the variant's question was typed, which the answer was given to; and the clean question,
# so that a difference is the answer's alone.
VIEWS = ("typed", "clean")
GREEDY = -1
NOT_RUN = "too_long"  # the finish reason of prompts that the model cannot read
CHECKED_PAIRS = 32  # scored again one by one, to say how far scores depend on batches

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """An answer to be scored: `sample` −1 is the greedy one."""

    example_id: str
    base_id: str
    family_id: str
    operator: str
    sample: int
    text: str
    typed: str
    clean: str

    def question(self, view: str) -> str:
        return self.typed if view == "typed" else self.clean


def score_rewards(
    name: str,
    settings: RobustnessSettings,
    *,
    examples_path: Path | str,
    answers_path: Path | str,
    samples_path: Path | str,
    device: str = "cpu",
    rewards_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `robustness_rewards` and the document `robustness_rewards`.

    Every answer of the model `name`, greedy and drawn, is scored by every reward model in both
    views; the prompt's frame around the question is left out. Prompts that were too long to be run
    have no answer and no score; the document counts them.
    """
    examples = {row["example_id"]: row for row in read_rows(examples_path, "robustness_examples")}
    rows = read_rows(answers_path, "robustness_answers")
    samples = read_rows(samples_path, "robustness_samples")
    answers, n_dropped = collect_answers(examples, rows, samples)
    table: list[dict[str, Any]] = []
    models: dict[str, Any] = {}
    for entry in settings.scoring.reward_models:
        scored, about = _score_entry(entry, answers, settings.scoring.reward_max_tokens, device)
        table += [{**row, "model": name} for row in scored]
        models[entry] = about
    write_table(rewards_path, "robustness_rewards", table, provenance)
    document = {
        "model": name,
        "n_answers": len(answers),
        "n_dropped": n_dropped,
        "dropped_because": "the prompt was too long to be run" if n_dropped else "",
        "reward_models": models,
        "aggregates": aggregates(table),
    }
    write_document(document_path, "robustness_rewards", document, provenance)


def collect_answers(
    examples: Mapping[str, Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
) -> tuple[list[Answer], int]:
    """All answers with both questions, greedy first, and how many prompts were not run.

    Raises UserError for an answer without its example, and a base item without its clean prompt.
    """
    clean = {
        row["base_id"]: _question(row) for row in examples.values() if row["family"] == "clean"
    }
    ran = [row for row in answers if row["finish_reason"] != NOT_RUN]
    drawn = [row for row in samples if row["finish_reason"] != NOT_RUN]
    found = []
    for row in [*ran, *drawn]:
        example = examples.get(row["example_id"])
        if example is None or example["base_id"] not in clean:
            raise UserError(
                f"the answer to {row['example_id']} has no example, or its item no clean prompt",
                where="robustness_answers",
                remedy="run generation and inference again",
            )
        found.append(
            Answer(
                example_id=row["example_id"],
                base_id=example["base_id"],
                family_id=example["family_id"],
                operator=example["operator"],
                sample=row.get("sample", GREEDY),
                text=row["generated"].strip(),
                typed=_question(example),
                clean=clean[example["base_id"]],
            )
        )
    return found, len(answers) - len(ran)


def aggregates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """n, min, max, mean, median and standard deviation (of a sample, null for one score) of the
    scores by reward model, view, greedy or drawn answers, and operator; "all" is every operator."""
    groups: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        answers = "greedy" if row["sample"] == GREEDY else "samples"
        for operator in ("all", row["operator"]):
            key = (row["reward_model"], row["view"], answers, operator)
            groups[key].append(row["score"])
    return [
        {
            "reward_model": reward_model,
            "view": view,
            "answers": answers,
            "operator": operator,
            "n": len(scores),
            "min": min(scores),
            "max": max(scores),
            "mean": float(np.mean(scores)),
            "median": float(np.median(scores)),
            "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        }
        for (reward_model, view, answers, operator), scores in groups.items()
    ]


def _score_entry(
    entry: str, answers: Sequence[Answer], max_tokens: int, device: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from interpflow.inference.rewards import batch_difference, score_pairs
    from interpflow.models.reward import load_reward_model

    model, tokenizer = load_reward_model(entry, device=device)
    asked = [(answer, view) for answer in answers for view in VIEWS]
    questions = [answer.question(view) for answer, view in asked]
    texts = [answer.text for answer, _ in asked]
    scores = score_pairs(model, tokenizer, questions, texts, max_tokens=max_tokens, device=device)
    distinct = list(dict.fromkeys(zip(questions, texts, strict=True)))
    step = max(1, len(distinct) // CHECKED_PAIRS)
    checked = distinct[::step][:CHECKED_PAIRS]
    difference = batch_difference(
        model, tokenizer, [q for q, _ in checked], [a for _, a in checked],
        max_tokens=max_tokens, device=device,
    )  # fmt: skip
    logger.info("reward model %s: %d answers, %d distinct pairs, %d cut, scores depend on batches "
                "by at most %.2g", entry, len(answers), len(distinct), int(scores.truncated.sum()),
                difference)  # fmt: skip
    rows = [
        {
            "example_id": answer.example_id,
            "base_id": answer.base_id,
            "family_id": answer.family_id,
            "operator": answer.operator,
            "sample": answer.sample,
            "reward_model": entry,
            "view": view,
            "score": float(scores.score[index]),
            "n_tokens": int(scores.n_tokens[index]),
            "n_answer_tokens": int(scores.n_answer_tokens[index]),
            "truncated": bool(scores.truncated[index]),
        }
        for index, (answer, view) in enumerate(asked)
    ]
    about = {
        "n_scores": len(rows),
        "n_distinct_pairs": len(distinct),
        "n_truncated": int(scores.truncated.sum()),
        "max_tokens": scores.max_tokens,
        "batch_difference": difference,
    }
    return rows, about


def _question(example: Mapping[str, Any]) -> str:
    return example["prompt"][example["question_start"] : example["question_end"]]
