"""Typing errors: single edits of letters inside words, never of numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from interpflow.tasks.perturbations import letters
from interpflow.tasks.perturbations.letters import EditLetter
from interpflow.tasks.perturbations.words import MIN_WORD_LETTERS, NUMBER_WORDS

MAX_REDRAWS = 50
WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Typo:
    """One edited word; `start` is its character position in the original text."""

    operation: str
    start: int
    before: str
    after: str


@dataclass(frozen=True)
class TypoText:
    """A text with typing errors. `typos` may be fewer than asked when too few words allow one."""

    text: str
    typos: tuple[Typo, ...]


def _word_edit(edit: EditLetter) -> Callable[[str, int, random.Random], str]:
    return lambda word, at, rng: letters.applied(word, edit(word, at, rng))


OPERATIONS: dict[str, Callable[[str, int, random.Random], str]] = {
    "substitute": _word_edit(letters.substitute),
    "transpose": _word_edit(letters.transpose),
    "delete": _word_edit(letters.delete),
    "insert": _word_edit(letters.insert),
}


def typo_word(word: str, operation: str, rng: random.Random, avoid: Collection[str] = ()) -> str:
    """One edit of a word, its first letter kept; the word itself if every try gives it back.

    `avoid`: lower-case words that an edit must not produce.
    """
    for _ in range(MAX_REDRAWS):
        edited = OPERATIONS[operation](word, rng.randrange(1, len(word)), rng)
        if edited != word and edited.lower() not in avoid:
            return edited
    return word


def add_typos(
    text: str,
    n_typos: int,
    seed: int,
    operations: tuple[str, ...] = tuple(OPERATIONS),
    protected: Collection[str] = (),
    avoid: Collection[str] = (),
) -> TypoText:
    """Put one typing error into each of `n_typos` different words.

    Digits, number words, words of fewer than four letters and `protected` words (lower case) stay
    as they are, as do spaces, punctuation and line ends; every reported typo changed its word.
    """
    rng = random.Random(seed)
    words = [
        match
        for match in WORD.finditer(text)
        if len(match[0]) >= MIN_WORD_LETTERS
        and match[0].lower() not in NUMBER_WORDS
        and match[0].lower() not in protected
    ]
    rng.shuffle(words)
    typos: list[Typo] = []
    for match in words:
        if len(typos) == n_typos:
            break
        operation = rng.choice(operations)
        edited = typo_word(match[0], operation, rng, avoid)
        if edited != match[0]:
            typos.append(Typo(operation, match.start(), match[0], edited))
    typos.sort(key=lambda typo: typo.start)
    for typo in reversed(typos):
        end = typo.start + len(typo.before)
        text = text[: typo.start] + typo.after + text[end:]
    return TypoText(text, tuple(typos))
