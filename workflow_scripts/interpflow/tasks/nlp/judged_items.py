"""Which items a judge decides, since no rule does, or since their file says what to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interpflow.config.layer_surgery import SurgeryTasks
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.task_files import load_task_files


def needs_judge(item: TaskItem, questions: Mapping[str, Sequence[str]]) -> bool:
    """Whether what a model writes for an item is put to a judge: its scorer is `free`, or its task
    has questions for a judge."""
    return item.scorer == "free" or bool(questions.get(item.task))


def asks_free(tasks: SurgeryTasks | None) -> bool:
    """Whether some item of the tasks is judged; only items of own files are.

    Items that the role generator writes have short answers, which rules score. Raises UserError
    for a file that is wrong.
    """
    if tasks is None or not tasks.files:
        return False
    loaded = load_task_files(tasks.files)
    return any(needs_judge(item, loaded.questions) for item in loaded.items)
