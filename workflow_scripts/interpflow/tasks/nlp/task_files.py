"""Own task files: our layout in YAML or JSON, and lists of tasks with examples and questions.

Our layout, one task or a list of them:
    {name, scorer?, kind?, items: [{prompt, answer, scorer?, accepted?, pattern?, kind?, family?}]}
The other layout, a list of:
    {name, description?, examples: [{prompt, answer}], eval_questions?: [question, ...]}
whose questions are what a judge is asked about a completion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from interpflow.errors import UserError
from interpflow.tasks.nlp.items import SCORERS, Scorer, TaskItem
from interpflow.tasks.nlp.scorers import number_of

ITEM_KEYS = ("prompt", "answer", "scorer", "accepted", "pattern", "kind", "family")
TASK_KEYS = ("name", "description", "scorer", "kind", "items", "examples", "eval_questions")
NO_SPACE_BEHIND = " \t\n([{<\"'“‘`$#@_/\\"


@dataclass(frozen=True)
class LoadedTasks:
    """Items of own files in their order; `n_repeated` equal ones were left out.

    questions: by task, what a judge is to look at in its completions.
    """

    items: tuple[TaskItem, ...]
    n_repeated: int = 0
    questions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def load_task_files(paths: Sequence[Path | str]) -> LoadedTasks:
    """The items of task files; tasks of one name are merged, equal items dropped and counted.

    An answer begins with the space that the prompt ends in; a word or number gets one where neither
    has any, but for behind a line break, an opening bracket or a quote.
    Without a scorer an item is scored as a set where it accepts several answers, by its pattern
    where it has one, else exactly. Raises UserError naming file, task and item number (from 1) for
    a file that cannot be read, a missing or unknown field, an unknown scorer, a pattern that is no
    regular expression or does not match its answer, an empty answer, and a prompt that comes again
    with another answer.
    """
    questions: dict[str, tuple[str, ...]] = {}
    placed: list[tuple[TaskItem, str]] = []
    for path in (Path(path).expanduser() for path in paths):
        for number, task in enumerate(_read(path), 1):
            name, asked, items = _task(task, path, number)
            placed += items
            if asked:
                questions[name] = tuple(dict.fromkeys((*questions.get(name, ()), *asked)))
    items, n_repeated = merged(placed)
    return LoadedTasks(tuple(items), n_repeated, questions)


def merged(placed: Iterable[tuple[TaskItem, str]]) -> tuple[list[TaskItem], int]:
    """Items with where they come from, without those equal to an earlier one, and how many these
    were. Raises UserError for a prompt of a task that comes again with another answer."""
    kept: dict[tuple[str, str], tuple[TaskItem, str]] = {}
    n_repeated = 0
    for item, where in placed:
        before = kept.setdefault((item.task, item.prompt), (item, where))
        if before[0] is item:
            continue
        if before[0].example_id != item.example_id:
            raise UserError(
                f"the prompt {item.prompt[-60:]!r} comes again with another answer or scorer "
                f"({before[0].answer.strip()!r} before, now {item.answer.strip()!r})",
                where=f"{where}; before in {before[1]}",
                remedy="keep one of them, with the other answer under `accepted`",
            )
        n_repeated += 1
    return [item for item, _ in kept.values()], n_repeated


def _task(
    task: Any, path: Path, number: int
) -> tuple[str, tuple[str, ...], list[tuple[TaskItem, str]]]:
    """Name, a judge's questions, and the items with their places."""
    where = f"{path}, task {number}"
    if not isinstance(task, Mapping):
        raise UserError(
            f"this is {type(task).__name__}, not a task", where=where,
            remedy="write {name: ..., items: [{prompt: ..., answer: ...}]}",
        )  # fmt: skip
    _check_keys(task, TASK_KEYS, where)
    name = _text(task, "name", where).strip()
    if not name:
        raise UserError("the task has no name", where=where, remedy="add `name: ...`")
    where = f"{path}, task {name!r}"
    entries = [
        entry for key in ("items", "examples") if key in task for entry in _list(task, key, where)
    ]
    if not entries:
        raise UserError(
            "the task has no items", where=where, remedy="add items: [{prompt: ..., answer: ...}]"
        )
    items = []
    for position, entry in enumerate(entries, 1):
        at = f"{where}, item {position}"
        items.append((_item(name, task, entry, at), at))
    asked = _list(task, "eval_questions", where) if "eval_questions" in task else []
    return name, tuple(_scalar(each, "eval_questions", where) for each in asked), items


def _read(path: Path) -> Sequence[Any]:
    readers = {".yaml": yaml.safe_load, ".yml": yaml.safe_load, ".json": json.loads}
    if path.suffix.lower() not in readers:
        raise UserError(f"a task file cannot end in {path.suffix!r}", where=str(path),
                        remedy=f"use one of: {', '.join(readers)}")  # fmt: skip
    try:
        found = readers[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path),
                        remedy="check layer_surgery.tasks.files") from None  # fmt: skip
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the file cannot be read: {' '.join(str(error).split())}",
                        where=str(path)) from error  # fmt: skip
    tasks = found.get("tasks", [found]) if isinstance(found, Mapping) else found
    if not isinstance(tasks, list) or not tasks:
        raise UserError("the file holds no tasks", where=str(path),
                        remedy="write a task, or a list of tasks")  # fmt: skip
    return tasks


