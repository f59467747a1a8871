"""What stays the same for a whole sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model
from interpflow.engine.sites import Site


def last_places(ids: Tensor) -> Tensor:
    """The last place of each row, int64 [row], of ids [row, position] without padding."""
    return torch.full((ids.shape[0],), ids.shape[1] - 1, device=ids.device)


def concatenated(parts: Sequence[dict[Site, Tensor]]) -> dict[Site, Tensor]:
    """States of several batches, rows one after another."""
    return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}


@dataclass(frozen=True)
class SweepSetting:
    """Model, prompts, sites and how patched rows are run; see `site_sweep.sweep_sites`.

    asked: bool [site, group], the cells that are wanted (all if None)."""

    model: Model
    base_ids: Sequence[Sequence[int]]
    donor_ids: Sequence[Sequence[int]]
    sites: tuple[Site, ...]
    metric: Metric
    batch_tokens: int
    path: str
    donor: str
    seed: int
    donor_positions: Sequence[Sequence[int] | None] | None = None
    asked: np.ndarray | None = None

    @property
    def aligned(self) -> bool:
        """Whether donor states come from other positions than they are written to."""
        return self.donor_positions is not None

    def cells(self, n_groups: int) -> np.ndarray:
        """The cells that are wanted, bool [site, group]."""
        return np.ones((len(self.sites), n_groups), bool) if self.asked is None else self.asked

    def donor_view(self, pair: int) -> Sequence[int]:
        """The donor's token at each base position, -1 where the donor state is of another
        position or missing: such a state is never known to equal the base's."""
        table = None if self.donor_positions is None else self.donor_positions[pair]
        if table is None:
            return self.donor_ids[pair]
        donor = self.donor_ids[pair]
        return [donor[place] if place == i else -1 for i, place in enumerate(table)]

    def tensor(self, ids: Sequence[Sequence[int]], pairs: Sequence[int]) -> Tensor:
        """Token ids [pair, position] of these pairs."""
        rows = [list(ids[pair]) for pair in pairs]
        return torch.tensor(rows, dtype=torch.int64, device=self.model.device)
