"""Which token of a perturbed prompt stands for which token of the clean one: by words, never by
raw position, since an edited word may be more tokens or fewer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.studies.robustness.inside.stored_prompts import StoredPrompts
from interpflow.tasks.perturbations.text import Span

IntArray = NDArray[np.intp]

ANSWER, EDITED, UNEDITED = "answer", "edited", "unedited"
PLACES = (ANSWER, EDITED, UNEDITED)
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, eq=False)
class PlacePairs:
    """Rows of the index that stand for each other, all [pairs], in the order of the variants.

    `variants`: number of the perturbed prompt; `changed`: row in it, `clean`: row in its clean
    prompt, `unrelated`: row in another clean prompt (−1: none). `pooled`: the states of a prompt
    are averaged before they are compared, else the comparisons are.
    """

    place: str
    pooled: bool
    variants: IntArray
    changed: IntArray
    clean: IntArray
    unrelated: IntArray


def aligned_places(prompts: StoredPrompts) -> tuple[PlacePairs, ...]:
    """Pairs of rows at the answer (the prompt's last token), at the edited words (last token of
    each), and at the untouched words of the question after the first edit (last tokens).

    What stands before the first edit is left out: a decoder's states there cannot differ, and how
    much there is depends on where the edit fell. Without any edit all words count.
    """
    found: dict[str, list[tuple[IntArray, ...]]] = {place: [] for place in PLACES}
    words_of = {row["example_id"]: question_words(row) for row in prompts.clean_rows}
    tokens = prompts.tokens
    for i, (row, clean) in enumerate(zip(prompts.examples, prompts.cleans)):
        other = prompts.others[i]
        name, clean_name = row["example_id"], clean["example_id"]
        words = words_of[clean_name]
        other_words = words_of[other["example_id"]] if other else []

        def unrelated(numbers: Sequence[int], other: Any = other, words: Any = other_words) -> Any:
            if other is None or not words:
                return np.full(len(numbers), -1, dtype=np.intp)
            spans = [words[min(number, len(words) - 1)] for number in numbers]
            return tokens.last_in(other["example_id"], spans)

        def add(place: str, changed: IntArray, of_clean: IntArray, far: IntArray, i: int = i):
            kept = (changed >= 0) & (of_clean >= 0)
            number = np.full(int(kept.sum()), i, dtype=np.intp)
            found[place].append((number, changed[kept], of_clean[kept], far[kept]))

        last = np.array([tokens.last(other["example_id"]) if other else -1], dtype=np.intp)
        add(ANSWER, np.array([tokens.last(name)]), np.array([tokens.last(clean_name)]), last)
        new, old = edited_words(row)
        add(EDITED, tokens.last_in(name, new), tokens.last_in(clean_name, old),
            unrelated([_number_of(words, span) for span in old]))  # fmt: skip
        kept, moved = untouched_words(row, clean["prompt"], words)
        add(UNEDITED, tokens.last_in(name, moved),
            tokens.last_in(clean_name, [words[k] for k in kept]), unrelated(kept))  # fmt: skip
    return tuple(_joined(place, found[place]) for place in PLACES)


def question_words(row: Mapping[str, Any]) -> list[Span]:
    """Words (letters and digits) of a prompt's question, as characters of the prompt."""
    matches = _WORD.finditer(row["prompt"], row["question_start"], row["question_end"])
    return [match.span() for match in matches]


def edited_words(row: Mapping[str, Any]) -> tuple[list[Span], list[Span]]:
    """Words that were edited, in the variant and in the clean prompt, paired; a word without
    characters on either side (deleted, inserted) has no counterpart and is left out."""
    new = list(zip(row["word_starts"] or [], row["word_ends"] or []))
    old = list(zip(row["clean_word_starts"] or [], row["clean_word_ends"] or []))
    if len(new) != len(old):
        return [], []
    both = [(a, b) for a, b in zip(new, old) if a[0] < a[1] and b[0] < b[1]]
    return [a for a, _ in both], [b for _, b in both]


def untouched_words(
    row: Mapping[str, Any], clean_prompt: str, words: Sequence[Span]
) -> tuple[list[int], list[Span]]:
    """Numbers of the clean prompt's `words` after the first edit that stand unchanged in the
    variant, and their characters there."""
    prompt = row["prompt"]
    starts, ends = row["clean_starts"] or [], row["clean_ends"] or []
    edits = sorted(zip(starts, ends, row["edit_ends"] or []))
    if not edits and prompt != clean_prompt:
        return [], []  # what was changed is not known
    first = edits[0][0] if edits else 0
    kept: list[int] = []
    moved: list[Span] = []
    for number, (start, end) in enumerate(words):
        if start < first:
            continue
        shift = 0
        for _, clean_end, new_end in edits:
            if clean_end > start:
                break
            shift = new_end - clean_end
        touched = any(begin < end and stop > start for begin, stop, _ in edits)
        at, to = start + shift, end + shift
        if not touched and prompt[at:to] == clean_prompt[start:end] and _is_word(prompt, at, to):
            kept.append(number)
            moved.append((at, to))
    return kept, moved


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether the characters are a word by themselves."""
    match = _WORD.match(text, start)
    alone = start == 0 or not (text[start - 1].isalnum() or text[start - 1] == "_")
    return alone and match is not None and match.end() == end


def _number_of(words: Sequence[Span], span: Span) -> int:
    """Number of the word in which a span begins, or before which it does."""
    return sum(start <= span[0] for start, _ in words[1:])


def _joined(place: str, parts: Sequence[tuple[IntArray, ...]]) -> PlacePairs:
    columns = [np.concatenate(column) for column in zip(*parts)] if parts else [
        np.empty(0, dtype=np.intp)
    ] * 4  # fmt: skip
    variants, changed, clean, unrelated = (column.astype(np.intp) for column in columns)
    return PlacePairs(place, place == UNEDITED, variants, changed, clean, unrelated)
