"""Batches bounded by tokens, padding, and progress lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch

from interpflow.errors import UserError


def plan_batches(
    lengths: Sequence[int], token_budget: int, max_rows: int | None = None
) -> list[list[int]]:
    """Split items into batches of rows × longest ≤ token_budget (but at least one row).

    Returns lists of indices into `lengths`, the longest items first: padding is least, and a
    batch that does not fit in memory fails at the start. Equal lengths keep their order.
    """
    if token_budget < 1:
        raise UserError(
            f"a token budget of {token_budget} holds nothing", remedy="use a positive number"
        )
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        # The first item of a batch is its longest.
        fits = batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= token_budget
        if fits and (max_rows is None or len(batches[-1]) < max_rows):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad_right(
    sequences: Sequence[Sequence[int]], fill: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Stack id sequences [batch, position] int64 from position 0; later positions are `fill`.

    In a causal decoder nothing before the padding sees it, so no mask is needed and position i is
    the same in every batch.
    """
    width = max(len(sequence) for sequence in sequences)
    return torch.tensor(
        [[*sequence, *[fill] * (width - len(sequence))] for sequence in sequences], device=device
    )


def pad_left(
    sequences: Sequence[Sequence[int]], fill: int, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack id sequences so that all end together: (ids, mask), both [batch, position] int64.

    The mask is 1 on the sequence, 0 on the padding in front of it.
    """
    width = max(len(sequence) for sequence in sequences)
    ids = [[*[fill] * (width - len(sequence)), *sequence] for sequence in sequences]
    mask = [[0] * (width - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


class Progress:
    """Writes "what: k of n, r tokens/s" to a logger now and then, and once at the end."""

    def __init__(
        self,
        total: int,
        what: str,
        logger: logging.Logger | None = None,
        interval_s: float = 10.0,
    ) -> None:
        self.total, self.what, self.logger, self.interval_s = total, what, logger, interval_s
        self.done = self.tokens = 0
        self.started = self.last = time.monotonic()

    def advance(self, items: int, tokens: int) -> None:
        """Count `items` finished at the cost of `tokens` forward tokens."""
        self.done += items
        self.tokens += tokens
        now = time.monotonic()
        if self.logger and (self.done >= self.total or now - self.last >= self.interval_s):
            self.last = now
            rate = self.tokens / max(now - self.started, 1e-9)
            self.logger.info("%s: %d of %d, %.0f tokens/s", self.what, self.done, self.total, rate)
