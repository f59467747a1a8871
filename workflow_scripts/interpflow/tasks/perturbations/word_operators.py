"""Operators on whole words: left out, written twice, exchanged, split, joined."""

from __future__ import annotations

import random

from interpflow.tasks.perturbations.proposals import Proposal
from interpflow.tasks.perturbations.text import Placement
from interpflow.tasks.perturbations.words import MIN_WORD_LETTERS, TextWords


def missing_word(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """The word left out with one blank beside it. A word that the task turns on is left out only
    where placement `main` asks for it: a reader could not supply it."""
    word = words.words[index]
    if word.is_main and placement != "main":
        return None
    after = words.gap(index) == " " and index + 1 < len(words.words)
    before = index > 0 and words.gap(index - 1) == " "
    # The word that remains beside the gap counts as touched: rather one that is no number.
    if after and (not before or words.words[index + 1].editable):
        return Proposal("missing_word", word.start, word.end + 1, "", (index, index + 1))
    if before:
        return Proposal("missing_word", word.start - 1, word.end, "", (index - 1, index))
    return None


def doubled_word(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """The word written twice."""
    word = words.words[index]
    if not word.text[0].isalpha():
        return None
    return Proposal("doubled_word", word.end, word.end, f" {word.text}", (index,))


def _neighbour(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> int | None:
    """Left one of two words that may be joined or exchanged: one blank between them, both to be
    edited, and with placement `other` none that the task turns on."""
    lefts = []
    for left in (index - 1, index):
        if left < 0 or left + 1 >= len(words.words) or words.gap(left) != " ":
            continue
        pair = words.words[left], words.words[left + 1]
        if all(word.editable and word.text[0].isalpha() for word in pair) and not (
            placement == "other" and any(word.is_main for word in pair)
        ):
            lefts.append(left)
    return rng.choice(lefts) if lefts else None


def word_swap(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """The word and one beside it in the other order."""
    left = _neighbour(words, index, placement, rng)
    if left is None:
        return None
    first, second = words.words[left], words.words[left + 1]
    if first.text == second.text:
        return None
    new = f"{second.text} {first.text}"
    return Proposal("word_swap", first.start, second.end, new, (left, left + 1))


def word_merge(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """No blank between the word and one beside it."""
    left = _neighbour(words, index, placement, rng)
    if left is None:
        return None
    end = words.words[left].end
    return Proposal("word_merge", end, end + 1, "", (left, left + 1))


def word_split(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """A blank inside the word, with two letters or more on both sides."""
    word = words.words[index]
    if len(word.text) < MIN_WORD_LETTERS or not word.text[0].isalpha():
        return None
    at = word.start + rng.randrange(2, len(word.text) - 1)
    return Proposal("word_split", at, at, " ", (index,))