def _list(task: Mapping[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(task[key], list):
        raise UserError(f"{key} is {type(task[key]).__name__}, not a list", where=where,
                        remedy="write [..., ...]")  # fmt: skip
    return task[key]


def _item(name: str, task: Mapping[str, Any], entry: Any, where: str) -> TaskItem:
    if not isinstance(entry, Mapping):
        raise UserError(f"this is {type(entry).__name__}, not an item", where=where,
                        remedy="write {prompt: ..., answer: ...}")  # fmt: skip
    _check_keys(entry, ITEM_KEYS, where)
    pattern = _text(entry, "pattern", where)
    accepted = _accepted(entry, where)
    scorer = _scorer(entry.get("scorer") or task.get("scorer"), accepted, pattern, where)
    prompt = _text(entry, "prompt", where)
    if not prompt.strip():
        raise UserError("the item has no prompt", where=where, remedy="add `prompt: ...`")
    answer = _text(entry, "answer", where)
    if not answer.strip():
        raise UserError(
            "the answer is empty" if "answer" in entry else "the item has no answer", where=where,
            remedy="add `answer: ...`: its log-probability is what is measured",
        )  # fmt: skip
    if prompt.endswith(" ") and not answer[0].isspace():
        # A space belongs to the word behind it: so tokenizers cut text.
        prompt, answer = prompt.removesuffix(" "), f" {answer}"
    elif answer[0].isalnum() and prompt[-1] not in NO_SPACE_BEHIND:
        answer = f" {answer}"
    item = TaskItem(
        task=name,
        prompt=prompt,
        answer=answer,
        scorer=scorer,
        accepted=tuple(dict.fromkeys([answer.strip(), *accepted])),
        pattern=pattern,
        kind=_text(entry, "kind", where) or _text(task, "kind", where),
        family=_text(entry, "family", where),
        source="file",
    )
    _check_scoring(item, where)
    return item


def _scorer(value: Any, accepted: Sequence[str], pattern: str, where: str) -> Scorer:
    if value is None:
        return "regex" if pattern else "set" if accepted else "exact"
    if value not in SCORERS:
        raise UserError(f"there is no scorer {value!r}", where=where,
                        remedy=f"one of: {', '.join(SCORERS)}")  # fmt: skip
    return value


def _check_scoring(item: TaskItem, where: str) -> None:
    if item.scorer == "number":
        wrong = [each for each in item.accepted if number_of(each) is None]
        if wrong:
            raise UserError(f"the answer {wrong[0]!r} holds no number", where=where,
                            remedy="write a number, or choose another scorer")  # fmt: skip
    if item.scorer != "regex":
        if item.pattern:
            raise UserError(f"a pattern is of no use to the scorer {item.scorer}", where=where,
                            remedy="leave `pattern` out, or write `scorer: regex`")  # fmt: skip
        return
    if not item.pattern:
        raise UserError("the scorer regex needs a pattern", where=where,
                        remedy="add `pattern: ...`")  # fmt: skip
    try:
        matches = re.match(item.pattern, item.answer.strip())
    except re.error as error:
        raise UserError(f"the pattern {item.pattern!r} is no regular expression: {error}",
                        where=where, remedy="mend it; quote it in YAML") from error  # fmt: skip
    if matches is None:
        raise UserError(f"the pattern {item.pattern!r} does not match the answer "
                        f"{item.answer.strip()!r}", where=where,
                        remedy="patterns are matched from the first character on")  # fmt: skip


def _accepted(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    given = entry.get("accepted", [])
    if not isinstance(given, list) or any(isinstance(each, (list, Mapping)) for each in given):
        raise UserError("`accepted` is no list of answers", where=where,
                        remedy="write accepted: [one, other]")  # fmt: skip
    words = tuple(_scalar(each, "accepted", where).strip() for each in given)
    if any(not word for word in words):
        raise UserError("an accepted answer is empty", where=where, remedy="leave it out")
    return words


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    return _scalar(entry.get(key), key, where)


def _scalar(value: Any, key: str, where: str) -> str:
    """Text; numbers as they are written. YAML reads yes and no as truth values: these are refused,
    as nobody can say how they were spelled."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"`{key}` is {value!r}, not text", where=where, remedy="put it in quotes")
    text = value if isinstance(value, str) else str(value)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise UserError(f"`{key}` holds half of a surrogate pair, which is no character",
                        where=where, remedy="write the character itself")  # fmt: skip
    return text


def _check_keys(entry: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = [str(key) for key in entry if key not in known]
    if unknown:
        raise UserError(f"unknown field {unknown[0]!r}", where=where,
                        remedy=f"the fields are: {', '.join(known)}")  # fmt: skip
