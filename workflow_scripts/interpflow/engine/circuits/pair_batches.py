"""Pairs of prompts in batches of one length, so that no row is ever padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.errors import UserError

Prompts = Sequence[Sequence[int]]


def pair_batches(
    base_ids: Prompts,
    donor_ids: Prompts,
    *,
    batch_tokens: int,
    device: torch.device,
) -> Iterator[PairBatch]:
    """The pairs, shortest first, in batches of at most `batch_tokens` token places (at least one
    pair). Raises UserError when there is no pair or the two prompts of one differ in length."""
    check_lengths(base_ids, donor_ids)
    for length in sorted({len(row) for row in base_ids}):
        pairs = [i for i, row in enumerate(base_ids) if len(row) == length]
        size = max(1, batch_tokens // length)
        for start in range(0, len(pairs), size):
            chosen = pairs[start : start + size]
            base, donor = (
                torch.tensor([list(ids[i]) for i in chosen], dtype=torch.int64).to(device)
                for ids in (base_ids, donor_ids)
            )
            yield PairBatch(tuple(chosen), base, donor)


def check_lengths(base_ids: Prompts, donor_ids: Prompts) -> None:
    """Raise UserError unless there are pairs, each of two prompts of one length >= 1."""
    if len(base_ids) != len(donor_ids) or not base_ids:
        raise UserError(
            f"{len(base_ids)} base prompts for {len(donor_ids)} donor prompts",
            where="pairs",
            remedy="give at least one pair, and one donor prompt per base prompt",
        )
    for pair, (base, donor) in enumerate(zip(base_ids, donor_ids)):
        if len(base) != len(donor) or not len(base):
            raise UserError(
                f"the prompts of pair {pair} have {len(base)} and {len(donor)} tokens",
                where="pairs",
                remedy="pair prompts of equal length: states are compared place by place",
            )


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Numbers of the pairs, and their token ids [row, position] (int64)."""

    pairs: tuple[int, ...]
    base: Tensor
    donor: Tensor

    @property
    def length(self) -> int:
        return self.base.shape[1]

    @property
    def unchanged(self) -> Tensor:
        """bool [row, position]: places before a row's first differing token. The states of its two
        runs are the same there."""
        return (self.base != self.donor).cumsum(dim=1) == 0

    @property
    def first_difference(self) -> int:
        """First position at which some row's prompts differ (the length if none does)."""
        return int(self.unchanged.all(dim=0).sum())
