"""The built-in small language tasks: listed ones, whose items are few, and ones drawn by seed."""

from __future__ import annotations

import difflib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from interpflow.config.identity import derived_seed
from interpflow.errors import UserError
from interpflow.tasks.nlp.generated import DRAWS, draws
from interpflow.tasks.nlp.held_out import held_out
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.listed import LISTED_TASKS, listed_items

BUILTIN_TASKS: tuple[str, ...] = (*LISTED_TASKS, *DRAWS)
DEFAULT_DRAWN = 64
MAX_IDLE_DRAWS = 2000  # a task of which so many draws in a row show nothing new has no more
ENDS = {"addition": "\n", "addition_three": "\n", "json": "\n", "code": "\n", "pattern": ","}


def end_of(task: str) -> str:
    """What follows an answer of the task in running text: "." for sentences and own tasks."""
    return ENDS.get(task, ".")


def builtin_items(task: str, n: int | None, seed: int) -> list[TaskItem]:
    """`n` different items of a built-in task, chosen or drawn by `seed`.

    None: every item of a listed task, `DEFAULT_DRAWN` of a drawn one. A task that has no
    `n` items gives all that it has. Drawn items are of families on which the reference model was
    not trained. Raises UserError for a task that does not exist.
    """
    if task not in BUILTIN_TASKS:
        near = difflib.get_close_matches(task, BUILTIN_TASKS, n=1)
        raise UserError(
            f"there is no built-in task {task!r}", where="layer_surgery.tasks.builtin",
            remedy=f"did you mean {near[0]!r}?" if near else f"one of {', '.join(BUILTIN_TASKS)}",
        )  # fmt: skip
    rng = random.Random(derived_seed(seed, "builtin_items", task))
    if task in LISTED_TASKS:
        items = list(listed_items(task))
        return items if n is None else rng.sample(items, min(n, len(items)))
    return _drawn(task, DEFAULT_DRAWN if n is None else n, rng)


def _drawn(task: str, n: int, rng: random.Random) -> list[TaskItem]:
    items: dict[str, TaskItem] = {}
    n_idle = 0
    for item in filter(held_out, draws(task, rng)):
        if len(items) >= n or n_idle > MAX_IDLE_DRAWS:
            break
        n_idle = n_idle + 1 if item.prompt in items else 0
        items.setdefault(item.prompt, item)
    return list(items.values())


def with_shots(items: Sequence[TaskItem], n_shots: int, seed: int) -> list[TaskItem]:
    """The items with `n_shots` solved examples before each prompt.

    Examples are of the same task and other families, one a family, of the item's own split as far
    as it has enough; the same items and seed give the same ones. An item whose task has too few
    other families is left out, so that all that come back have the same number of examples.
    """
    if not n_shots:
        return list(items)
    by_task: dict[str, list[TaskItem]] = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    shown = []
    for item in items:
        rng = random.Random(derived_seed(seed, "with_shots", item.example_id))
        one_each = {other.family_id: other for other in by_task[item.task]}
        others = [one_each[key] for key in sorted(one_each) if key != item.family_id]
        if len(others) < n_shots:
            continue
        rng.shuffle(others)
        others.sort(key=lambda other: other.split != item.split)
        examples = "".join(solved(example) + "\n" for example in others[:n_shots])
        # A family without a name is its prompt, which must not change with the examples.
        shown.append(
            replace(item, prompt=examples + item.prompt, family=item.family or item.prompt)
        )
    return shown


def solved(item: TaskItem) -> str:
    """Prompt, answer and what ends it, without a line break."""
    return (item.prompt + item.answer + end_of(item.task)).rstrip("\n")
