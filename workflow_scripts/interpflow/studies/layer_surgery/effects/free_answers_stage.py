"""Free answers: what one model wrote where no rule scores it, put to the role judge."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.settings import Config
from interpflow.llm.roles import players
from interpflow.plans.layer_plan import LayerPlan
from interpflow.studies.layer_surgery.data.judging import free_answers
from interpflow.studies.layer_surgery.effects.outcomes import FREE_DOCUMENT, GATE, SWEEP
from interpflow.studies.layer_surgery.sweep.gate_document import (
    difficulty,
    gate_items,
    read_gates,
    undecided_tasks,
)
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.nlp.items import TaskItem, items_of_rows
from interpflow.tasks.nlp.judged_items import needs_judge
from interpflow.tasks.nlp.scorers import read_answer

Row = dict[str, Any]
JUDGED, UNCLEAR, EMPTY = "judged", "unclear", "empty"

LOG = logging.getLogger("layer_surgery.free")


def judge_free_answers(
    config: Config,
    name: str,
    *,
    items_path: Path | str,
    data_path: Path | str,
    intact_path: Path | str,
    gates_path: Path | str,
    generations_path: Path | str,
    free_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `surgery_free_answers` and the document `layer_surgery_free_answers`.

    Judged are the generations of items that no rule scores or whose task has questions for a judge,
    and, of tasks that the gate left undecided, what the intact model wrote for the gate's items:
    the document says of each such task whether it is analysed. An empty answer is wrong without
    being asked about. Raises UserError where a service cannot be used.
    """
    table = read_rows(items_path, "surgery_items")
    items = dict(zip((row["example_id"] for row in table), items_of_rows(table), strict=True))
    questions = read_document(data_path, "surgery_data")["questions"]
    gates = read_gates(gates_path)
    intact = read_rows(intact_path, "surgery_intact")
    asked = [
        *_gate_answers(intact, gates, items),
        *_sweep_answers(read_rows(generations_path, "surgery_generations"), items, questions),
    ]
    judges = [each.settings.model or each.identity.name for each in players(config, "judge")]
    rows = _judged(config, asked, items, questions, ", ".join(judges))
    verdicts = {row["example_id"]: row["correct"] for row in rows if row["stage"] == GATE}
    tasks = _judged_tasks(intact, gates, verdicts)
    for task, found in tasks.items():
        if not found["analysed"]:
            LOG.warning("%s: task %s is not analysed: %s", name, task, found["reason"])
    write_table(free_path, "surgery_free_answers", rows, provenance)
    outcomes = {
        stage: dict(Counter(row["outcome"] for row in rows if row["stage"] == stage))
        for stage in (GATE, SWEEP)
    }
    content = {"model": name, "judges": judges, "outcomes": outcomes, "tasks": tasks}
    write_document(document_path, FREE_DOCUMENT, content, provenance)


def _gate_answers(
    intact: Sequence[Row], gates: Mapping[str, Any], items: Mapping[str, TaskItem]
) -> list[Row]:
    """Free answers of the intact model that decide whether a task is analysed."""
    plan = str(LayerPlan.of(range(gates["n_layers"])))
    return [
        _answer(GATE, plan, items[row["example_id"]], row["example_id"], row["generated"])
        for task in undecided_tasks(gates)
        for row in gate_items([each for each in intact if each["task"] == task])
        if row["correct"] is None
    ]


def _sweep_answers(
    generations: Sequence[Row],
    items: Mapping[str, TaskItem],
    questions: Mapping[str, Sequence[str]],
) -> list[Row]:
    return [
        _answer(SWEEP, row["plan"], items[row["example_id"]], row["example_id"], row["text"])
        for row in generations
        if needs_judge(items[row["example_id"]], questions)
    ]


def _answer(stage: str, plan: str, item: TaskItem, example_id: str, text: str) -> Row:
    answer = read_answer(item, text)
    return {"stage": stage, "plan": plan, "example_id": example_id, "answer": answer}


def _judged(
    config: Config,
    asked: Sequence[Row],
    items: Mapping[str, TaskItem],
    questions: Mapping[str, Sequence[str]],
    judges: str,
) -> list[Row]:
    """The answers with verdicts; equal answers to an item get one."""
    told = [row for row in asked if row["answer"]]
    pairs = [(items[row["example_id"]], row["answer"]) for row in told]
    verdicts = iter(free_answers(config, pairs, questions))
    rows = []
    for row in asked:
        correct = next(verdicts) if row["answer"] else False
        outcome = EMPTY if not row["answer"] else UNCLEAR if correct is None else JUDGED
        judge = judges if row["answer"] else ""
        rows.append({**row, "correct": correct, "judge": judge, "outcome": outcome})
    return rows


def _judged_tasks(
    intact: Sequence[Row], gates: Mapping[str, Any], verdicts: Mapping[str, bool | None]
) -> dict[str, dict[str, Any]]:
    """Difficulty of the tasks that the gate left undecided: right is what most judges find right,
    so an answer that they cannot tell is not."""
    found = {}
    for task in undecided_tasks(gates):
        rows = [
            {**row, "correct": bool(verdicts.get(row["example_id"], row["correct"]))}
            for row in intact
            if row["task"] == task
        ]
        gate = gates["tasks"][task]
        found |= difficulty(rows, gate["floor"], gate["ci_level"])
    return found
