"""What an operator that counts its edits gives for one word of a text."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from interpflow.tasks.perturbations.text import Placement
from interpflow.tasks.perturbations.words import TextWords


@dataclass(frozen=True)
class Proposal:
    """One edit: characters [start, end) become `new`. `words` are the places of the words that it
    takes up; no other edit of the same text may take them as well."""

    operation: str
    start: int
    end: int
    new: str
    words: tuple[int, ...]


# An edit of the word at an index, for a placement; None where that word allows none.
Propose = Callable[[TextWords, int, Placement, random.Random], Proposal | None]
