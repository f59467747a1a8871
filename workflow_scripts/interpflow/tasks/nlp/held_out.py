"""Which items of the generated tasks the reference models are never trained on."""

from __future__ import annotations

import zlib

from interpflow.tasks.nlp.items import TaskItem

# A fact, a synonym or a rhyme cannot be worked out from others: such lists are trained whole.
GENERATED_TASKS: tuple[str, ...] = (
    "addition",
    "addition_three",
    "json",
    "code",
    "copying",
    "pattern",
)
# One family in so many of a generated task.
HELD_OUT_SHARE = 5


def held_out(item: TaskItem) -> bool:
    """Whether the reference models are never trained on an item.

    Decided by the family, so that every wording of a held-out family is new. False for every item
    of a task whose items are a list.
    """
    if item.task not in GENERATED_TASKS:
        return False
    return zlib.crc32(item.family_id.encode()) % HELD_OUT_SHARE == 0
