"""Attention in which the rows of a pass look back to keys and values of earlier passes.

What comes before is of two kinds. `shared` stands before every row: its keys are multiplied with
the queries of all rows at once and copied for none (CPU). `stems` stand before some rows each. Keys
and values are plain tensors; no cache object of the model is involved, and none is ever reused.
Models that use the attention interface hand over rotated queries and keys, scale, window, softcap
and sinks; anything else that would change the result is refused.
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
from torch.nn import functional
from transformers import AttentionInterface

from interpflow.engine.passes.attention import StopForward

IMPLEMENTATION = "interpflow_segments"
# What a model may pass along that changes nothing here.
WITHOUT_EFFECT = frozenset(
    (
        "dropout", "is_causal", "position_ids", "cache_position", "output_attentions", "use_cache",
        "output_hidden_states", "output_router_logits", "return_dict", "position_embeddings",
    )
)  # fmt: skip

# Per layer: keys and values [rows, kv_heads, n, d].
KeysValues = Sequence[tuple[Tensor, Tensor]]


class AttentionNotSupported(RuntimeError):
    """The model asks for an attention that is not done exactly here."""


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


@dataclass
class SegmentPass:
    """One pass over rows of tokens, and what its attention has seen.

    positions: int64 [row, place]. visible: bool [row, place, place], which places a place sees
    (None: itself and those before it). shared: keys and values before all rows, positions from 0.
    keep: keep the keys and values in `kept`. stop_layer: the pass ends (StopForward) when the
    keys of this layer are known. queries: int64 [row, n], the only places asked for at that layer
    from then on; its keys are those known already.
    """

    positions: Tensor
    visible: Tensor | None = None
    shared: KeysValues = ()
    stems: Stems | None = None
    keep: bool = False
    stop_layer: int | None = None
    queries: Tensor | None = None
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
        former = [config._attn_implementation for config in configs]
        token = _CURRENT.set(self)
        try:
            for config in configs:
                config._attn_implementation = IMPLEMENTATION
            yield
        finally:
            _CURRENT.reset(token)
            for config, implementation in zip(configs, former):
                config._attn_implementation = implementation

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


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of queries [row, heads, place, d] over what the current pass lets them see, own
    keys and values being [row, kv_heads, place, d]; returns [row, place, heads, d].

    Raises AttentionNotSupported for arguments that would change the result in an unknown way.
    """
    run = _CURRENT.get()
    unknown = sorted(k for k, v in others.items() if v is not None and k not in WITHOUT_EFFECT)
    if run is None or unknown or attention_mask is not None or others.get("is_causal") is False:
        raise AttentionNotSupported(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    run.windows.append(sliding_window)
    layer, key, value = run.own(module, key, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window is not None and run.reach > sliding_window else None
    key, value = run.local(layer, key, value)
    if softcap is not None or s_aux is not None or (run.shared and not _splits(query, window)):
        if run.shared:
            shared = run.shared[layer]
            key, value = (
                torch.cat([before.expand(len(state), -1, -1, -1), state], dim=2)
                for before, state in zip(shared, (key, value))
            )
        mask = run.mask(window, whole=True)
        if softcap is not None or s_aux is not None:
            out = _explicit(query, key, value, mask, scale, softcap, s_aux)
        else:
            out = _fused(query, key, value, mask, scale)
    elif run.shared:
        mask = run.mask(window, whole=False)
        out = _merged(query, key, value, mask, scale, run.shared[layer])
    else:
        out = _fused(query, key, value, run.mask(window, whole=False), scale)
    return out.transpose(1, 2), None


def _splits(query: Tensor, window: int | None) -> bool:
    """Whether attention over shared keys can be done apart: torch's kernel that says how much
    weight a part of the keys has is for CPUs, and a window may hide part of them."""
    return query.is_cpu and query.dtype == torch.float32 and window is None


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if mask is None else mask.to(query.dtype),
        is_causal=mask is None and query.shape[2] > 1,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _merged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    shared: tuple[Tensor, Tensor],
) -> Tensor:
    """Softmax over local and shared keys, from the softmax over each and their weights."""
    rows, heads, places, width = query.shape
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    near, near_weight = _weighed(query, key, value, mask, mask is None and places > 1, scale)
    # Heads that share keys, and all rows, become places of one row.
    folded = query.view(rows, heads // groups, groups, places, width).permute(1, 0, 2, 3, 4)
    folded = folded.reshape(1, heads // groups, rows * groups * places, width)
    far, far_weight = _weighed(folded, *shared, None, False, scale)
    far = far.reshape(heads // groups, rows, groups, places, width).transpose(0, 1)
    far_weight = far_weight.reshape(heads // groups, rows, groups, places).transpose(0, 1)
    share = torch.sigmoid(far_weight.reshape(near_weight.shape) - near_weight)
    return torch.lerp(near, far.reshape(near.shape), share[..., None])


def _weighed(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention [row, head, place, d] and the log of its weights' sum [row, head, place]."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=scale
    )


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = ((query * scale) @ key.transpose(-1, -2)).float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    elif query.shape[2] > 1:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    if sinks is None:
        pattern = scores.softmax(dim=-1)
    else:
        # A sink takes probability without a key of its own.
        sinks = sinks.to(scores).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        pattern = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
    return pattern.to(value.dtype) @ value


_CURRENT: ContextVar[SegmentPass | None] = ContextVar("segment_pass", default=None)
AttentionInterface.register(IMPLEMENTATION, attend)
