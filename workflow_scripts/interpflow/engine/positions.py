"""Positions of prompts by name, number, list or mask.

"all": every position; "prompt": those of the prompt; "generated": those after it; "answer": the
last one of the prompt, where the next token is read. A number counts from the start of each row,
or, when negative, back from the end of its prompt. A list of numbers holds for every row; a list of
lists, one per row, may hold ranges: a span is `range(start, stop)`. A bool tensor [batch, position]
marks positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from torch import Tensor

from interpflow.errors import UserError

NAMES = ("all", "prompt", "generated", "answer")

Positions = str | int | Sequence[int] | Sequence[Sequence[int]] | Tensor


def positions_of_rows(
    positions: Positions,
    lengths: Sequence[int],
    ends: Sequence[int] | None = None,
    *,
    limits: Sequence[int] | None = None,
    where: str,
) -> list[list[int]]:
    """The chosen positions of each row, in the given order.

    lengths: tokens of each prompt; ends: tokens of each row by now, more than its prompt's while
    text is generated (None: none is). limits: tokens that a row may still come to have; positions
    from `ends` on are then left out instead of refused.
    Raises UserError for unknown names, another number of rows, and positions outside a row.
    """
    ends = lengths if ends is None else ends
    if isinstance(positions, str):
        if positions not in NAMES:
            raise UserError(
                f"there are no positions {positions!r}",
                where=where,
                remedy=f"use {', '.join(NAMES)}, a number, or one list of numbers per row",
            )
        return [list(_named(positions, n, end)) for n, end in zip(lengths, ends)]
    chosen = _listed(positions, lengths, where)
    found = []
    for row, (places, length, end) in enumerate(zip(chosen, lengths, ends)):
        limit = end if limits is None else limits[row]
        counted = [place if place >= 0 else length + place for place in places]
        for place, written in zip(counted, places):
            if not 0 <= place < limit:
                raise UserError(
                    f"position {written} lies outside its row of {limit} tokens",
                    where=f"{where}, row {row}",
                    remedy="count positions from 0, or from -1 backwards",
                )
        found.append([place for place in counted if place < end])
    return found


def _named(name: str, length: int, end: int) -> range:
    return {
        "all": range(end),
        "prompt": range(length),
        "generated": range(length, end),
        "answer": range(length - 1, length),
    }[name]


def _listed(
    positions: int | Sequence[int] | Sequence[Sequence[int]] | Tensor,
    lengths: Sequence[int],
    where: str,
) -> list[list[int]]:
    if isinstance(positions, Tensor):
        if positions.ndim != 2 or str(positions.dtype) != "torch.bool":
            raise UserError("a position mask must be bool [batch, position]", where=where)
        rows: list[list[int]] = [row.nonzero()[:, 0].tolist() for row in positions]
    elif isinstance(positions, Integral):
        rows = [[int(positions)]] * len(lengths)
    else:
        listed = list(positions)  # type: ignore[arg-type]
        if listed and all(isinstance(place, Integral) for place in listed):
            rows = [[int(place) for place in listed]] * len(lengths)  # type: ignore[arg-type]
        else:
            rows = [[int(place) for place in row] for row in listed]  # type: ignore[union-attr]
    if len(rows) != len(lengths):
        raise UserError(f"{len(rows)} rows of positions for {len(lengths)} rows", where=where)
    return rows
