"""Typing errors: single edits of letters inside words, never of numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

# Letters next to each other on a QWERTY keyboard, same row and the rows above and below.
KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
MIN_WORD_LETTERS = 4  # a shorter word is easily turned into another word
MAX_REDRAWS = 50
WORD = re.compile(r"[A-Za-z]+")
# fmt: off
NUMBER_WORDS = frozenset(
    {
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
        "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
        "hundred", "thousand", "half", "twice", "double", "triple", "dozen",
    }
)
# fmt: on


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


def _neighbours() -> dict[str, str]:
    found: dict[str, set[str]] = {letter: set() for row in KEYBOARD_ROWS for letter in row}
    for r, row in enumerate(KEYBOARD_ROWS):
        for c, letter in enumerate(row):
            places = ((r, (c - 1, c + 1)), (r + 1, (c - 1, c)), (r - 1, (c, c + 1)))
            for other_row, columns in places:
                if 0 <= other_row < len(KEYBOARD_ROWS):
                    for column in columns:
                        if 0 <= column < len(KEYBOARD_ROWS[other_row]):
                            found[letter].add(KEYBOARD_ROWS[other_row][column])
    return {letter: "".join(sorted(near)) for letter, near in found.items()}


NEIGHBOURS = _neighbours()


def _near(letter: str, rng: random.Random) -> str:
    near = rng.choice(NEIGHBOURS[letter.lower()])
    return near.upper() if letter.isupper() else near


def _substitute(word: str, at: int, rng: random.Random) -> str:
    return word[:at] + _near(word[at], rng) + word[at + 1 :]


def _transpose(word: str, at: int, rng: random.Random) -> str:
    if at + 1 == len(word):
        at -= 1
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _delete(word: str, at: int, rng: random.Random) -> str:
    return word[:at] + word[at + 1 :]


def _insert(word: str, at: int, rng: random.Random) -> str:
    return word[: at + 1] + _near(word[at], rng).lower() + word[at + 1 :]


OPERATIONS: dict[str, Callable[[str, int, random.Random], str]] = {
    "substitute": _substitute,
    "transpose": _transpose,
    "delete": _delete,
    "insert": _insert,
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
