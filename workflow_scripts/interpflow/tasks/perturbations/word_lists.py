"""Operators that look a word up: common misspellings, and words that sound alike."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR
from interpflow.tasks.perturbations.proposals import Proposal
from interpflow.tasks.perturbations.text import Placement
from interpflow.tasks.perturbations.words import TextWords

HOMOPHONES_PATH = RESOURCES_DIR / "perturbations" / "homophones.csv"
MISSPELLINGS_PATH = RESOURCES_DIR / "perturbations" / "misspellings.csv"


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != columns:
                raise UserError(
                    f"columns must be {','.join(columns)}, found {reader.fieldnames}",
                    where=str(path),
                )
            for row in reader:
                if None in row or not all(row.values()):
                    raise UserError("incomplete row", where=f"{path}, line {reader.line_num}")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"word list cannot be read: {error}", where=str(path)) from error


@cache
def load_misspellings(path: Path = MISSPELLINGS_PATH) -> Mapping[str, tuple[str, ...]]:
    """Word to its misspellings, lower case; raises UserError naming the file and line."""
    found: dict[str, list[str]] = {}
    for row in _rows(path, ("word", "misspelling")):
        found.setdefault(row["word"], []).append(row["misspelling"])
    return {word: tuple(wrong) for word, wrong in found.items()}


@cache
def load_homophones(path: Path = HOMOPHONES_PATH) -> Mapping[str, tuple[str, ...]]:
    """Word to the words taken for it, lower case; raises UserError naming the file and line.

    A row holds words that sound alike ("exact") or nearly so ("near"). A word in an exact set is
    exchanged within its exact sets; near sets serve words that have no others.
    """
    found: dict[str, dict[str, list[str]]] = {"exact": {}, "near": {}}
    for row in _rows(path, ("words", "kind")):
        words = row["words"].split()
        if row["kind"] not in found or len(words) < 2:
            raise UserError(
                f"not a set of homophones: {row['words']!r}, {row['kind']!r}",
                where=str(path),
                remedy="two or more words with a blank between them; kind exact or near",
            )
        for word in words:
            others = found[row["kind"]].setdefault(word, [])
            others += [other for other in words if other != word and other not in others]
    return {word: tuple(others) for word, others in {**found["near"], **found["exact"]}.items()}


def in_case_of(model: str, word: str) -> str:
    """A lower-case word with the capitals of another."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def _exchanged(
    operation: str,
    known: Mapping[str, tuple[str, ...]],
    words: TextWords,
    index: int,
    rng: random.Random,
) -> Proposal | None:
    word = words.words[index]
    others = known.get(word.text.lower().replace("’", "'"))
    if not others:
        return None
    new = in_case_of(word.text, rng.choice(others))
    return Proposal(operation, word.start, word.end, new, (index,))


def misspelling(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """A misspelling that people really write."""
    return _exchanged("misspelling", load_misspellings(), words, index, rng)


def homophone(
    words: TextWords, index: int, placement: Placement, rng: random.Random
) -> Proposal | None:
    """Another word that sounds the same."""
    return _exchanged("homophone", load_homophones(), words, index, rng)
