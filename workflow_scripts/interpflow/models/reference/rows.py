"""Training rows: a text with the parts that are scored, and a batch of encoded rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from interpflow.models.reference.tokenizer import EOS, PAD, token_id

Span = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A text and the half-open character spans whose tokens are predicted.

    The end-of-text token is appended and always scored. `word_spans` are the list's words;
    `word_matches` says which of them belong, where that can be known as the word is read.
    """

    text: str
    scored: tuple[Span, ...]
    word_spans: tuple[Span, ...] = ()
    word_matches: tuple[bool, ...] = ()

    @classmethod
    def answering(
        cls,
        prompt: str,
        answer: str,
        word_spans: tuple[Span, ...] = (),
        word_matches: tuple[bool, ...] = (),
    ) -> Row:
        """A row in which everything after the prompt is scored."""
        scored = (len(prompt), len(prompt) + len(answer))
        return cls(prompt + answer, (scored,), word_spans, word_matches)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    `ids` int64 [row, position]; `row`, `position` int64 [scored]: where the prediction is made,
    one position before the token it predicts; `target` int64 [scored]; `words` lists, per row,
    the (first, last) token of each list word; `word_places` int64 [judged, 2] holds row and last
    token of the words whose membership is known, `word_labels` int64 [judged, 2] their membership
    and the running count at them.
    """

    ids: torch.Tensor
    row: torch.Tensor
    position: torch.Tensor
    target: torch.Tensor
    words: tuple[tuple[Span, ...], ...]
    word_places: torch.Tensor
    word_labels: torch.Tensor


def encode_rows(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Encode and pad; a token is scored when it starts inside a scored span."""
    encodings = tokenizer.backend_tokenizer.encode_batch(
        [row.text for row in rows], add_special_tokens=False
    )
    width = max(len(encoding.ids) for encoding in encodings) + 1
    ids = torch.full((len(rows), width), token_id(tokenizer, PAD), dtype=torch.long)
    where: list[tuple[int, int, int]] = []
    words: list[tuple[Span, ...]] = []
    for index, (row, encoding) in enumerate(zip(rows, encodings, strict=True)):
        tokens = [*encoding.ids, token_id(tokenizer, EOS)]
        ids[index, : len(tokens)] = torch.tensor(tokens)
        scored = _scored_positions(row.scored, encoding.offsets)
        where += [(index, at - 1, tokens[at]) for at in (*scored, len(tokens) - 1)]
        words.append(
            tuple(
                (_token_at(encoding, start), _token_at(encoding, end - 1))
                for start, end in row.word_spans
            )
        )
    row_at, position, target = torch.tensor(where, dtype=torch.long).unbind(1)
    places = [
        (index, end)
        for index, row in enumerate(rows)
        for (_, end), _ in zip(words[index], row.word_matches)
    ]
    labels = [
        (int(match), running)
        for row in rows
        for match, running in zip(row.word_matches, accumulate(row.word_matches), strict=True)
    ]
    return Batch(
        ids, row_at, position, target, tuple(words),
        torch.tensor(places, dtype=torch.long).reshape(-1, 2),
        torch.tensor(labels, dtype=torch.long).reshape(-1, 2),
    )  # fmt: skip


def _token_at(encoding: Encoding, character: int) -> int:
    token = encoding.char_to_token(character)
    if token is None:
        raise ValueError(f"no token at character {character}")
    return token


def _scored_positions(scored: tuple[Span, ...], offsets: Sequence[Span]) -> list[int]:
    found: list[int] = []
    spans = iter(scored)
    current = next(spans, None)
    for index, (start, _) in enumerate(offsets):
        while current is not None and start >= current[1]:
            current = next(spans, None)
        if current is None:
            break
        if start >= current[0] and index > 0:
            found.append(index)
    return found
