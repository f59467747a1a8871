"""What was measured under each plan, on items and documents that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError
from interpflow.plans.families import INTACT
from interpflow.tables.parquet import read_rows

FloatArray = NDArray[np.float64]
Row = dict[str, Any]
SPLIT = "confirm"
# Answers that judges decided: those that the gate reads, and those generated under plans.
FREE_DOCUMENT = "layer_surgery_free_answers"
GATE, SWEEP = "gate", "sweep"


@dataclass(frozen=True)
class PlanTable:
    """The plans of a sweep, as rows of `surgery_plans`, in their order."""

    rows: tuple[Row, ...]

    @property
    def intact(self) -> str:
        """The intact model's plan, written out. Raises UserError if it was not run."""
        for row in self.rows:
            if INTACT in row["families"]:
                return row["plan"]
        raise UserError("the intact model is not among the plans", where="surgery_plans")

    @property
    def n_layers(self) -> int:
        return len(self.intact.split()) if self.intact != "-" else 0

    def of_family(self, family: str) -> list[Row]:
        """Structured plans of a family; a plan of several is in each, with a label that fits."""
        return [
            {**row, "label": _label(row, family)}
            for row in self.rows
            if row["role"] == "structured" and family in row["families"]
        ]

    def of_role(self, role: str) -> list[Row]:
        return [row for row in self.rows if row["role"] == role]


@dataclass(frozen=True)
class TextLosses:
    """delta_loss, top1_kept [plans, documents], nats per token and share; NaN: not measured."""

    plans: tuple[str, ...]
    documents: tuple[str, ...]
    delta_loss: FloatArray
    top1_kept: FloatArray

    def delta(self, plans: Iterable[str]) -> FloatArray:
        """[plans, documents]; a plan that was not run is NaN."""
        return _chosen(self.delta_loss, self.plans, plans)

    def kept(self, plans: Iterable[str]) -> FloatArray:
        return _chosen(self.top1_kept, self.plans, plans)


@dataclass(frozen=True)
class TaskAnswers:
    """One task: families [items] of the items, what the intact model answers [items], and
    delta_log_prob, answered [plans, items] under each plan; NaN: not measured or not scored."""

    task: str
    items: tuple[str, ...]
    families: NDArray[Any]
    intact: FloatArray
    plans: tuple[str, ...]
    delta_log_prob: FloatArray
    answered: FloatArray

    def delta(self, plans: Iterable[str]) -> FloatArray:
        """[plans, items]; a plan that was not run is NaN."""
        return _chosen(self.delta_log_prob, self.plans, plans)

    def retained(self, plans: Iterable[str]) -> FloatArray:
        """Whether an item that the intact model answers is still answered, [plans, items]; NaN for
        the other items."""
        return np.where(self.intact == 1, _chosen(self.answered, self.plans, plans), np.nan)


@dataclass(frozen=True)
class Outcomes:
    """Everything measured of one model, of the split that tests may read."""

    plans: PlanTable
    losses: TextLosses
    tasks: dict[str, TaskAnswers]
    generations: tuple[Row, ...]
    items: dict[str, Row]


