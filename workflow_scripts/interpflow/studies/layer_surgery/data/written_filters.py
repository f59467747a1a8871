"""Why a written item is not kept: its form, its likeness to others, a judge's verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from interpflow.embedding.sentences import embed_texts
from interpflow.stats.duplicates import LIST_THRESHOLD, jaccard
from interpflow.tasks.nlp.builtin import builtin_items
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.listed import LISTED_TASKS
from interpflow.tasks.nlp.scorers import number_of

NOT_NEEDED = "not needed: there are enough"
# Words, numbers and the signs between them.
TERM = re.compile(r"\w+|[-+*/<>=]")


@dataclass(frozen=True)
class Written:
    """An item as it was written, in which round, and why it is not kept, or ""."""

    item: TaskItem
    round: int
    reason: str = ""


def listed_prompts() -> list[TaskItem]:
    """Every item of the built-in tasks that are lists."""
    return [item for task in LISTED_TASKS for item in builtin_items(task, None, 0)]


def same_by_words(item: TaskItem, others: Sequence[TaskItem]) -> str:
    """The prompt of another item that asks the same by its words, or "": equal words; or, with
    the same answer and the same numbers, mostly equal ones (Jaccard index of at least
    `LIST_THRESHOLD`), in any order."""
    terms = terms_of(item.prompt)
    for other in others:
        theirs = terms_of(other.prompt)
        is_like = (
            _has_answer(item, other)
            and _numbers(terms) == _numbers(theirs)
            and jaccard(terms, theirs) >= LIST_THRESHOLD
        )
        if terms == theirs or is_like:
            return other.prompt
    return ""


def same_by_embedding(
    items: Sequence[TaskItem],
    others: Sequence[TaskItem],
    *,
    max_similarity: float,
    device: str = "cpu",
) -> list[str]:
    """For each item, the prompt that is nearer than `max_similarity` by the cosine of sentence
    embeddings, of `others` or of an earlier item that is near none itself; or "".

    Raises UserError as `embed_texts` does.
    """  # fmt: skip
    if not items:
        return []
    vectors = embed_texts([each.prompt for each in (*others, *items)], device=device)
    prompts = [each.prompt for each in others]
    kept = list(vectors[: len(others)])
    found = []
    for item, vector in zip(items, vectors[len(others) :], strict=True):
        cosines = np.array(kept) @ vector if kept else np.zeros(0)
        nearest = int(cosines.argmax()) if kept else -1
        if kept and cosines[nearest] > max_similarity:
            found.append(prompts[nearest])
            continue
        found.append("")
        kept.append(vector)
        prompts.append(item.prompt)
    return found


@cache
def terms_of(text: str) -> tuple[str, ...]:
    """Words, numbers and signs of a prompt without capitals; every prompt meets every other."""
    return tuple(TERM.findall(text.casefold()))


def _numbers(terms: Sequence[str]) -> list[str]:
    return sorted(term for term in terms if term.isdigit())


def _has_answer(item: TaskItem, other: TaskItem) -> bool:
    return _answer(item.answer) == _answer(other.answer)


@cache
def _answer(text: str) -> str:
    number = number_of(text)
    return text.strip().casefold() if number is None else str(number)
