"""Pairs of prompts that a planted model solves, and that differ in what one mechanism carries."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interpflow.errors import UserError
from interpflow.models.planted.truth import TASKS, Task
from interpflow.models.planted.vocabulary import (
    ANSWER_POSITION,
    BODY,
    COUNTS,
    LETTERS,
    MARKERS,
    MAX_COUNT,
    NO_MATCH,
    QUERY,
    START,
    TOKEN_ID,
    ids,
)


def make_pairs(task: Task, n: int, seed: int) -> tuple[PlantedPair, ...]:
    """`n` pairs of a task; equal arguments give equal pairs.

    induction: <start> … a b … c d … a is followed by b; the corrupted prompt has a and c exchanged,
    so that d follows. Clean and corrupted prompts have the same distribution.
    redundant: <start> … a b … a is followed by b; the corrupted prompt has another letter in the
    place of the first a, and is followed by <none>.
    counting: <start>, letters and markers, <count> is followed by the number of markers (0 … 6);
    the corrupted prompt has another number, markers and letters being exchanged at as few places
    as possible.
    All prompts have PROMPT_LENGTH tokens.
    Raises UserError for an unknown task or n < 1.
    """
    if n < 1:
        raise UserError(f"{n} pairs cannot be made", where="n", remedy="ask for at least one")
    if task not in _MAKE_PAIR:
        raise UserError(f"unknown task {task!r}", remedy=f"use one of {', '.join(TASKS)}")
    rng = random.Random(seed)
    return tuple(_MAKE_PAIR[task](rng) for _ in range(n))


def _induction_pair(rng: random.Random) -> PlantedPair:
    letters = rng.sample(LETTERS, len(LETTERS))
    (a, b, c, d), rest = letters[:4], letters[4:]
    body, (first, second) = _body_with(rng, [(a, b), (c, d)], rest)
    swapped = list(body)
    swapped[first - 1], swapped[second - 1] = c, a
    return PlantedPair(
        clean=ids([START, *body, a]),
        corrupted=ids([START, *swapped, a]),
        answers=(TOKEN_ID[b], TOKEN_ID[d]),
        spans=_spans(successors=(first + 1, second + 1), changed=(first, second)),
    )


def _redundant_pair(rng: random.Random) -> PlantedPair:
    letters = rng.sample(LETTERS, len(LETTERS))
    (a, b, other), rest = letters[:3], letters[3:]
    body, (first,) = _body_with(rng, [(a, b)], rest)
    changed = list(body)
    changed[first - 1] = other
    return PlantedPair(
        clean=ids([START, *body, a]),
        corrupted=ids([START, *changed, a]),
        answers=(TOKEN_ID[b], TOKEN_ID[NO_MATCH]),
        spans=_spans(successors=(first + 1,), changed=(first,)),
    )


def _counting_pair(rng: random.Random) -> PlantedPair:
    counts = rng.sample(range(MAX_COUNT + 1), 2)
    fewer, more = min(counts), max(counts)
    places = sorted(rng.sample(range(BODY), more))
    changed = tuple(sorted(rng.sample(places, more - fewer)))
    many = [rng.choice(MARKERS if i in places else LETTERS) for i in range(BODY)]
    few = [rng.choice(LETTERS) if i in changed else token for i, token in enumerate(many)]
    clean, corrupted = (few, many) if counts[0] == fewer else (many, few)
    return PlantedPair(
        clean=ids([START, *clean, QUERY]),
        corrupted=ids([START, *corrupted, QUERY]),
        answers=(TOKEN_ID[COUNTS[counts[0]]], TOKEN_ID[COUNTS[counts[1]]]),
        spans=_spans(changed=tuple(i + 1 for i in changed)),
    )


def _body_with(
    rng: random.Random, neighbours: list[tuple[str, str]], rest: list[str]
) -> tuple[list[str], list[int]]:
    """A body that holds the two-letter groups at random places among other letters (each once) and
    markers, and the prompt position at which each group begins."""
    n_fillers = BODY - 2 * len(neighbours)
    markers = [rng.choice(MARKERS) for _ in range(n_fillers)]
    fillers = rng.sample([*rest, *markers], n_fillers)
    parts: list[tuple[str, ...]] = [(filler,) for filler in fillers]
    for group in neighbours:
        parts.insert(rng.randrange(len(parts) + 1), group)
    body = [token for part in parts for token in part]
    return body, [body.index(group[0]) + 1 for group in neighbours]


def _spans(**spans: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {**spans, "answer": (ANSWER_POSITION,)}


_MAKE_PAIR: dict[Task, Callable[[random.Random], PlantedPair]] = {
    "induction": _induction_pair,
    "redundant": _redundant_pair,
    "counting": _counting_pair,
}


@dataclass(frozen=True)
class PlantedPair:
    """Token ids of two prompts of equal length, and the token that is right after each.

    answers: (after clean, after corrupted). spans: name -> positions: "answer", where the answer is
    read; "changed", where the prompts differ; "successors" (not in counting), the positions after
    those.
    """

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answers: tuple[int, int]
    spans: dict[str, tuple[int, ...]]

    def as_mapping(self) -> dict[str, Any]:
        """What a sweep takes: clean, corrupted and answers."""
        return {"clean": self.clean, "corrupted": self.corrupted, "answers": self.answers}
