"""Smallest sets that keep a property, searched through a function that tests sets at once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from interpflow.errors import UserError

LOG = logging.getLogger(__name__)

BlockSet = frozenset[int]
# Sets that are to be tried next; what is sent back says which of them have the property.
Search = Generator[list[BlockSet], list[float], "FoundSet"]


@dataclass(frozen=True)
class FoundSet:
    """The smallest set that a search came to.

    score: of the set. holds: whether that is at least the threshold; if not even all elements reach
    it, `elements` are all of them. is_minimal: no element can be left out alone, which was tried
    for every one; False too when the search had to end before. n_tried: sets tried.
    """

    elements: BlockSet
    score: float
    holds: bool
    is_minimal: bool
    n_tried: int


def minimal_set(
    elements: Sequence[int],
    scores: Callable[[Sequence[BlockSet]], Sequence[float]],
    threshold: float,
    *,
    max_tried: int,
    what: str = "sets",
) -> FoundSet:
    """A minimal subset of `elements` whose score is at least `threshold`.

    `scores` gives the score of several sets at once. See `search` for the algorithm; of several
    minimal sets one is found. Raises UserError unless at least one set may be tried.
    """
    steps = search(elements, threshold, max_tried=max_tried)
    wanted = next(steps)
    while True:
        try:
            wanted = steps.send(list(scores(wanted)))
            LOG.info("%s: %d more are tried", what, len(wanted))
        except StopIteration as end:
            return end.value


def search(elements: Sequence[int], threshold: float, *, max_tried: int) -> Search:
    """Delta debugging (Zeller & Hildebrandt 2002), as a generator that yields the sets to be tried.

    The set is cut into n parts; the best of the sets that lack one part and still reach the
    threshold is kept, else the parts are halved; with parts of one element this is backward
    elimination. All sets of a round are yielded together, so that searches of several properties
    can be measured in one go. No set is tried twice.
    """
    if max_tried < 1:
        raise UserError("a search needs at least one set to try", where="max_tried")
    known: dict[BlockSet, float] = {}

    def asked(sets: list[BlockSet]) -> Generator[list[BlockSet], list[float], bool]:
        """Learn the scores of new sets; whether there was room for all of them."""
        new = [one for one in dict.fromkeys(sets) if one not in known]
        room = new[: max(0, max_tried - len(known))]
        if room:
            known.update(zip(room, (yield room), strict=True))
        return len(room) == len(new)

    current = frozenset(elements)
    yield from asked([current])
    if not known[current] >= threshold:
        return FoundSet(current, known[current], False, False, len(known))
    if not current:
        return FoundSet(current, known[current], True, True, len(known))
    n_parts = 2
    while True:
        ordered = sorted(current)
        n_parts = min(n_parts, len(ordered))
        smaller = [current - frozenset(part) for part in _parts(ordered, n_parts)]
        complete = yield from asked(smaller)
        reached = [one for one in smaller if known.get(one, float("-inf")) >= threshold]
        if reached:
            # Of equal sizes the better score; the smaller set first.
            current = max(reached, key=lambda one: (-len(one), known[one]))
            n_parts = max(2, n_parts - 1)
            if not current:
                return FoundSet(current, known[current], True, True, len(known))
        elif not complete or n_parts >= len(ordered):
            single = n_parts >= len(ordered) and complete
            return FoundSet(current, known[current], True, single, len(known))
        else:
            n_parts = 2 * n_parts


def _parts(ordered: Sequence[int], n_parts: int) -> list[Sequence[int]]:
    edges = [len(ordered) * place // n_parts for place in range(n_parts + 1)]
    return [ordered[low:high] for low, high in itertools.pairwise(edges)]
