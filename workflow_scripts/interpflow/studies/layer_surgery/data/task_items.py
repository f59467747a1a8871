"""The items of every task that the config names, with what was left out and why."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpflow.config.identity import SPLIT_SHARES, derived_seed
from interpflow.config.layer_surgery import SurgeryTasks
from interpflow.errors import UserError
from interpflow.tables.parquet import read_rows
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items, with_shots
from interpflow.tasks.nlp.held_out import GENERATED_TASKS
from interpflow.tasks.nlp.items import TaskItem, items_of_rows
from interpflow.tasks.nlp.task_files import load_task_files, merged

# Items drawn for each family wanted, as some share one.
DRAWN_PER_FAMILY = 2


@dataclass(frozen=True)
class StudyItems:
    """The items of a study and, by task, how many there were and what became of them.

    n_repeated: items left out as equal to others of their task.
    questions: by task, what a judge is to look at in its completions.
    """

    items: tuple[TaskItem, ...]
    counts: Mapping[str, Mapping[str, Any]]
    n_repeated: int
    questions: Mapping[str, tuple[str, ...]]


def study_items(tasks: SurgeryTasks, seed: int, written_path: Path | str | None) -> StudyItems:
    """At most `tasks.n_items` families of each task with all their wordings, chosen by `seed`.

    Tasks of one name from several sources are one task. Raises UserError for an unknown task, a
    broken file, a prompt with two answers, and where no item is left.
    """
    loaded = load_task_files(tasks.files)
    placed = [
        *_builtin(tasks, seed),
        *((item, "layer_surgery.tasks.files") for item in loaded.items),
    ]
    if written_path is not None:
        kept = [row for row in read_rows(written_path, "surgery_written") if row["kept"]]
        placed += [(item, str(written_path)) for item in _written_items(kept)]
    items, n_repeated = merged(placed)
    by_task: dict[str, list[TaskItem]] = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    chosen: list[TaskItem] = []
    counts: dict[str, dict[str, Any]] = {}
    for task, found in by_task.items():
        some = chosen_families(found, tasks.n_items, derived_seed(seed, "layer_surgery", task))
        shown = with_shots(some, tasks.shots, derived_seed(seed, "layer_surgery", "shots"))
        chosen += shown
        counts[task] = _counts(task, found, some, shown)
    if not chosen:
        raise UserError(
            "no task has an item" if not items else
            f"no task has items enough for {tasks.shots} solved examples before a prompt",
            where="layer_surgery.tasks", remedy="name tasks, or ask for fewer `shots`",
        )  # fmt: skip
    return StudyItems(tuple(chosen), counts, loaded.n_repeated + n_repeated, loaded.questions)


def chosen_families(items: Sequence[TaskItem], n: int, seed: int) -> list[TaskItem]:
    """The items of `n` families (all, if there are fewer) in their order, chosen by `seed` and the
    families alone: other wordings or another order choose the same ones."""
    families = sorted({item.family_id for item in items})
    if len(families) <= n:
        return list(items)
    kept = set(random.Random(seed).sample(families, n))
    return [item for item in items if item.family_id in kept]


def _builtin(tasks: SurgeryTasks, seed: int) -> Iterator[tuple[TaskItem, str]]:
    drawn_by = derived_seed(seed, "layer_surgery", "items")
    for task in BUILTIN_TASKS if tasks.builtin is None else tasks.builtin:
        n = DRAWN_PER_FAMILY * tasks.n_items if task in GENERATED_TASKS else None
        for item in builtin_items(task, n, drawn_by):
            yield item, f"the built-in task {task}"


def _written_items(rows: Sequence[Mapping[str, Any]]) -> list[TaskItem]:
    known = {"kind": "", "family": "", "source": "written"}
    return items_of_rows([{**row, **known} for row in rows])


def _counts(
    task: str, found: Sequence[TaskItem], some: Sequence[TaskItem], shown: Sequence[TaskItem]
) -> dict[str, Any]:
    families = {item.family_id: item.split for item in shown}
    n_by_split = Counter(families.values())
    left_out = {
        "not chosen": len(found) - len(some),
        "too few solved examples": len(some) - len(shown),
    }
    return {
        "sources": sorted({item.source for item in found}),
        "scorers": sorted({item.scorer for item in found}),
        "n_found": len(found),
        "drawn": task in GENERATED_TASKS,
        "n_items": len(shown),
        "n_families": len(families),
        "families_by_split": {name: n_by_split[name] for name, _ in SPLIT_SHARES},
        "left_out": {reason: n for reason, n in left_out.items() if n},
    }
