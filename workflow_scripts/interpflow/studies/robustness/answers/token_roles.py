"""What each token of a prompt is for: edited, control, number, question, frame, answer start.

Characters of an example are those of its own text; a chat template in front of it shifts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from interpflow.models.tokens import Templated, TemplatePolicy, apply_template, encode_all

BOS, FRAME, QUESTION, NUMBER, CONTROL, EDITED, ANSWER_START = (
    "bos", "frame", "question", "number", "control", "edited", "answer_start",
)  # fmt: skip
# By rising rank: a token that touches several is of the last of them. A character without any is
# the template's, and so is a token without characters.
ROLES = (BOS, FRAME, QUESTION, NUMBER, CONTROL, EDITED, ANSWER_START)
_RANK = {role: rank for rank, role in enumerate(ROLES)}


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """A prompt as the model reads it, all [token]: ids; roles; words, the number of the edited or
    control word, −1 elsewhere; char_starts and char_ends, characters of the example's own text
    without white space in front, −1 where a token covers none of it.

    numbers: position of the last token of each number, in order.
    """

    text: str
    ids: tuple[int, ...]
    roles: tuple[str, ...]
    words: tuple[int, ...]
    char_starts: tuple[int, ...]
    char_ends: tuple[int, ...]
    numbers: tuple[int, ...]


def templated_prompts(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], policy: TemplatePolicy
) -> list[Templated]:
    """The texts that the model reads, in the chat template where there is one and it is asked for;
    equal prompts are rendered once."""
    found: dict[str, Templated] = {}
    for row in rows:
        if row["prompt"] not in found:
            found[row["prompt"]] = apply_template(tokenizer, row["prompt"], policy)
    return [found[row["prompt"]] for row in rows]


def prompt_tokens(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], policy: TemplatePolicy
) -> list[PromptTokens]:
    """The tokens of examples, rows of the table `robustness_examples`."""
    templated = templated_prompts(tokenizer, rows, policy)
    encoded = encode_all(tokenizer, [each.text for each in templated])
    return [
        _tokens(row, each.start, item.text, item.ids, item.offsets)
        for row, each, item in zip(rows, templated, encoded)
    ]


def _tokens(
    row: Mapping[str, Any],
    shift: int,
    text: str,
    ids: tuple[int, ...],
    offsets: Sequence[tuple[int, int]],
) -> PromptTokens:
    prompt = row["prompt"]
    ranks, words = _characters(row)
    roles, numbers, word_of, starts, ends = [], [], [], [], []
    for begin, end in offsets:
        start, stop = max(0, begin - shift), min(len(prompt), end - shift)
        if start >= stop:
            # Special tokens cover no character; a template's text is not the example's.
            roles.append(FRAME if roles or begin < end else BOS)
            word_of.append(-1)
            starts.append(-1)
            ends.append(-1)
            continue
        piece = prompt[start:stop]
        start += len(piece) - len(piece.lstrip()) if piece.strip() else 0
        rank = max(ranks[start:stop])
        roles.append(ROLES[rank])
        is_word = rank in (_RANK[EDITED], _RANK[CONTROL])
        at = next((i for i in range(start, stop) if ranks[i] == rank), start)
        word_of.append(words[at] if is_word else -1)
        starts.append(start)
        ends.append(stop)
    for number_start, number_end in _spans(row, "number"):
        touching = [
            place for place in range(len(ids)) if starts[place] < number_end
            and ends[place] > number_start and ends[place] >= 0
        ]  # fmt: skip
        if touching:
            numbers.append(touching[-1])
    if roles:
        roles[-1] = ANSWER_START
    return PromptTokens(
        text, tuple(ids), tuple(roles), tuple(word_of), tuple(starts), tuple(ends), tuple(numbers)
    )


def _characters(row: Mapping[str, Any]) -> tuple[bytearray, list[int]]:
    """Rank of the role, and number of the edited or control word, of every character."""
    size = len(row["prompt"])
    ranks, words = bytearray([_RANK[FRAME]]) * size, [-1] * size
    question = [(row["question_start"] or 0, row["question_end"] or 0)]
    for role, spans in (
        (QUESTION, question),
        (NUMBER, _spans(row, "number")),
        (CONTROL, _spans(row, "control")),
        (EDITED, _spans(row, "word")),
    ):
        for number, (start, end) in enumerate(spans):
            for at in range(start, end):
                ranks[at] = _RANK[role]
                words[at] = number
    return ranks, words


def _spans(row: Mapping[str, Any], kind: str) -> list[tuple[int, int]]:
    return list(zip(row[f"{kind}_starts"] or (), row[f"{kind}_ends"] or ()))


def compared_words(rows: Sequence[Mapping[str, Any]]) -> list[list[tuple[int, int]]]:
    """Characters of each clean prompt's words that some variant of it edits or takes as control;
    none of a variant, whose own words have these roles."""
    found: dict[str, set[tuple[int, int]]] = {}
    for row in rows:
        for kind in ("clean_word", "clean_control"):
            found.setdefault(row["base_id"], set()).update(_spans(row, kind))
    return [sorted(found[row["base_id"]]) if row["operator"] == "clean" else [] for row in rows]


def kept_positions(
    prompts: Sequence[PromptTokens],
    positions: Literal["roles", "answer", "all"],
    compared: Sequence[Sequence[tuple[int, int]]],
) -> list[list[int]]:
    """Token positions whose states are kept. roles: edited and control words, numbers, the
    answer's start, the first token, which much attention goes to whatever it is, and of each
    prompt the words at the characters `compared`."""
    if positions == "all":
        return [list(range(len(prompt.ids))) for prompt in prompts]
    if positions == "answer":
        return [[len(prompt.ids) - 1] for prompt in prompts]
    wanted = (EDITED, CONTROL, NUMBER, ANSWER_START)
    return [
        [
            at
            for at, role in enumerate(prompt.roles)
            if role in wanted
            or at == 0
            or any(s < prompt.char_ends[at] and prompt.char_starts[at] < e for s, e in spans)
        ]
        for prompt, spans in zip(prompts, compared, strict=True)
    ]


def role_columns(
    prompts: Sequence[PromptTokens], kept: Sequence[Sequence[int]]
) -> dict[str, PackedColumn]:
    """Index columns of an activation store for the kept tokens: role, word and characters."""
    rows = list(zip(prompts, kept))
    ranks = _packed((_RANK[prompt.roles[at]] for at in places) for prompt, places in rows)
    columns = {"role": PackedColumn(ranks[0].astype(np.int8), ranks[1], ROLES)}
    for name, field in (
        ("word", "words"),
        ("char_start", "char_starts"),
        ("char_end", "char_ends"),
    ):
        values = _packed((getattr(prompt, field)[at] for at in places) for prompt, places in rows)
        columns[name] = PackedColumn(*values, None, name != "word")
    return columns


def _packed(rows: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    lists = [list(row) for row in rows]
    starts = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in lists], out=starts[1:])
    values = np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=int(starts[-1]))
    return values, starts


@dataclass(frozen=True, eq=False)
class PackedColumn(Sequence[list[Any]]):
    """A value per kept token of each prompt, packed: as Python lists, those of many prompts would
    outweigh their states in memory. names: what the numbers stand for; nullable: −1 is none."""

    values: NDArray[Any]
    starts: NDArray[np.int64]
    names: tuple[str, ...] | None = None
    nullable: bool = False

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> list[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[list[Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        found = self.values[self.starts[index] : self.starts[index + 1]].tolist()
        if self.names is not None:
            return [self.names[value] for value in found]
        return [None if value < 0 else value for value in found] if self.nullable else found

    def __iter__(self) -> Iterator[list[Any]]:
        return (self[i] for i in range(len(self)))
