"""Does a word belong to a category? The lexicon's verdict, the question, and votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from interpflow.tasks.counting.lexicon import Lexicon

Membership = Literal["yes", "no", "unclear"]
MEMBERSHIPS: tuple[Membership, ...] = get_args(Membership)


def lexicon_verdict(word: str, category: str, lexicon: Lexicon) -> Membership | None:
    """What the lexicon knows; null for a word it does not hold, unclear for one of several senses.

    The lexicon's categories are closed: a word it holds belongs to no category that it does not
    list for it.
    """
    found = lexicon.categories_of(word)
    if not found:
        return None
    if lexicon.is_ambiguous(word):
        return "unclear"
    return "yes" if category in found else "no"


def membership_question(word: str, category: str, plural: str) -> str:
    """What a validator is asked about one word; it is never shown the writer's label."""
    return (
        f'Is "{word}" one of the {plural} (category "{category}") in its everyday meaning? '
        "Answer yes or no; answer unclear if common senses of the word differ in this, or if it "
        "is not an English word."
    )


def decide(votes: Sequence[Membership]) -> Membership:
    """More than half of the votes; unclear otherwise."""
    verdict, n = Counter(votes).most_common(1)[0]
    return verdict if 2 * n > len(votes) else "unclear"
