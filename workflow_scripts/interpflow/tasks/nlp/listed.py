"""Task items from the word lists of resources/tasks: facts, definitions, proverbs and the like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR
from interpflow.tasks.nlp.items import Scorer, TaskItem

TASKS_DIR = RESOURCES_DIR / "tasks"
LISTED_TASKS: tuple[str, ...] = (
    "world_facts", "definitions", "synonyms", "antonyms", "rhymes", "homophones",
    "sentence_completion", "phrases", "history",
)  # fmt: skip
RHYME = "A word that rhymes with {x} is"
OPPOSITES, EQUALS = "opposites", "equals"


@cache
def listed_items(task: str, folder: Path = TASKS_DIR) -> tuple[TaskItem, ...]:
    """Every item of a task of `LISTED_TASKS`, in the order of its file.

    Raises UserError naming the file when it cannot be read or asks one prompt twice.
    """
    path = folder / f"{task}.yaml"
    try:
        # Words such as "no" and "on" must stay words, hence no YAML types but text.
        groups = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        items = [item for group in groups for item in _group_items(task, group)]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the task list cannot be read: {error!r}", where=str(path)) from error
    prompts = [item.prompt for item in items]
    if len(set(prompts)) < len(prompts):
        twice = next(prompt for prompt in prompts if prompts.count(prompt) > 1)
        raise UserError(f"the prompt {twice!r} stands there twice", where=str(path))
    return tuple(items)


def _group_items(task: str, group: Mapping[str, Any]) -> Iterator[TaskItem]:
    if "asked" in group:
        yield from _rhyme_items(task, group)
        return
    rows = {key: _words(value) for key, value in group["rows"].items()}
    both_ways = group.get("both_ways", "")
    families = {key: _pair(key, words[0]) if both_ways else key for key, words in rows.items()}
    if both_ways:
        for key, words in list(rows.items()):
            others = words[1:] if both_ways == EQUALS else ()
            rows.setdefault(words[0], (key, *others))
            families.setdefault(words[0], _pair(key, words[0]))
    kind = group.get("kind", "")
    for key, words in rows.items():
        for wording in group.get("wordings", ["{x}"]):
            yield TaskItem(
                task=task,
                prompt=wording.replace("{x}", key),
                answer=f" {words[0]}",
                scorer=_scorer(group, words),
                accepted=words,
                kind=kind,
                family=" ".join(filter(None, [kind, families[key]])),
            )


def _rhyme_items(task: str, group: Mapping[str, Any]) -> Iterator[TaskItem]:
    asked, words = _words(group["asked"]), _words(group["words"])
    for index, word in enumerate(asked):
        answer = asked[(index + 1) % len(asked)]
        others = dict.fromkeys([answer, *asked, *words])
        yield TaskItem(
            task=task,
            prompt=RHYME.replace("{x}", word),
            answer=f" {answer}",
            scorer="set",
            accepted=tuple(other for other in others if other != word),
            family=asked[0],
        )


def _scorer(group: Mapping[str, Any], words: tuple[str, ...]) -> Scorer:
    return group.get("scorer") or ("set" if len(words) > 1 else "exact")


def _words(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _pair(one: str, other: str) -> str:
    return "/".join(sorted((one, other)))