def read_outcomes(
    *,
    items_path: Path | str,
    texts_path: Path | str,
    plans_path: Path | str,
    intact_path: Path | str,
    answers_path: Path | str,
    losses_path: Path | str,
    generations_path: Path | str,
    free_path: Path | str | None = None,
    left_out: Collection[str] = (),
) -> Outcomes:
    """Read the tables and keep the confirm split of items and documents.

    free_path: verdicts of judges on generations, which count where there is one. left_out: tasks
    that are not analysed.
    """
    items = {
        row["example_id"]: row
        for row in read_rows(items_path, "surgery_items")
        if row["split"] == SPLIT and row["task"] not in left_out
    }
    documents = {
        row["document_id"]
        for row in read_rows(texts_path, "surgery_texts")
        if row["split"] == SPLIT and row["use"] == "measure"
    }
    intact = {row["example_id"]: row for row in read_rows(intact_path, "surgery_intact")}
    verdicts = {} if free_path is None else _verdicts(read_rows(free_path, "surgery_free_answers"))
    by_task: dict[str, list[Row]] = {}
    for row in read_rows(answers_path, "surgery_answers"):
        item = items.get(row["example_id"])
        if item is not None:
            by_task.setdefault(item["task"], []).append(row)
    return Outcomes(
        plans=PlanTable(tuple(read_rows(plans_path, "surgery_plans"))),
        losses=_losses(read_rows(losses_path, "surgery_text_losses"), documents),
        tasks={task: _answers(task, by_task[task], items, intact) for task in sorted(by_task)},
        generations=tuple(
            {**row, "correct": _correct(row, verdicts)}
            for row in read_rows(generations_path, "surgery_generations")
            if row["example_id"] in items
        ),
        items=items,
    )


def _verdicts(rows: Sequence[Row]) -> dict[tuple[str, str], bool | None]:
    """By plan and item, what judges made of generations; null where they could not tell."""
    return {
        (row["plan"], row["example_id"]): row["correct"] for row in rows if row["stage"] == SWEEP
    }


def _correct(row: Row, verdicts: Mapping[tuple[str, str], bool | None]) -> bool | None:
    """The judges' verdict on a generation, else that of the task's scorer.

    What judges could not tell and no scorer decides is not right: left out, the garbled texts of a
    damaged model would flatter it.
    """
    key = (row["plan"], row["example_id"])
    if key not in verdicts:
        return row["correct"]
    verdict = verdicts[key]
    return bool(row["correct"]) if verdict is None else verdict


def _label(row: Row, family: str) -> str:
    kept = {"keep_first": "first", "keep_last": "last"}.get(family)
    return row["label"] if kept is None else f"{kept} {row['n_blocks']}"


def _losses(rows: Sequence[Row], documents: set[str]) -> TextLosses:
    chosen = [row for row in rows if row["document_id"] in documents]
    plans = tuple(dict.fromkeys(row["plan"] for row in chosen))
    ids = tuple(sorted({row["document_id"] for row in chosen}))
    return TextLosses(
        plans,
        ids,
        _matrix(chosen, plans, ids, "document_id", "delta_loss"),
        _matrix(chosen, plans, ids, "document_id", "top1_kept"),
    )


def _answers(
    task: str, rows: Sequence[Row], items: dict[str, Row], intact: dict[str, Row]
) -> TaskAnswers:
    plans = tuple(dict.fromkeys(row["plan"] for row in rows))
    ids = tuple(sorted({row["example_id"] for row in rows}))
    answered = [intact[one]["answered"] if one in intact else None for one in ids]
    return TaskAnswers(
        task=task,
        items=ids,
        families=np.array([items[one]["family_id"] for one in ids]),
        intact=np.array([np.nan if value is None else float(value) for value in answered]),
        plans=plans,
        delta_log_prob=_matrix(rows, plans, ids, "example_id", "delta_log_prob"),
        answered=_matrix(rows, plans, ids, "example_id", "answered"),
    )


def _matrix(
    rows: Sequence[Row], plans: Sequence[str], ids: Sequence[str], key: str, column: str
) -> FloatArray:
    plan_code = {plan: place for place, plan in enumerate(plans)}
    code = {one: place for place, one in enumerate(ids)}
    found = np.full((len(plans), len(ids)), np.nan)
    for row in rows:
        if row[column] is not None:
            found[plan_code[row["plan"]], code[row[key]]] = float(row[column])
    return found


def _chosen(values: FloatArray, known: Sequence[str], plans: Iterable[str]) -> FloatArray:
    code = {plan: place for place, plan in enumerate(known)}
    rows = [
        values[code[plan]] if plan in code else np.full(values.shape[1], np.nan) for plan in plans
    ]
    return np.array(rows).reshape(len(rows), values.shape[1])
