from __future__ import annotations

import itertools
import random

import pyarrow as pa
import pytest

from interpflow.engine import Alignment, alignment
from interpflow.engine.alignment import AlignedPosition
from interpflow.errors import UserError


def table(found: Alignment) -> list[tuple[int, int, str]]:
    return [(r.recipient_position, r.donor_position, r.kind) for r in found.positions]


def test_identity() -> None:
    assert table(alignment.identity(3)) == [(0, 0, "same"), (1, 1, "same"), (2, 2, "same")]


def test_spans_of_one_length_are_aligned_place_by_place() -> None:
    found = alignment.from_spans([(1, 3)], [(1, 3)], 4, 4)
    assert table(found) == [(0, 0, "same"), (1, 1, "span"), (2, 2, "span"), (3, 3, "same")]


def test_spans_of_unequal_length_are_aligned_at_their_last_tokens() -> None:
    found = alignment.from_spans([(1, 2), (3, 6)], [(1, 4), (5, 6)], 7, 7)
    assert table(found) == [
        (0, 0, "same"), (1, 3, "last"), (2, 4, "same"), (5, 5, "last"), (6, 6, "same")
    ]  # fmt: skip
    assert table(found.reversed())[1] == (3, 1, "last")
    assert found.donor_of[5] == 5


@pytest.mark.parametrize(
    ("mine", "theirs", "lengths", "match"),
    [
        ([(1, 2)], [], (4, 4), "1 spans stand for 0"),
        ([(1, 2)], [(1, 2)], (4, 5), "2 tokens stand for 3 outside"),
        ([(1, 3), (2, 4)], [(1, 3), (3, 4)], (5, 5), "overlap"),
        ([(1, 1)], [(1, 3)], (4, 6), "cannot be aligned"),
        ([(1, 9)], [(1, 2)], (4, 4), "overlap|leave|outside"),
    ],
)
def test_bad_spans_are_refused(mine, theirs, lengths, match) -> None:
    with pytest.raises(UserError, match=match):
        alignment.from_spans(mine, theirs, *lengths)


def test_edits_are_found() -> None:
    #           a  b  X  c  d          a  b  Y  Z  c  d
    found = alignment.from_edit([1, 2, 9, 3, 4], [1, 2, 7, 8, 3, 4])
    assert table(found) == [
        (0, 0, "same"), (1, 1, "same"), (2, 3, "last"), (3, 4, "same"), (4, 5, "same")
    ]  # fmt: skip
    # Something that is only on one side is not aligned; two replaced tokens for two are.
    assert alignment.from_edit([1, 2, 3], [1, 3]).donor_of == {0: 0, 2: 1}
    assert table(alignment.from_edit([1, 5, 6, 2], [1, 7, 8, 2]))[1:3] == [
        (1, 1, "span"), (2, 2, "span")
    ]  # fmt: skip
    assert table(alignment.from_edit([5], [6, 7])) == [(0, 1, "last")]
    assert table(alignment.from_edit([], [6])) == []


def longest_common(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    def subsequences(row: tuple[int, ...]) -> set[tuple[int, ...]]:
        picks = itertools.product([0, 1], repeat=len(row))
        return {tuple(x for x, keep in zip(row, pick) if keep) for pick in picks}

    return max(map(len, subsequences(left) & subsequences(right)))


def test_kept_tokens_are_a_longest_common_subsequence() -> None:
    drawn = random.Random(3)
    for _ in range(150):
        left = tuple(drawn.randrange(3) for _ in range(drawn.randrange(1, 8)))
        right = tuple(drawn.randrange(3) for _ in range(drawn.randrange(1, 8)))
        rows = alignment.from_edit(left, right).positions
        same = [row for row in rows if row.kind == "same"]
        assert len(same) == longest_common(left, right)
        assert all(left[r.recipient_position] == right[r.donor_position] for r in same)
        # In order on both sides.
        for before, after in itertools.pairwise(rows):
            assert before.recipient_position < after.recipient_position
            assert before.donor_position < after.donor_position


def test_a_table_comes_back_from_parquet(tmp_path) -> None:
    import pyarrow.parquet as pq

    found = alignment.from_edit([1, 2, 9, 3], [1, 2, 7, 8, 3])
    pq.write_table(pa.Table.from_pylist(found.to_rows("pair-1")), tmp_path / "alignment.parquet")
    rows = pq.read_table(tmp_path / "alignment.parquet").to_pylist()
    assert {row["pair_id"] for row in rows} == {"pair-1"}
    assert Alignment.from_rows(rows) == found


def test_impossible_tables_are_refused() -> None:
    with pytest.raises(UserError, match="aligned twice"):
        Alignment((AlignedPosition(1, 0, "same"), AlignedPosition(1, 2, "same")))
    with pytest.raises(UserError, match="no aligned position"):
        AlignedPosition(-1, 0, "same")
    with pytest.raises(UserError, match="no aligned position"):
        AlignedPosition(0, 0, "guess")
