"""Edits of one letter inside a word, each as what it replaces: the keyboard lives here."""

from __future__ import annotations

import random
from collections.abc import Callable

# Letters next to each other on a QWERTY keyboard, same row and the rows above and below.
KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
DIGIT_ROW = "1234567890"

# Characters [start, end) of a word, and what stands there instead.
LetterEdit = tuple[int, int, str]
EditLetter = Callable[[str, int, random.Random], LetterEdit]


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
NEAR_DIGITS = {
    digit: DIGIT_ROW[max(0, at - 1) : at] + DIGIT_ROW[at + 1 : at + 2]
    for at, digit in enumerate(DIGIT_ROW)
}


def has_neighbours(character: str) -> bool:
    """Whether the keyboard shows keys beside this one; it does for ASCII letters and digits."""
    return character.lower() in NEIGHBOURS or character in NEAR_DIGITS


def near(character: str, rng: random.Random) -> str:
    """A key beside a letter (its case kept) or a digit; KeyError for any other character."""
    if character in NEAR_DIGITS:
        return rng.choice(NEAR_DIGITS[character])
    found = rng.choice(NEIGHBOURS[character.lower()])
    return found.upper() if character.isupper() else found


def substitute(word: str, at: int, rng: random.Random) -> LetterEdit:
    return at, at + 1, near(word[at], rng)


def transpose(word: str, at: int, rng: random.Random) -> LetterEdit:
    if at + 1 == len(word):
        at -= 1
    return at, at + 2, word[at + 1] + word[at]


def delete(word: str, at: int, rng: random.Random) -> LetterEdit:
    return at, at + 1, ""


def insert(word: str, at: int, rng: random.Random) -> LetterEdit:
    return at + 1, at + 1, near(word[at], rng).lower()


def repeat(word: str, at: int, rng: random.Random) -> LetterEdit:
    return at + 1, at + 1, word[at].lower()


def applied(word: str, edit: LetterEdit) -> str:
    """The word after an edit."""
    start, end, new = edit
    return word[:start] + new + word[end:]
