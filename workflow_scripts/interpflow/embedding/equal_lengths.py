"""Batches of equal length, worked off by several threads: the same bytes whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import TypeVar

Result = TypeVar("Result")

# More rows of MiniLM's width leave a core's cache: 64 rows of 35 tokens are fastest.
MAX_ROWS = 64
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65536}


def equal_length_batches(
    lengths: Sequence[int], token_budget: int, max_rows: int | None = None
) -> list[list[int]]:
    """Indices of items of one length each, rows × length ≤ token_budget but at least one row.

    Nothing is padded, so that no work is done for nothing and no item sees another's length. The
    longest come first; equal lengths keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches = []
    for length, group in groupby(order, key=lambda index: lengths[index]):
        same = list(group)
        rows = max(1, token_budget // max(length, 1))
        rows = min(rows, max_rows) if max_rows else rows
        batches += [same[at : at + rows] for at in range(0, len(same), rows)]
    return batches


def plan(lengths: Sequence[int], device: str) -> list[list[int]]:
    """Batches as they suit a device ("cpu", "cuda", "cuda:1")."""
    kind = device.split(":")[0]
    budget = TOKENS_PER_BATCH.get(kind, TOKENS_PER_BATCH["cpu"])
    return equal_length_batches(lengths, budget, MAX_ROWS if kind == "cpu" else None)


def each_batch(
    work: Callable[[list[int]], Result], batches: Sequence[list[int]], device: str
) -> Iterator[tuple[list[int], Result]]:
    """What `work` gives for each batch, in order.

    On the CPU as many batches are worked on at once as torch has threads, one thread each: sums
    within a batch are then taken in one order on every machine. On a GPU one after the other.
    """
    import torch

    workers = torch.get_num_threads() if device == "cpu" else 1
    if workers == 1 or len(batches) < 2:
        with _one_thread():
            for batch in batches:
                yield batch, work(batch)
        return
    with (
        _one_thread(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        yield from zip(batches, pool.map(work, batches), strict=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
