"""Whole words that edits touched, untouched words to compare them with, and the dose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

from rapidfuzz.distance import Levenshtein

from interpflow.tasks.perturbations.text import (
    Edit,
    PerturbedText,
    SourceText,
    Span,
    moved,
    rebuilt,
)
from interpflow.tasks.perturbations.words import words_of

POSITION_BINS = 10
_WORD = re.compile(r"(?:[^\W_]|['’])+")
_PIECE = re.compile(r"\w+|\s|[^\w\s]")


def edit_distance(original: str, new: str) -> int:
    """Levenshtein distance in characters; exchanging two neighbours counts as two."""
    return Levenshtein.distance(original, new)


def dose(original: str, new: str) -> float:
    """Edited characters per character of the original: Levenshtein distance over length, which
    may exceed 1 where much was added; 0 for two empty texts."""
    return edit_distance(original, new) / max(1, len(original))


def edited_words(
    original: str, perturbed: PerturbedText
) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Words touched by edits: spans in the original, and in the new text, one to one, in order.

    A span is whole words: an edit with every letter that stands against it on either side, so
    that a word left out is taken with the word beside the gap, a word written twice stands
    against one, and two joined words stand against one. Neither span of a pair is empty: where an
    edit touches no word at all, its spans reach to the nearest word (a sentence set after the
    question is taken with the question's last word and mark). Edits whose words meet are one.
    """
    units: list[tuple[int, int, Edit, Edit]] = []
    for edit in perturbed.edits:
        left, right = _reach(original, edit)
        start, end, first = edit.start - left, edit.end + right, edit
        if units and start < units[-1][1]:
            before = units.pop()
            start, end, first = min(before[0], start), max(before[1], end), before[2]
        units.append((start, end, first, edit))
    clean = tuple((start, end) for start, end, _, _ in units)
    new = tuple(
        (first.new_start - (first.start - start), last.new_end + (end - last.end))
        for start, end, first, last in units
    )
    return clean, new


def _reach(text: str, edit: Edit) -> tuple[int, int]:
    """Characters left and right of an edit that belong to the words it touches."""
    left = right = 0
    while edit.start - left > 0 and _in_word(text[edit.start - left - 1]):
        left += 1
    while edit.end + right < len(text) and _in_word(text[edit.end + right]):
        right += 1
    replaces = any(map(_in_word, text[edit.start : edit.end])) and edit.new_start < edit.new_end
    if left + right > 0 or replaces:
        return left, right
    before = [match.span() for match in _WORD.finditer(text, 0, edit.start)]
    if before:
        return edit.start - before[-1][0], 0
    after = _WORD.search(text, edit.end)
    return 0, after.end() - edit.end if after else 0


def _in_word(character: str) -> bool:
    return character.isalnum() or character in "'’"


def matched_words(targets: Sequence[Span], candidates: Sequence[Span], length: int) -> list[Span]:
    """For each target in turn the candidate nearest in letters and in tenth of the text, each
    taken once; fewer than the targets where candidates run out. `length`: of the text.

    Letters and tenths count alike; of equals, the first in the text.
    """
    left = sorted(candidates)
    found: list[Span] = []
    for start, end in targets:
        if not left:
            break
        best = min(
            left,
            key=lambda span: (
                abs((span[1] - span[0]) - (end - start))
                + abs(_bin(span[0], length) - _bin(start, length)),
                span,
            ),
        )
        left.remove(best)
        found.append(best)
    return found


def _bin(at: int, length: int) -> int:
    return POSITION_BINS * at // max(1, length)


def control_words(
    source: SourceText, perturbed: PerturbedText
) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Untouched words matched to the edited ones in letters and place: spans in the original, and
    in the new text, one to one, in order. Protected words, numbers and negations are never
    taken; there may be fewer than edited words."""
    touched, _ = edited_words(source.text, perturbed)
    free = [
        word.span
        for word in words_of(source).words
        if word.editable and all(word.end <= start or end <= word.start for start, end in touched)
    ]
    matches = sorted(matched_words(touched, free, len(source.text)))
    return tuple(matches), tuple(moved(span, perturbed.edits) for span in matches)


def edits_between(original: str, new: str, operator: str) -> PerturbedText:
    """A text given as it is (read from a file, or a rewrite) with the edits that lead to it:
    words, blanks and marks that were replaced, found by the least edit distance of such pieces.

    What was added or left out, and could stand in several places, stands in the last of them, so
    that a word set between two others is taken with the one that follows.
    """
    old_pieces, new_pieces = _PIECE.findall(original), _PIECE.findall(new)
    old_starts, new_starts = (
        list(accumulate(map(len, pieces), initial=0)) for pieces in (old_pieces, new_pieces)
    )
    changes = _joined(
        [
            (op.src_start, op.src_end, op.dest_start, op.dest_end)
            for op in Levenshtein.opcodes(old_pieces, new_pieces)
            if op.tag != "equal"
        ]
    )
    edits = []
    ends = [(start, a) for start, _, a, _ in changes[1:]]
    for place, limit in zip(changes, [*ends, (len(old_pieces), len(new_pieces))]):
        start, end, a, b = _moved_right(place, old_pieces, new_pieces, limit)
        text = new[new_starts[a] : new_starts[b]]
        edits.append(("given", old_starts[start], old_starts[end], text))
    return rebuilt(original, edits, operator)


# Pieces [start, end) of the original became pieces [new start, new end) of the new text.
_Change = tuple[int, int, int, int]


def _joined(changes: list[_Change]) -> list[_Change]:
    joined = list(changes[:1])
    for before, after in pairwise(changes):
        if before[1] == after[0] and before[3] == after[2]:
            joined[-1] = joined[-1][0], after[1], joined[-1][2], after[3]
        else:
            joined.append(after)
    return joined


def _moved_right(place: _Change, old: list[str], new: list[str], limit: tuple[int, int]) -> _Change:
    start, end, a, b = place
    while (
        end < limit[0]
        and b < limit[1]
        and ((start == end and new[a] == new[b]) or (a == b and old[start] == old[end]))
    ):
        start, end, a, b = start + 1, end + 1, a + 1, b + 1
    return start, end, a, b
