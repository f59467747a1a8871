"""Many prompts and the positions to keep of each, packed: a list per prompt would be the memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError

Positions = Literal["all", "answer"] | Sequence[Sequence[int]]
QUERY_NAME = re.compile(r"[A-Za-z0-9_]+")


def pack_prompts(
    prompts: Sequence[Sequence[int]],
    positions: Positions,
    *,
    example_ids: Sequence[str],
    vocabulary: int,
) -> PackedPrompts:
    """Pack token ids and kept positions: all, the last one ("answer"), or those of each prompt.

    Raises UserError naming the example when a prompt is empty, a token id is not in the vocabulary
    or a position not in the prompt.
    """
    if len(example_ids) != len(prompts):
        raise UserError(f"{len(example_ids)} example ids for {len(prompts)} prompts",
                        where="example_ids")  # fmt: skip
    tokens, starts = _packed(prompts, "prompts")
    lengths = np.diff(starts)
    if len(lengths) and lengths.min() < 1:
        raise UserError("a prompt has no token",
                        where=f"example {example_ids[int(lengths.argmin())]}")  # fmt: skip
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= vocabulary):
        wrong = np.flatnonzero((tokens < 0) | (tokens >= vocabulary))
        raise UserError(
            f"token id {tokens[wrong[0]]} is not in the model's vocabulary of {vocabulary}",
            where=f"example {example_ids[_owner(starts, int(wrong[0]))]}",
            remedy="tokenize the prompts with the model's own tokenizer",
        )
    if isinstance(positions, str):
        if positions not in ("all", "answer"):
            raise UserError(f"there are no positions {positions!r}", where="positions",
                            remedy="use all, answer, or lists of token positions")  # fmt: skip
        kept = None if positions == "all" else (lengths - 1).astype(np.int32)
        kept_starts = starts if kept is None else np.arange(len(starts), dtype=np.int64)
        return PackedPrompts(tokens, starts, kept, kept_starts)
    if len(positions) != len(prompts):
        raise UserError(f"positions of {len(positions)} prompts for {len(prompts)} prompts",
                        where="positions")  # fmt: skip
    kept, kept_starts = _packed(positions, "positions")
    limits = np.repeat(lengths, np.diff(kept_starts))
    wrong = np.flatnonzero((kept < 0) | (kept >= limits))
    if len(wrong):
        prompt = _owner(kept_starts, int(wrong[0]))
        raise UserError(
            f"position {kept[wrong[0]]} lies outside a prompt of {lengths[prompt]} tokens",
            where=f"example {example_ids[prompt]}",
        )
    return PackedPrompts(tokens, starts, kept, kept_starts)


def pack_queries(
    queries: Mapping[str, Sequence[int | None]],
    lengths: NDArray[np.int64],
    *,
    example_ids: Sequence[str],
) -> NDArray[np.int32]:
    """Query positions of each prompt, int32 [prompt, query]; −1 where a prompt has none.

    Raises UserError naming query and example where a position is not in the prompt.
    """
    packed = np.empty((len(lengths), len(queries)), dtype=np.int32)
    for number, (name, positions) in enumerate(queries.items()):
        where = f"query_patterns {name}"
        if not QUERY_NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name a query", where="query_patterns",
                            remedy="use letters, digits and _")  # fmt: skip
        if len(positions) != len(lengths):
            raise UserError(f"positions of {len(positions)} prompts for {len(lengths)} prompts",
                            where=where)  # fmt: skip
        filled = (-1 if at is None else at for at in positions)
        packed[:, number] = np.fromiter(filled, dtype=np.int32, count=len(lengths))
        wrong = np.flatnonzero((packed[:, number] < -1) | (packed[:, number] >= lengths))
        if len(wrong):
            prompt = int(wrong[0])
            raise UserError(
                f"position {packed[prompt, number]} lies outside a prompt of {lengths[prompt]} "
                "tokens",
                where=f"{where}, example {example_ids[prompt]}",
            )
    return packed


def _packed(
    rows: Sequence[Sequence[int]], where: str
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The numbers of all rows, and where each row begins and the last one ends.

    A table [row, place] of int32 is used as it is, uncopied.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype == np.int32:
        n_rows, width = rows.shape
        return np.ascontiguousarray(rows).reshape(-1), np.arange(n_rows + 1) * width
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)), out=starts[1:])
    try:
        numbers = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(starts[-1]))
    except OverflowError:
        raise UserError("a number is larger than any token id or position", where=where) from None
    return numbers, starts


def _owner(starts: NDArray[np.int64], place: int) -> int:
    return int(np.searchsorted(starts, place, side="right")) - 1


@dataclass(frozen=True, eq=False)
class PackedPrompts:
    """Prompt i has the token ids tokens[starts[i] : starts[i + 1]] and keeps the positions
    kept[kept_starts[i] : kept_starts[i + 1]] (all of them if `kept` is None)."""

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    kept: NDArray[np.int32] | None
    kept_starts: NDArray[np.int64]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @cached_property
    def n_kept(self) -> NDArray[np.int64]:
        return np.diff(self.kept_starts)

    def ids(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Token ids [prompt, position] of prompts of one length."""
        places = self.starts[prompts][:, None] + np.arange(int(self.lengths[prompts[0]]))
        return self.tokens[places].astype(np.int64)

    def places(self, prompts: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Of the kept tokens of these prompts, one after the other: row, position, number within
        the row; int64 [token] each."""
        counts = self.n_kept[prompts]
        rows = np.repeat(np.arange(len(prompts)), counts)
        slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        if self.kept is None:
            return rows, slots, slots
        positions = self.kept[np.repeat(self.kept_starts[prompts], counts) + slots]
        return rows, positions.astype(np.int64), slots

    def first_equal(self, queries: NDArray[np.int32]) -> NDArray[np.int64]:
        """Of each prompt the first that has the same token ids, kept positions and `queries` (a
        row of each prompt)."""
        # 64 bits: no two are equal by chance among 10^8.
        digests = np.fromiter(
            (self._digest_of(prompt, queries[prompt]) for prompt in range(len(self.lengths))),
            dtype=np.uint64, count=len(self.lengths),
        )  # fmt: skip
        _, firsts, group = np.unique(digests, return_index=True, return_inverse=True)
        return firsts[group]

    def _digest_of(self, prompt: int, queries: NDArray[np.int32]) -> int:
        digest = hashlib.blake2b(int(self.lengths[prompt]).to_bytes(8, "little"), digest_size=8)
        digest.update(self.tokens[self.starts[prompt] : self.starts[prompt + 1]].data)
        if self.kept is not None:
            kept = self.kept[self.kept_starts[prompt] : self.kept_starts[prompt + 1]]
            digest.update(len(kept).to_bytes(8, "little") + kept.tobytes())
        digest.update(queries.tobytes())
        return int.from_bytes(digest.digest(), "little")

    def digest(self) -> str:
        """SHA-256 of all token ids and kept positions."""
        digest = hashlib.sha256()
        for part in (self.tokens, self.starts, self.kept, self.kept_starts):
            digest.update(b"all" if part is None else part.data.cast("B"))
        return digest.hexdigest()


def equal_length_batches(
    ranges: Sequence[range],
    lengths: NDArray[Any],
    token_budget: int,
    fresh: NDArray[np.bool_] | None = None,
) -> Iterator[range]:
    """Cut ranges of places into batches of equal `lengths[place]` and at most `token_budget`
    tokens, but at least one prompt; equal lengths must lie side by side.

    fresh: whether a place needs tokens of its own; one that does not stays with the one before.
    """
    if token_budget < 1:
        raise UserError(
            f"a token budget of {token_budget} holds nothing", remedy="use a positive number"
        )
    for places in ranges:
        start = places.start
        while start < places.stop:
            most = max(1, token_budget // int(lengths[start]))
            stop, n_fresh = start + 1, 1
            while stop < places.stop and lengths[stop] == lengths[start]:
                if fresh is None or fresh[stop]:
                    if n_fresh == most:
                        break
                    n_fresh += 1
                stop += 1
            yield range(start, stop)
            start = stop
