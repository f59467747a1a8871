"""Batches of token ids, padded on the right so that position i means the same in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.errors import UserError


@dataclass(frozen=True)
class TokenBatch:
    """Token ids [batch, position] (int64) with a mask [batch, position] (int64, 1 = real token).

    Rows are padded on the right: under a causal mask no real token sees a padded one, and the
    position of a token does not depend on the other rows.
    """

    input_ids: Tensor
    attention_mask: Tensor

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 2 or self.input_ids.shape != self.attention_mask.shape:
            raise UserError("a token batch needs ids and mask of one shape [batch, position]")
        if self.input_ids.numel() == 0 or not bool(self.attention_mask[:, 0].all()):
            raise UserError("a token batch needs at least one row and no empty row")
        if bool((self.attention_mask.diff(dim=1) > 0).any()):
            raise UserError(
                "a token batch must be padded on the right", remedy="use TokenBatch.from_ids"
            )

    @classmethod
    def from_ids(
        cls,
        ids: Sequence[Sequence[int]],
        *,
        pad_id: int = 0,
        device: str | torch.device = "cpu",
    ) -> TokenBatch:
        """Stack rows of token ids (of any lengths >= 1)."""
        lengths = [len(row) for row in ids]
        if not lengths or min(lengths) == 0:
            raise UserError("a token batch needs at least one row and no empty row")
        width = max(lengths)
        padded = [list(row) + [pad_id] * (width - len(row)) for row in ids]
        mask = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
        return cls(torch.tensor(padded, dtype=torch.int64).to(device), mask.long().to(device))

    @property
    def lengths(self) -> Tensor:
        """Number of real tokens of each row, [batch] int64."""
        return self.attention_mask.sum(dim=1)

    @property
    def is_padded(self) -> bool:
        return not bool(self.attention_mask.all())

    def to(self, device: str | torch.device) -> TokenBatch:
        return TokenBatch(self.input_ids.to(device), self.attention_mask.to(device))
