"""Which position of a donor stands for which position of a recipient, as a table.

Prompts of unequal length cannot be patched position by position. An alignment says, pair by pair,
where the state of a recipient's position comes from; it is data that can be stored, read back,
checked by eye and changed by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpflow.errors import UserError

# same: a token that both prompts have; span: a place in two spans of one length; last: the last
# tokens of two spans of unequal length, where a model has read the whole span.
KINDS = ("same", "span", "last")


def identity(n: int) -> Alignment:
    """Position i stands for position i, in two prompts of n tokens."""
    return Alignment(tuple(AlignedPosition(i, i, "same") for i in range(n)))


def from_spans(
    recipient_spans: Sequence[tuple[int, int]],
    donor_spans: Sequence[tuple[int, int]],
    recipient_length: int,
    donor_length: int,
) -> Alignment:
    """Align two prompts by spans (start, stop) that stand for each other, in order.

    Outside the spans the prompts must be equally long, and are aligned one to one. In two spans of
    one length every position is aligned, else the last ones only.
    Raises UserError for spans that overlap, are empty or leave the prompts, and for parts between
    them of unequal length.
    """
    if len(recipient_spans) != len(donor_spans):
        raise UserError(
            f"{len(recipient_spans)} spans stand for {len(donor_spans)}", where="alignment"
        )
    rows: list[AlignedPosition] = []
    at, donor_at = 0, 0
    ends = ((recipient_length, recipient_length), (donor_length, donor_length))
    for mine, theirs in zip((*recipient_spans, ends[0]), (*donor_spans, ends[1])):
        if mine[0] < at or theirs[0] < donor_at:
            raise UserError(
                f"the spans {mine} and {theirs} overlap those before them, or are not in order",
                where="alignment",
            )
        if mine[0] - at != theirs[0] - donor_at:
            raise UserError(
                f"{mine[0] - at} tokens stand for {theirs[0] - donor_at} outside the spans",
                where=f"alignment, from position {at} of the recipient",
                remedy="cover every difference in length by a span",
            )
        rows += [
            AlignedPosition(i, j, "same")
            for i, j in zip(range(at, mine[0]), range(donor_at, theirs[0]))
        ]
        rows += _span(mine, theirs)
        at, donor_at = mine[1], theirs[1]
        if at > recipient_length or donor_at > donor_length:
            raise UserError(f"the spans {mine} and {theirs} leave the prompts", where="alignment")
    return Alignment(tuple(rows))


def from_edit(recipient_ids: Sequence[int], donor_ids: Sequence[int]) -> Alignment:
    """Align two prompts by the tokens that a longest common subsequence keeps.

    Between two kept tokens, spans of one length are aligned position by position, spans of unequal
    length by their last tokens; a span that has nothing on the other side is not aligned.
    """
    rows: list[AlignedPosition] = []
    at, donor_at = 0, 0
    ends = (len(recipient_ids), len(donor_ids))
    for i, j in (*_common(recipient_ids, donor_ids), ends):
        rows += _span((at, i), (donor_at, j)) if i > at and j > donor_at else []
        if (i, j) != ends:
            rows.append(AlignedPosition(i, j, "same"))
        at, donor_at = i + 1, j + 1
    return Alignment(tuple(rows))


def _span(mine: tuple[int, int], theirs: tuple[int, int]) -> list[AlignedPosition]:
    lengths = mine[1] - mine[0], theirs[1] - theirs[0]
    if min(lengths) < 0 or (min(lengths) == 0 < max(lengths)):
        raise UserError(f"the spans {mine} and {theirs} cannot be aligned", where="alignment")
    if lengths[0] == lengths[1]:
        return [AlignedPosition(i, j, "span") for i, j in zip(range(*mine), range(*theirs))]
    return [AlignedPosition(mine[1] - 1, theirs[1] - 1, "last")]


def _common(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence; the first one from the front when several are
    equally long. Common ends belong to some longest one, so only the middle is searched."""
    head = 0
    while head < min(len(left), len(right)) and left[head] == right[head]:
        head += 1
    tail = 0
    while tail < min(len(left), len(right)) - head and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    a, b = np.asarray(left[head : len(left) - tail]), np.asarray(right[head : len(right) - tail])
    # best[i, j]: length of a longest common subsequence of a[i:] and b[j:].
    best = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int64)
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            longer = max(best[i + 1, j], best[i, j + 1])
            best[i, j] = best[i + 1, j + 1] + 1 if a[i] == b[j] else longer
    pairs = [(i, i) for i in range(head)]
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs.append((head + i, head + j))
            i, j = i + 1, j + 1
        elif best[i + 1, j] >= best[i, j + 1]:
            i += 1
        else:
            j += 1
    return pairs + [(len(left) - k, len(right) - k) for k in range(tail, 0, -1)]


@dataclass(frozen=True)
class AlignedPosition:
    """A recipient's position, the donor's position that stands for it, and why (see KINDS)."""

    recipient_position: int
    donor_position: int
    kind: str

    def __post_init__(self) -> None:
        if min(self.recipient_position, self.donor_position) < 0 or self.kind not in KINDS:
            raise UserError(
                f"no aligned position: {self.recipient_position}, {self.donor_position}, "
                f"{self.kind!r}",
                where="alignment",
                remedy=f"positions count from 0; kinds are {', '.join(KINDS)}",
            )


@dataclass(frozen=True)
class Alignment:
    """The aligned positions of one pair, each recipient position at most once."""

    positions: tuple[AlignedPosition, ...]

    def __post_init__(self) -> None:
        mine = [row.recipient_position for row in self.positions]
        if len(set(mine)) != len(mine):
            raise UserError("a recipient position is aligned twice", where="alignment")

    @property
    def donor_of(self) -> dict[int, int]:
        """Recipient position -> donor position."""
        return {row.recipient_position: row.donor_position for row in self.positions}

    def reversed(self) -> Alignment:
        """The same table with recipient and donor exchanged."""
        return Alignment(
            tuple(
                AlignedPosition(row.donor_position, row.recipient_position, row.kind)
                for row in self.positions
            )
        )

    def to_rows(self, pair_id: str = "") -> list[dict[str, Any]]:
        """One row per aligned position, for a table."""
        return [
            {
                "pair_id": pair_id,
                "recipient_position": row.recipient_position,
                "donor_position": row.donor_position,
                "kind": row.kind,
            }
            for row in self.positions
        ]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Alignment:
        """The alignment that `to_rows` gave for one pair."""
        return cls(
            tuple(
                AlignedPosition(
                    int(row["recipient_position"]), int(row["donor_position"]), str(row["kind"])
                )
                for row in rows
            )
        )
