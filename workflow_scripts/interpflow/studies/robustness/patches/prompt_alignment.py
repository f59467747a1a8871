"""A clean prompt and its perturbed one token by token: which tokens stand for each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.models.tokens import Encoded
from interpflow.tasks.perturbations.text import Edit, Span, moved

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PromptSide:
    """One prompt of a pair with the common beginning of both answers behind it.

    `ids` of both; the prompt ends before `n_prompt`. Token positions: `edited` [word], the last
    token of each edited word; `edited_span`, all their tokens; `numbers`; `question`.
    """

    ids: tuple[int, ...]
    n_prompt: int
    edited: tuple[int, ...]
    edited_span: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]
    question: tuple[int, ...]


def prompt_side(
    encoded: Encoded, start: int, example: Row, words: Sequence[Span], prefix: tuple[int, ...]
) -> PromptSide:
    """A prompt with its places. `start`: where its own first character stands in the text of its
    chat template; `words`: character spans of the edited words; `prefix`: tokens of the answer.

    A token with a leading space belongs to its word alone, and all bytes of a character to it; a
    space of its own belongs to what it stands inside of.
    """

    def tokens(span: Span) -> tuple[int, ...]:
        first, last = span[0] + start, span[1] + start
        inside = [
            i
            for i, (a, b) in enumerate(encoded.offsets)
            if encoded.text[max(first, a) : min(last, b)].strip()
        ]
        return tuple(range(inside[0], inside[-1] + 1)) if inside else ()

    spans = [tokens(word) for word in words]
    numbers = zip(example["number_starts"], example["number_ends"])
    return PromptSide(
        ids=(*encoded.ids, *prefix),
        n_prompt=len(encoded.ids),
        edited=tuple(span[-1] for span in spans if span),
        edited_span=tuple(spans),
        numbers=tuple(i for number in numbers for i in tokens(number)),
        question=tokens((example["question_start"], example["question_end"])),
    )


def donor_table(
    perturbed: Encoded, clean: Encoded, edits: Sequence[Edit], mine: PromptSide, theirs: PromptSide
) -> tuple[int, ...]:
    """The clean position of each perturbed position, −1 where there is none; one to one.

    In this order: the last tokens of both prompts, whatever they are, and the common beginning of
    the answers; the last tokens of edited words, which have read the whole word; the same token of
    the same characters outside the edits; other tokens of an edited word that has equally many.
    """
    table = [-1] * len(mine.ids)
    taken: set[int] = set()

    def stands_for(position: int, donor: int) -> None:
        if table[position] < 0 and donor not in taken:
            table[position] = donor
            taken.add(donor)

    for k in range(-1, len(mine.ids) - mine.n_prompt):
        stands_for(mine.n_prompt + k, theirs.n_prompt + k)
    words = [(a, b) for a, b in zip(mine.edited_span, theirs.edited_span) if a and b]
    for word, clean_word in words:
        stands_for(word[-1], clean_word[-1])
    at = _by_span(perturbed)
    for span, places in _by_span(clean).items():
        if span == (0, 0):  # put in front by the tokenizer
            counterparts = at.get(span, [])
        elif any(edit.start < span[1] and span[0] < edit.end for edit in edits) or any(
            edit.start == edit.end and span[0] < edit.start < span[1] for edit in edits
        ):
            continue
        else:
            counterparts = at.get(moved(span, edits), [])
        for donor, position in zip(places, counterparts):
            if perturbed.ids[position] == clean.ids[donor]:
                stands_for(position, donor)
    for word, clean_word in words:
        for position, donor in zip(word, clean_word) if len(word) == len(clean_word) else ():
            stands_for(position, donor)
    return tuple(table)


def _by_span(encoded: Encoded) -> dict[Span, list[int]]:
    """Token positions by the characters they cover: several for the bytes of one character."""
    found: dict[Span, list[int]] = defaultdict(list)
    for position, span in enumerate(encoded.offsets):
        found[span].append(position)
    return found
