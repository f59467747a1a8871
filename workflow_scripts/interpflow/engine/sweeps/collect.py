"""Collecting the metric values of a sweep as its passes finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.metrics import ColumnMetric, CombinedMetric, Metric
from interpflow.engine.model import Model, full_precision
from interpflow.engine.passes.unembedding import unembed_columns
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.plan import Groups, Row
from interpflow.engine.sweeps.result import SweepResult
from interpflow.errors import UserError

# Logits held at once: rows that hold one token each would otherwise make a huge matrix of them.
PASS_LOGITS = 2**25
# Logits that a metric is given at once on a CPU, so that its float64 copies of them stay in cache.
METRIC_LOGITS = 2**19


def logit_rows(model: Model) -> int:
    """Rows of logits of the whole vocabulary that may be held at once."""
    return max(1, PASS_LOGITS // model.vocab_size)


def measured(metric: Metric, logits: Tensor, pairs: Sequence[int]) -> dict[str, np.ndarray]:
    """The metric's values as float64 [rows], for logits [rows, vocab]."""
    # A model may rule tokens out by a logit of minus infinity.
    _check_finite(~logits.isnan().any(dim=-1), pairs)
    index = torch.tensor(list(pairs), dtype=torch.int64, device=logits.device)
    return _values(metric, logits, index)


def measured_residuals(
    model: Model, metric: Metric, residuals: Tensor, pairs: Sequence[int]
) -> dict[str, np.ndarray]:
    """The same for residuals [rows, d_model] after the last block; the logits of the whole
    vocabulary are computed only if the metric reads them, a bounded number of rows at a time."""
    index = torch.tensor(list(pairs), dtype=torch.int64, device=residuals.device)
    _check_finite(residuals.isfinite().all(dim=-1), pairs)
    step = len(pairs)
    if not isinstance(metric, ColumnMetric):
        step = logit_rows(model)
    parts = []
    with torch.no_grad():
        for start in range(0, len(pairs), step):
            rows, mine = residuals[start : start + step], index[start : start + step]
            if isinstance(metric, ColumnMetric):
                logits = unembed_columns(model.architecture, rows, metric.tokens(mine))
                parts.append(_arrays(metric.function(full_precision(logits), mine), len(mine)))
            else:
                parts.append(_values(metric, model.architecture.unembed(rows), mine))
    return _joined(parts)


def _values(metric: Metric, logits: Tensor, pairs: Tensor) -> dict[str, np.ndarray]:
    """The metric of logits [rows, vocab] of these pairs [rows], a few rows at a time on a CPU."""
    n_rows, vocab = logits.shape
    step = n_rows if logits.is_cuda else max(1, METRIC_LOGITS // vocab)
    if step < n_rows:
        for part in metric.parts if isinstance(metric, CombinedMetric) else (metric,):
            if isinstance(part, TakesAhead):
                part.take(pairs)
    parts = []
    for start in range(0, n_rows, step):
        mine = pairs[start : start + step]
        found = metric(full_precision(logits[start : start + step]), mine)
        parts.append(_arrays(found, len(mine)))
    return _joined(parts)


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_finite(sound: Tensor, pairs: Sequence[int]) -> None:
    bad = (~sound).nonzero()
    if len(bad):
        raise UserError(
            "a patched or unpatched run has NaN or infinite states after its last block",
            where=f"pair {pairs[int(bad[0])]}",
            remedy="load the model in float32 or bfloat16: float16 overflows in some models",
        )


def _arrays(values: dict[str, Tensor], n_rows: int) -> dict[str, np.ndarray]:
    found = {}
    for name, tensor in values.items():
        array = torch.as_tensor(tensor).detach().cpu().numpy().astype(np.float64)
        if array.shape != (n_rows,):
            raise UserError(
                f"metric {name!r} gave shape {array.shape}, expected ({n_rows},)",
                where="metric",
                remedy="return one value per row",
            )
        found[name] = array
    return found


@runtime_checkable
class TakesAhead(Protocol):
    """A metric that runs something for each pair: better for many pairs at once."""

    def take(self, pairs: Tensor) -> None: ...


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

    def count(self, forwards: int, tokens: int, block_tokens: int) -> None:
        self.n_forwards += forwards
        self.n_tokens += tokens
        self.n_block_tokens += block_tokens

    def add(
        self, into: dict[str, np.ndarray], found: dict[str, np.ndarray], pairs: Sequence[int]
    ) -> None:
        for name, values in found.items():
            kept = into.setdefault(name, np.full(self.shape[0], np.nan))
            kept[list(pairs)] = values

    def add_rows(self, found: dict[str, np.ndarray], rows: Sequence[Row]) -> None:
        index = tuple(np.array([(r.pair, r.site_index, r.group) for r in rows]).T)
        for name, values in found.items():
            kept = self.values.setdefault(name, np.full(self.shape, np.nan))
            kept[index] = values
        self.ran[index] = True

    def result(
        self, sites: tuple[Site, ...], path: str, groups: Groups, asked: np.ndarray
    ) -> SweepResult:
        empty = np.array([[not group for group in chosen] for chosen in groups], dtype=bool)
        empty = empty.reshape(self.shape[0], self.shape[2])
        no_op = ~self.ran & ~empty[:, None, :] & asked
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
            asked=asked,
            n_rows_run=int(self.ran.sum()),
            n_rows_no_op=int(no_op.sum()),
            n_rows_empty=int((empty[:, None, :] & asked).sum()),
            n_forwards=self.n_forwards,
            n_tokens=self.n_tokens,
            n_block_tokens=self.n_block_tokens,
            path=path,
        )
