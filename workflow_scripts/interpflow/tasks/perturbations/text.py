"""What perturbations take and give: a text with its kinds of words, and the text as edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

# Half-open characters [start, end) of a text.
Span = tuple[int, int]
Placement = Literal["any", "main", "other"]
# clean: the prompt itself; given: a variant read from a file or a data set.
FAMILIES = ("clean", "control", "typo", "obfuscation", "style", "rewrite", "given")


@dataclass(frozen=True)
class SourceText:
    """A question and its words by what they are for. The spans are sorted and do not overlap
    within a kind.

    protected: never edited unless asked (numbers, operators, words that bear the answer).
    main: content words that the task turns on. other: words that the answer does not depend on.
    """

    text: str
    protected: tuple[Span, ...] = ()
    main: tuple[Span, ...] = ()
    other: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Edit:
    """Characters [start, end) of the original became [new_start, new_end) of the new text.

    Either span may be empty: what was inserted has none before, what was deleted none after.
    """

    operation: str
    start: int
    end: int
    new_start: int
    new_end: int


@dataclass(frozen=True)
class PerturbedText:
    """A text after its edits, which stand in order and do not overlap. Outside them, it is the
    original character for character.

    A null operator has no edits.
    """

    text: str
    operator: str
    edits: tuple[Edit, ...] = ()

    @property
    def n_edits(self) -> int:
        return len(self.edits)


@dataclass(frozen=True)
class Rejected:
    """Why an operator gives no variant of a text, in a few words that are the same for all texts
    ("too few words", "text unchanged")."""

    operator: str
    reason: str


def rebuilt(
    original: str, edits: Sequence[tuple[str, int, int, str]], operator: str
) -> PerturbedText:
    """The text after replacements (operation, start, end, new characters) of parts of `original`.

    Replacements must not overlap; they may be given in any order.
    """
    pieces: list[str] = []
    done: list[Edit] = []
    ordered = sorted(edits, key=lambda edit: (edit[1], edit[2]))
    for (_, _, end, _), (_, start, _, _) in pairwise(ordered):
        if start < end:
            raise ValueError(f"edits of {operator!r} overlap at character {start}")
    at = length = 0
    for operation, start, end, new in ordered:
        pieces += [original[at:start], new]
        length += start - at
        done.append(Edit(operation, start, end, length, length + len(new)))
        length += len(new)
        at = end
    return PerturbedText("".join([*pieces, original[at:]]), operator, tuple(done))


def moved(span: Span, edits: Sequence[Edit]) -> Span:
    """Where a span of the original stands in the new text; one that an edit touches covers the
    edit's new characters as well."""

    def place(at: int, *, is_end: bool) -> int:
        shift = 0
        for edit in edits:
            if edit.end < at or (edit.end == at and (edit.start < edit.end or not is_end)):
                shift = edit.new_end - edit.end
            elif edit.start < at < edit.end:
                return edit.new_end if is_end else edit.new_start
            else:
                break
        return at + shift

    return place(span[0], is_end=False), place(span[1], is_end=True)
