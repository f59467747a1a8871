"""Operators on what stands after a word: punctuation marks and blanks."""

from __future__ import annotations

import random

from interpflow.tasks.perturbations.proposals import Proposal
from interpflow.tasks.perturbations.text import Placement
from interpflow.tasks.perturbations.words import MIN_WORD_LETTERS, TextWords

MARKS = ".,;:!?"
INSERTED_MARKS = ",.;:"


def punctuation(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """A mark after the word left out, exchanged or written twice; where there is none, one set
    after the word or inside it."""
    word = words.words[index]
    if not word.text[0].isalpha():
        return None
    at = word.end
    gap = words.gap(index)
    if gap[:1] and gap[0] in MARKS:
        change = rng.choice(("delete_mark", "replace_mark", "double_mark"))
        if change == "delete_mark":
            # Nothing would part the word from a letter or digit right after the mark.
            new = "" if gap[1:2] in ("", " ", "\n") else " "
        elif change == "replace_mark":
            new = rng.choice([mark for mark in MARKS if mark != gap[0]])
        else:
            new = gap[0] * 2
        return Proposal(change, at, at + 1, new, (index,))
    if len(word.text) >= MIN_WORD_LETTERS and rng.random() < 0.25:
        at = word.start + rng.randrange(1, len(word.text))
        return Proposal("insert_mark", at, at, ".", (index,))
    return Proposal("insert_mark", at, at, rng.choice(INSERTED_MARKS), (index,))


def whitespace(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """Blanks too many after the word or before its mark, or the one after its mark left out."""
    word = words.words[index]
    gap = words.gap(index)
    at = word.end
    if gap[:1] == " " and rng.random() < 0.5:
        return Proposal("insert_blank", at, at, "\t" if rng.random() < 0.25 else " ", (index,))
    if gap[:1] and gap[0] in MARKS:
        follows = words.text[at + 2 : at + 3]
        if gap[1:2] == " " and follows.isalpha() and word.text[0].isalpha() and rng.random() < 0.5:
            return Proposal("delete_blank", at, at + 2, gap[0], (index, index + 1))
    return Proposal("insert_blank", at, at, " ", (index,))
