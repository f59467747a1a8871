"""Collecting the metric values of a sweep as its passes finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.metrics import Metric
from interpflow.engine.model import full_precision
from interpflow.engine.sites import Site
from interpflow.engine.sweep_plan import Groups, Row
from interpflow.engine.sweep_result import SweepResult
from interpflow.errors import UserError


def measured(metric: Metric, logits: Tensor, pairs: Sequence[int]) -> dict[str, np.ndarray]:
    """The metric's values as float64 [rows], for logits [rows, 1, vocab]."""
    index = torch.tensor(list(pairs), dtype=torch.int64, device=logits.device)
    found = {}
    for name, values in metric(full_precision(logits[:, 0]), index).items():
        array = torch.as_tensor(values).detach().cpu().numpy().astype(np.float64)
        if array.shape != (len(pairs),):
            raise UserError(
                f"metric {name!r} gave shape {array.shape}, expected ({len(pairs)},)",
                where="metric",
                remedy="return one value per row",
            )
        found[name] = array
    return found


@dataclass
class Collected:
    """Metric values and counts as they come in."""

    shape: tuple[int, int, int]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    base: dict[str, np.ndarray] = field(default_factory=dict)
    donor: dict[str, np.ndarray] = field(default_factory=dict)
    n_forwards: int = 0
    n_tokens: int = 0
    n_block_tokens: int = 0

    def __post_init__(self) -> None:
        self.ran = np.zeros(self.shape, dtype=bool)

    def count(self, forwards: int, tokens: int, blocks: int) -> None:
        self.n_forwards += forwards
        self.n_tokens += tokens
        self.n_block_tokens += tokens * blocks

    def add(
        self, into: dict[str, np.ndarray], metric: Metric, logits: Tensor, pairs: Sequence[int]
    ) -> None:
        for name, values in measured(metric, logits, pairs).items():
            kept = into.setdefault(name, np.full(self.shape[0], np.nan))
            kept[list(pairs)] = values

    def add_rows(self, metric: Metric, logits: Tensor, rows: Sequence[Row]) -> None:
        index = tuple(np.array([(r.pair, r.site_index, r.group) for r in rows]).T)
        for name, values in measured(metric, logits, [row.pair for row in rows]).items():
            kept = self.values.setdefault(name, np.full(self.shape, np.nan))
            kept[index] = values
        self.ran[index] = True

    def result(self, sites: tuple[Site, ...], path: str, groups: Groups) -> SweepResult:
        empty = np.array([[not group for group in chosen] for chosen in groups], dtype=bool)
        empty = empty.reshape(self.shape[0], self.shape[2])
        no_op = ~self.ran & ~empty[:, None, :]
        for name, base in self.base.items():
            kept = self.values.setdefault(name, np.full(self.shape, np.nan))
            kept[no_op] = np.broadcast_to(base[:, None, None], self.shape)[no_op]
        return SweepResult(
            sites=sites,
            values=self.values,
            base=self.base,
            donor=self.donor,
            ran=self.ran,
            empty=empty,
            n_rows_run=int(self.ran.sum()),
            n_rows_no_op=int(no_op.sum()),
            n_rows_empty=int(empty.sum()) * self.shape[1],
            n_forwards=self.n_forwards,
            n_tokens=self.n_tokens,
            n_block_tokens=self.n_block_tokens,
            path=path,
        )
