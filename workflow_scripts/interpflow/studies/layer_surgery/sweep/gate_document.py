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


def read_gates(path: Path | str) -> dict[str, Any]:
    """The document that `run_intact` wrote. Raises UserError when missing, damaged or foreign."""
    return read_document(path, GATES_DOCUMENT)


def analysed_tasks(gates: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that the intact model solves above the floor."""
    return sorted(name for name, task in gates["tasks"].items() if task["analysed"])


def difficulty(
    intact: Sequence[Mapping[str, Any]], floor: float, level: float
) -> dict[str, dict[str, Any]]:
    """Of each task, from rows of `surgery_intact`: numbers of items, the share that the intact
    model answers with Wilson's interval, and whether it is analysed.

    The share is that of the discover and develop splits; of all items (judged_on "all") where a
    task has none of these.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for row in intact:
        by_task.setdefault(row["task"], []).append(row)
    return {task: _difficulty(by_task[task], floor, level) for task in sorted(by_task)}


def _difficulty(rows: Sequence[Mapping[str, Any]], floor: float, level: float) -> dict[str, Any]:
    scored = [row for row in rows if not row["unscored"]]
    early = [row for row in scored if row["split"] in JUDGED_SPLITS]
    judged = early or scored
    right = sum(bool(row["answered"]) for row in judged)
    accuracy = right / len(judged) if judged else None
    low, high = wilson(right, len(judged), level) if judged else (None, None)
    reason = ""
    if accuracy is None:
        reason = "no item has a score"
    elif accuracy < floor:
        reason = f"the intact model answers {accuracy:.0%}, below the floor of {floor:.0%}"
    return {
        "n_items": len(rows),
        "n_scored": len(scored),
        "unscored": dict(Counter(row["unscored"] for row in rows if row["unscored"])),
        "judged_on": " and ".join(JUDGED_SPLITS) if early else "all",
        "n_judged": len(judged),
        "accuracy": accuracy,
        "ci_low": low,
        "ci_high": high,
        "ci_level": level,
        "floor": floor,
        "analysed": not reason,
        "reason": reason,
    }
