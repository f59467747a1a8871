from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.inference.batching import Progress, pad_left, pad_right, plan_batches


@given(
    st.lists(st.integers(1, 50), max_size=60),
    st.integers(1, 200),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_batches_hold_everything_once_within_budget(lengths, budget, max_rows):
    batches = plan_batches(lengths, budget, max_rows)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        size = len(batch) * max(lengths[index] for index in batch)
        assert size <= budget or len(batch) == 1
        assert max_rows is None or len(batch) <= max_rows
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_batches_are_filled():
    assert plan_batches([4, 4, 4, 4, 2], 8) == [[0, 1], [2, 3], [4]]


def test_no_budget():
    with pytest.raises(UserError, match="token budget"):
        plan_batches([1], 0)


def test_padding():
    assert pad_right([[1, 2, 3], [4]], 0).tolist() == [[1, 2, 3], [4, 0, 0]]
    ids, mask = pad_left([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_progress_speaks_at_intervals_and_at_the_end(caplog):
    logger = logging.getLogger("batching-test")
    with caplog.at_level(logging.INFO, "batching-test"):
        quiet = Progress(3, "things", logger, interval_s=1e9)
        for _ in range(3):
            quiet.advance(1, 10)
        assert [record.message.split(",")[0] for record in caplog.records] == ["things: 3 of 3"]
        loud = Progress(3, "things", logger, interval_s=0.0)
        for _ in range(3):
            loud.advance(1, 10)
        assert len(caplog.records) == 4
