"""Operators that edit letters inside one word; the first letter of a word stays as it is, and of
a word of one letter nothing but the letter itself can change."""

from __future__ import annotations

import random

from interpflow.tasks.perturbations import letters
from interpflow.tasks.perturbations.letters import EditLetter, has_neighbours
from interpflow.tasks.perturbations.proposals import Proposal, Propose
from interpflow.tasks.perturbations.text import Placement
from interpflow.tasks.perturbations.words import TextWords

# What a scanner reads instead; letters only, so that no digit is taken or made.
OCR_CONFUSIONS = {
    "rn": ("m",), "m": ("rn", "nn"), "cl": ("d",), "d": ("cl",), "vv": ("w",), "w": ("vv",),
    "li": ("h",), "h": ("b", "li"), "ri": ("n",), "n": ("ri", "u"), "u": ("ii", "n"),
    "l": ("I", "i"), "i": ("j", "l"), "I": ("l",), "e": ("c",), "c": ("e",), "o": ("c", "e"),
    "a": ("o", "e"), "t": ("f", "l"), "f": ("t",), "g": ("q",), "q": ("g",), "y": ("v",),
    "v": ("y",), "b": ("h",), "s": ("a",), "r": ("v",), "k": ("lc",), "p": ("n",), "x": ("z",),
    "z": ("x",), "nn": ("rm",), "in": ("m",), "tt": ("ff",),
}  # fmt: skip
# Letters of other alphabets that look the same (all Cyrillic).
HOMOGLYPHS = {
    "a": "а", "c": "с", "d": "ԁ", "e": "е", "h": "һ", "i": "і", "j": "ј", "o": "о",
    "p": "р", "q": "ԛ", "s": "ѕ", "w": "ԝ", "x": "х", "y": "у",
    "A": "А", "B": "В", "C": "С", "E": "Е", "H": "Н", "I": "І", "J": "Ј", "K": "К", "M": "М",
    "O": "О", "P": "Р", "S": "Ѕ", "T": "Т", "X": "Х", "Y": "Ү",
}  # fmt: skip
# Space, non-joiner, joiner, word joiner, no-break space: none of them has a width.
ZERO_WIDTH = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")


def _letter_operator(operation: str, edit: EditLetter, min_length: int) -> Propose:
    def propose(
        words: TextWords, index: int, placement: Placement, rng: random.Random
    ) -> Proposal | None:
        word = words.words[index]
        if len(word.text) < min_length:
            return None
        # The first digit of a number bears as much as the others.
        first = 0 if len(word.text) == 1 or word.text[0].isdigit() else 1
        places = [at for at in range(first, len(word.text)) if _can(operation, word.text, at)]
        if not places:
            return None
        start, end, new = edit(word.text, rng.choice(places), rng)
        return Proposal(operation, word.start + start, word.start + end, new, (index,))

    return propose


def _can(operation: str, word: str, at: int) -> bool:
    if operation in ("keyboard", "insertion"):
        return has_neighbours(word[at])
    if operation == "transposition":
        # The first letter stays, and letters that are equal cannot change places.
        return (
            at + 1 < len(word)
            and word[at].isalnum()
            and word[at + 1].isalnum()
            and (word[at].lower() != word[at + 1].lower())
        )
    return word[at].isalnum()


keyboard = _letter_operator("keyboard", letters.substitute, 1)
transposition = _letter_operator("transposition", letters.transpose, 2)
deletion = _letter_operator("deletion", letters.delete, 2)
insertion = _letter_operator("insertion", letters.insert, 1)
repetition = _letter_operator("repetition", letters.repeat, 1)


def letter_case(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """Another case: of the first letter, of all letters, or of one inside the word."""
    word = words.words[index]
    forms = {word.text[0].swapcase() + word.text[1:], word.text.upper(), word.text.lower()}
    inside = rng.randrange(1, len(word.text)) if len(word.text) > 1 else 0
    forms.add(word.text[:inside] + word.text[inside].swapcase() + word.text[inside + 1 :])
    # Some letters have no other case, or one that is written with two letters.
    changed = sorted(form for form in forms if form != word.text and len(form) == len(word.text))
    if not changed:
        return None
    new = rng.choice(changed)
    differing = [at for at, (a, b) in enumerate(zip(word.text, new)) if a != b]
    start, end = differing[0], differing[-1] + 1
    return Proposal("case", word.start + start, word.start + end, new[start:end], (index,))


def ocr(words: TextWords, index: int, placement: Placement, rng: random.Random) -> Proposal | None:
    """Letters read as those that they look like."""
    word = words.words[index]
    if word.text[0].isdigit():
        return None
    found = [
        (at, read)
        for read in OCR_CONFUSIONS
        for at in range(len(word.text) - len(read) + 1)
        if word.text.startswith(read, at)
    ]
    if not found:
        return None
    at, read = rng.choice(found)
    new = rng.choice(OCR_CONFUSIONS[read])
    return Proposal("ocr", word.start + at, word.start + at + len(read), new, (index,))


def homoglyph(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """One letter of another alphabet that looks the same."""
    word = words.words[index]
    places = [at for at, letter in enumerate(word.text) if letter in HOMOGLYPHS]
    if not places:
        return None
    at = rng.choice(places)
    new = HOMOGLYPHS[word.text[at]]
    return Proposal("homoglyph", word.start + at, word.start + at + 1, new, (index,))


def zero_width(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """A character without width inside the word."""
    word = words.words[index]
    if len(word.text) < 2:
        return None
    at = word.start + rng.randrange(1, len(word.text))
    return Proposal("zero_width", at, at, rng.choice(ZERO_WIDTH), (index,))
