"""Lists that a language model writes: every word with its own category, the count derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, int]  # words in a list, members among them

LISTS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "lists": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "words": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "word": {"type": "string"},
                                "category": {"type": "string"},
                                "is_member": {"type": "boolean"},
                            },
                            "required": ["word", "category", "is_member"],
                            "additionalProperties": False,
                        },
                    }
                },
                "required": ["words"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["lists"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class LabelledWord:
    """A word in its normal form, with the writer's own label: its category, and whether it is a
    member of the asked one."""

    word: str
    category: str
    is_member: bool


@dataclass(frozen=True)
class LabelledList:
    """A list as written. `asked` is the shape that was asked for, not what was made."""

    category: str
    asked: Shape
    words: tuple[LabelledWord, ...]

    @property
    def shape(self) -> Shape:
        return len(self.words), sum(word.is_member for word in self.words)


def normal_form(word: str) -> str:
    """The spelling that words are compared in."""
    return " ".join(word.split()).lower()


def lists_question(
    category: str, plural: str, shapes: Sequence[Shape], avoid: Sequence[str]
) -> str:
    """What a writer of lists is asked; `avoid` are words already used often."""
    lines = [
        f"Write {len(shapes)} lists of single English words about the category "
        f'"{category}" ({plural}).',
        "",
    ]
    for i, (length, count) in enumerate(shapes, start=1):
        lines.append(f"List {i}: {length} words, of which {count} {_are(count)} {plural}.")
    lines += [
        "",
        "The other words of a list belong to clearly different everyday categories, and no sense "
        f"of them is one of the {plural}. Mix members and other words in any order. Use common, "
        "unambiguous words, each at most once in a list, and different words in different lists.",
        "For each word state the category that it belongs to, and whether it is one of the "
        f"{plural}.",
    ]
    if avoid:
        lines.append(f"Do not use: {', '.join(avoid)}.")
    return "\n".join(lines)


def read_lists(
    data: Mapping[str, Any], category: str, shapes: Sequence[Shape]
) -> list[LabelledList]:
    """Lists of a writer's answer that met `LISTS_SCHEMA`; more lists than asked are left out."""
    return [
        LabelledList(
            category=category,
            asked=shape,
            words=tuple(
                LabelledWord(
                    normal_form(entry["word"]), normal_form(entry["category"]), entry["is_member"]
                )
                for entry in written["words"]
            ),
        )
        for written, shape in zip(data["lists"], shapes)
    ]


def fault_of(written: LabelledList, shapes_in_use: frozenset[Shape]) -> str:
    """Why a list cannot be used whatever its labels are worth; empty when it can."""
    words = [entry.word for entry in written.words]
    if len(set(words)) < len(words):
        return "a word occurs twice"
    if any(not word or not all(part.isalpha() for part in word.split("-")) for word in words):
        return "not a single word"
    if written.shape not in shapes_in_use:
        return "no cell of the design has its length and count"
    return ""


def _are(count: int) -> str:
    return "is one of the" if count == 1 else "are"
