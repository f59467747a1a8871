"""The document of the intact model: which tasks are analysed, and the gates of layer plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.stats.intervals import wilson
from interpflow.tables.documents import read_document

GATES_DOCUMENT = "layer_surgery_gates"
# Difficulty is judged without the items that confirmatory tests read.
JUDGED_SPLITS = ("discover", "develop")
ACCURACY = "share of the items whose greedy continuation is right by the task's scorer"
UNDECIDED = "judged after generation: free answers, which the role judge decides"


def read_gates(path: Path | str) -> dict[str, Any]:
    """The document that `run_intact` wrote. Raises UserError when missing, damaged or foreign."""
    return read_document(path, GATES_DOCUMENT)


def analysed_tasks(gates: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that the intact model solves above the floor, and of those of which that
    is undecided until their free answers are judged."""
    return sorted(name for name, task in gates["tasks"].items() if task["analysed"])


def undecided_tasks(gates: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that are analysed only if their judged answers reach the floor."""
    return sorted(name for name, task in gates["tasks"].items() if task["undecided"])


def gate_items(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of rows of `surgery_intact` of one task, those that its difficulty is judged by: discover and
    develop items with a score; where there are none, all with a score."""
    scored = [row for row in rows if not row["unscored"]]
    return [row for row in scored if row["split"] in JUDGED_SPLITS] or scored


def difficulty(
    intact: Sequence[Mapping[str, Any]], floor: float, level: float
) -> dict[str, dict[str, Any]]:
    """Of each task, from rows of `surgery_intact`: numbers of items, the share that the intact
    model answers rightly with Wilson's interval, and whether it is analysed.

    accuracy: share of the column `correct`, so of greedy continuations that the task's scorer finds
    right; answered: share of the items whose reference answer is, token by token, the likeliest.
    Both of the discover and develop splits; of all items (judged_on "all") where a task has none of
    these. A task whose free answers, yet to be judged (n_without_verdict, column `correct` null),
    may bring it to either side of the floor is undecided, and analysed until then.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for row in intact:
        by_task.setdefault(row["task"], []).append(row)
    return {task: _difficulty(by_task[task], floor, level) for task in sorted(by_task)}


def _difficulty(rows: Sequence[Mapping[str, Any]], floor: float, level: float) -> dict[str, Any]:
    read = gate_items(rows)
    is_early = bool(read) and read[0]["split"] in JUDGED_SPLITS
    decided = [row for row in read if row["correct"] is not None]
    n, n_open = len(read), len(read) - len(decided)
    right = sum(row["correct"] for row in decided)
    worst, best = (right / n, (right + n_open) / n) if n else (0.0, 0.0)
    low, high = wilson(right, n, level) if n and not n_open else (None, None)
    reason = ""
    if not n:
        reason = "no item has a score"
    elif best < floor:
        most = " at most" if n_open else ""
        reason = f"the intact model answers {best:.0%}{most}, below the floor of {floor:.0%}"
    return {
        "n_items": len(rows),
        "n_scored": sum(not row["unscored"] for row in rows),
        "unscored": dict(Counter(row["unscored"] for row in rows if row["unscored"])),
        "judged_on": " and ".join(JUDGED_SPLITS) if is_early else "all",
        "n_judged": len(decided),
        "n_without_verdict": n_open,
        "accuracy": worst if n and not n_open else None,
        "ci_low": low,
        "ci_high": high,
        "ci_level": level,
        "answered": sum(bool(row["answered"]) for row in read) / len(read) if read else None,
        "floor": floor,
        "undecided": UNDECIDED if worst < floor <= best else "",
        "analysed": not reason,
        "reason": reason,
    }
