"""One pass over rows of tokens whose attention looks back to keys and values of earlier passes.

What comes before is of two kinds. `shared` stands before every row: its keys are multiplied with
the queries of all rows at once and copied for none (CPU). `stems` stand before some rows each. Keys
and values are plain tensors; no cache object of the model is involved, and none is ever reused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from interpflow.engine.passes.attention import StopForward, attention_by

# The name of the attention that `segment_attention` does.
IMPLEMENTATION = "interpflow_segments"

# Per layer: keys and values [rows, kv_heads, n, d].
KeysValues = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stems:
    """Keys and values [stem, kv_heads, n, d] per layer that rows of a pass begin with.

    Row r continues stem `rows[r]`, whose first `lengths[r]` places count; they stand at the
    positions from `first` on. rows, lengths: int64 [rows of the pass].
    """

    layers: KeysValues
    rows: Tensor
    lengths: Tensor
    first: int


@dataclass(frozen=True)
class EqualRows:
    """Rows of one length in a packed pass: where the first begins, how many rows before it."""

    start: int
    first: int
    n: int
    length: int

    def of(self, states: Tensor) -> Tensor:
        """[1, heads, place, d] of the whole pass -> [row, heads, place of the row, d], a view."""
        rows = states[0, :, self.start : self.start + self.n * self.length]
        return rows.unflatten(1, (self.n, self.length)).transpose(0, 1)


@dataclass
class SegmentPass:
    """One pass over rows of tokens, and what its attention has seen.

    positions: int64 [row, place]. visible: bool [row, place, place], which places a place sees
    (None: itself and those before it). shared: keys and values before all rows, positions from 0.
    keep: keep the keys and values in `kept`. stop_layer: the pass ends (StopForward) when the
    keys of this layer are known. queries: int64 [row, n], the only places asked for at that layer
    from then on; its keys are those known already. packed: the pass is one row in which the rows
    proper stand one after the other, and each sees itself alone; `queries` are then one place each.
    """

    positions: Tensor
    visible: Tensor | None = None
    shared: KeysValues = ()
    stems: Stems | None = None
    keep: bool = False
    stop_layer: int | None = None
    queries: Tensor | None = None
    packed: Sequence[EqualRows] = ()
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    windows: list[int | None] = field(default_factory=list)
    _last: tuple[Tensor, Tensor] | None = None
    _masks: dict[tuple[int | None, bool, bool], Tensor | None] = field(default_factory=dict)

    @cached_property
    def reach(self) -> int:
        """Positions from the first token of a row to the last."""
        return int(self.positions.max()) + 1

    @property
    def n_shared(self) -> int:
        return self.shared[0][0].shape[2] if self.shared else 0

    @contextmanager
    def active(self, configs: Sequence[Any]) -> Iterator[None]:
        """Let the attention of a model with these configurations run through this pass."""
        with attention_by(IMPLEMENTATION, configs):
            token = CURRENT.set(self)
            try:
                yield
            finally:
                CURRENT.reset(token)

    def own(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[int, Tensor, Tensor]:
        """(layer, keys, values) of the pass's own places at this call; raises StopForward."""
        if self.queries is not None and self._last is not None:
            return len(self.modules) - 1, *self._last
        layer = len(self.modules)
        self.modules.append(module)
        if self.keep:
            self.kept.append((key, value))
        if layer == self.stop_layer:
            self._last = (key, value)
            raise StopForward
        return layer, key, value

    def local(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of stems and own places, [row, kv_heads, n, d]."""
        if self.stems is None:
            return key, value
        keys, values = self.stems.layers[layer]
        return (
            torch.cat([keys[self.stems.rows], key], dim=2),
            torch.cat([values[self.stems.rows], value], dim=2),
        )

    def mask(self, window: int | None, *, whole: bool) -> Tensor | None:
        """0 or -inf, [row or 1, 1, query, key], over stems and own places (`whole`: over the
        shared ones too); None where it is just causal over the own places."""
        plain = self.visible is None and self.queries is None and self.stems is None
        if plain and window is None and not (whole and self.shared):
            return None
        wanted = (window, whole, self.queries is not None)
        if wanted not in self._masks:
            seen = self._visible(window, whole)[:, None]
            mask = torch.zeros(seen.shape, dtype=torch.float32, device=seen.device)
            self._masks[wanted] = mask.masked_fill_(~seen, float("-inf"))
        return self._masks[wanted]

    def _visible(self, window: int | None, whole: bool) -> Tensor:
        n_rows, places = self.positions.shape
        device = self.positions.device
        if self.visible is not None:
            seen = self.visible
        else:
            order = torch.arange(places, device=device)
            seen = (order[None, :] <= order[:, None]).expand(n_rows, -1, -1)
        at, keys_at = self.positions, [self.positions]
        if self.queries is not None:
            seen = seen.gather(1, self.queries[:, :, None].expand(-1, -1, places))
            at = at.gather(1, self.queries)
        parts = [seen]
        if self.stems is not None:
            order = torch.arange(self.stems.layers[0][0].shape[2], device=device)
            real = order[None, None, :] < self.stems.lengths[:, None, None]
            parts.insert(0, real.expand(-1, at.shape[1], -1))
            keys_at.insert(0, (order + self.stems.first).expand(n_rows, -1))
        if whole and self.shared:
            parts.insert(0, seen.new_ones(1, 1, 1).expand(n_rows, at.shape[1], self.n_shared))
            keys_at.insert(0, torch.arange(self.n_shared, device=device).expand(n_rows, -1))
        seen = torch.cat(parts, dim=2)
        if window is None:
            return seen
        return seen & (torch.cat(keys_at, dim=1)[:, None, :] > at[:, :, None] - window)


CURRENT: ContextVar[SegmentPass | None] = ContextVar("segment_pass", default=None)
