"""Attention in our own hands: queries, keys, values and patterns of every block can be seen,
changed, and continued from stored keys and values.

Hugging Face models that use the attention interface hand over queries and keys after rotation and
normalisation, with their scale, window, softcap and sinks. While `AttentionPass.active` holds, what
runs in their place is `attend`: exact attention over segments of keys, none of them copied per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes import hooks
from interpflow.engine.sites import ATTENTION_COMPONENTS as ATTENTION_COMPONENTS

IMPLEMENTATION = "interpflow"
# What a model may pass along that does not change attention over unpadded prompts.
_WITHOUT_EFFECT = frozenset(
    (
        "dropout", "is_causal", "position_ids", "cache_position", "output_attentions", "use_cache",
        "output_hidden_states", "output_router_logits", "return_dict", "position_embeddings",
        "deterministic",
    )
)  # fmt: skip

Watch = Callable[[str, int, Tensor], Tensor | None]


class StopForward(Exception):
    """Ends a pass early, once everything that was asked for is there."""


class AttentionNotSupported(RuntimeError):
    """The model asks for something that `attend` does not do exactly."""


@dataclass(frozen=True)
class Segment:
    """Keys and values [rows, kv_heads, positions, d] of consecutive earlier positions.

    A pass of R rows may use a segment of S rows when S divides R: row r then reads row r mod S.
    """

    keys: Tensor
    values: Tensor

    @property
    def n_positions(self) -> int:
        return self.keys.shape[2]

    def before(self, position: int) -> Segment:
        return Segment(self.keys[:, :, :position], self.values[:, :, :position])


@dataclass(frozen=True)
class Part:
    """Rows of equally many consecutive places that lie one after another in a packed pass
    [1, all places of all parts]; segments as for a pass of these rows alone."""

    rows: int
    places: int
    segments: Sequence[Segment]

    @property
    def n_packed(self) -> int:
        return self.rows * self.places


@dataclass
class AttentionPass:
    """What attention does during one pass.

    layers: attention module -> layer. segments: per layer, what comes before place 0 of the pass
    (the first place's position is the number of their positions). watched: (component, layer)
    pairs for which `watch(component, layer, state)` is called; what it returns, unless None,
    replaces the state. States are [batch, position, head, d] for q, k, v and
    [batch, position, head, key position] for pattern; those of k and v begin with the positions of
    the model's own cache, if it uses one.
    pattern_rows: layer -> places [batch, n] of the queries whose pattern `watch` is shown, only to
    be read: the pattern itself need not be computed then.
    parts: layers whose pass is packed -> its parts, in order; patterns cannot be watched there.
    keep: layers whose own keys and values are kept in `kept`. keys_only: layers at which the pass
    ends (StopForward) as soon as keys and values are known.
    """

    layers: dict[nn.Module, int]
    segments: dict[int, Sequence[Segment]] = field(default_factory=dict)
    watched: frozenset[tuple[str, int]] = frozenset()
    watch: Watch | None = None
    pattern_rows: dict[int, Tensor] = field(default_factory=dict)
    parts: dict[int, Sequence[Part]] = field(default_factory=dict)
    keep: frozenset[int] = frozenset()
    keys_only: frozenset[int] = frozenset()
    kept: dict[int, Segment] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)

    @contextmanager
    def active(self, configs: Sequence[Any]) -> Iterator[None]:
        """Let the attention of a model with these `attention_configs` run through this pass; as
        before afterwards, in any case."""
        with attention_by(IMPLEMENTATION, configs):
            token = _CURRENT.set(self)
            try:
                yield
            finally:
                _CURRENT.reset(token)


@contextmanager
def attention_by(implementation: str, configs: Sequence[Any]) -> Iterator[None]:
    """Let models with these configurations use a registered attention; as before afterwards."""
    with hooks.TURN:
        former = [config._attn_implementation for config in configs]
        try:
            for config in configs:
                config._attn_implementation = implementation
            yield
        finally:
            for config, before in zip(configs, former):
                config._attn_implementation = before


def attention_modules(architecture: Architecture) -> dict[nn.Module, int]:
    """Every module inside a block -> its layer: whichever of them calls attention is known."""
    return {
        part: layer
        for layer, parts in enumerate(architecture.blocks)
        for part in (parts.attention.modules() if parts.attention is not None else ())
    }


def attention_configs(module: PreTrainedModel) -> list[Any]:
    """The configurations that the model's attention modules look at (each once)."""
    found = {id(c): c for c in (module.config, module.config.get_text_config(decoder=True))}
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            found[id(config)] = config
    return list(found.values())


def bypassing(module: PreTrainedModel, architecture: Architecture, ids: Tensor) -> str | None:
    """Name of the first attention module that computes attention by itself instead of calling
    `attend`, on token ids [batch, position]; None where every one that runs calls it."""
    entered: list[int] = []

    def enter(layer: int) -> Callable[..., None]:
        return lambda *_: entered.append(layer)

    run = AttentionPass(attention_modules(architecture))
    handles = [
        parts.attention.register_forward_pre_hook(enter(layer))
        for layer, parts in enumerate(architecture.blocks)
        if parts.attention is not None
    ]
    try:
        # Such a module may well fail without the mask that its own implementation is given: that
        # it was entered and did not call is what counts.
        with torch.no_grad(), run.active(attention_configs(module)), suppress(Exception):
            module(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    found = next((layer for layer in entered if layer not in run.calls), None)
    return None if found is None else architecture.blocks[found].attention_name


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
    """Causal attention of queries [batch, heads, position, d] over the pass's segments and the own
    keys and values [batch, kv_heads, position, d]; returns [batch, position, heads, d].

    Raises AttentionNotSupported for arguments that would change the result in an unknown way.
    """
    run = _CURRENT.get()
    layer = None if run is None else run.layers.get(module)
    if run is None or layer is None:
        raise AttentionNotSupported("attention was called outside a block of the map")
    unknown = sorted(k for k, v in others.items() if v is not None and k not in _WITHOUT_EFFECT)
    if unknown or attention_mask is not None or others.get("is_causal") is False:
        raise AttentionNotSupported(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    run.calls[layer] = run.calls.get(layer, 0) + 1
    run.windows[layer] = sliding_window
    query, key, value = (
        _seen(run, name, layer, state) for name, state in (("q", query), ("k", key), ("v", value))
    )
    if layer in run.keep:
        run.kept[layer] = Segment(key, value)
    if layer in run.keys_only:
        raise StopForward
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    how = _How(scale, sliding_window, softcap, s_aux)
    if layer in run.parts:
        return _packed(query, key, value, run.parts[layer], how), None
    before = [s for s in run.segments.get(layer, ()) if s.n_positions > 0]
    _show_rows(run, layer, query, [*before, Segment(key, value)], how)
    return _attention(run, layer, query, key, value, before, how), None


def needs_no_queries(part: nn.Module) -> bool:
    """Whether the pass under way ends, in the attention that this module is part of, with keys and
    values: queries are not looked at."""
    run = _CURRENT.get()
    if run is None or not run.keys_only:
        return False
    layer = run.layers.get(part)
    return layer in run.keys_only and ("q", layer) not in run.watched


def _packed(query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Part], how: _How) -> Tensor:
    """Attention within each part of a packed pass [1, heads, places of all parts, d]."""
    outs, start = [], 0
    for part in parts:
        mine = (
            state[0, :, start : start + part.n_packed]
            .unflatten(1, (part.rows, part.places))
            .transpose(0, 1)
            for state in (query, key, value)
        )
        before = [s for s in part.segments if s.n_positions > 0]
        outs.append(_attention(None, -1, *mine, before, how).flatten(0, 1))
        start += part.n_packed
    return torch.cat(outs)[None]


def _show_rows(
    run: AttentionPass, layer: int, query: Tensor, segments: Sequence[Segment], how: _How
) -> None:
    """Let the pass see the pattern of the queries that it asked for."""
    places = run.pattern_rows.get(layer)
    if places is None or run.watch is None:
        return
    at, n_own = places.to(query.device), query.shape[2]
    first = sum(s.n_positions for s in segments) - n_own
    chosen = query.gather(2, at[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    visible = _visible(first, n_own, how.window, query.device)[at][:, None]
    rows = _pattern(chosen, segments, how, visible)
    run.watch("pattern", layer, rows.to(segments[-1].values.dtype).transpose(1, 2))


def _attention(
    run: AttentionPass | None,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    before: Sequence[Segment],
    how: _How,
) -> Tensor:
    """Attention [batch, position, heads, d] of queries [batch, heads, position, d]."""
    segments, n_own = [*before, Segment(key, value)], query.shape[2]
    # The model's own cache puts the keys of earlier positions in front of the own ones.
    first = sum(s.n_positions for s in segments) - n_own
    wide = how.window is None or first + n_own <= how.window
    watched = run is not None and ("pattern", layer) in run.watched
    hides = n_own > 1 or not wide
    if first <= n_own and how.softcap is None and how.sinks is None and not watched:
        # Few earlier keys: copying them to every row costs less than two products and a sum.
        keys, values = _per_row(before, key, value)
        triangle = first == 0 and wide
        shown = None
        if hides and not triangle:
            shown = _visible(first, n_own, how.window, query.device)
        return functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=shown, is_causal=hides and triangle, scale=how.scale,
            enable_gqa=key.shape[1] != query.shape[1],
        ).transpose(1, 2)  # fmt: skip
    visible = _visible(first, n_own, how.window, query.device) if hides else None
    pattern = _pattern(query, segments, how, visible).to(value.dtype)
    if run is not None and watched:
        pattern = _seen(run, "pattern", layer, pattern)
    return _mixed(pattern, segments).transpose(1, 2)


def _per_row(segments: Sequence[Segment], key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [batch, kv_heads, position, d] of all segments and of the rows' own."""
    if not segments:
        return key, value
    found = []
    for own, earlier in (
        (key, [segment.keys for segment in segments]),
        (value, [segment.values for segment in segments]),
    ):
        batch, heads, n_own, width = own.shape
        n_keys = sum(part.shape[2] for part in earlier) + n_own
        # Positions outside heads, as the projections leave them: what is copied lies together.
        whole = own.new_empty(batch, n_keys, heads, width).transpose(1, 2)
        start = 0
        for part in earlier:
            stop = start + part.shape[2]
            rows = whole.unflatten(0, (batch // part.shape[0], part.shape[0]))
            rows[:, :, :, start:stop] = part
            start = stop
        whole[:, :, start:] = own
        found.append(whole)
    return found[0], found[1]


def _pattern(
    query: Tensor, segments: Sequence[Segment], how: _How, visible: Tensor | None
) -> Tensor:
    """Attention weights [batch, head, position, key] of queries [batch, head, position, d]."""
    scores = _scores(query, segments, how.scale)
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    if how.sinks is None:
        return scores.softmax(dim=-1)
    # A sink takes probability without a key of its own.
    sinks = how.sinks.to(scores).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]


def _seen(run: AttentionPass, component: str, layer: int, state: Tensor) -> Tensor:
    """The state [batch, head, position, ...] after the pass's watch has had a look at it."""
    if run.watch is None or (component, layer) not in run.watched:
        return state
    changed = run.watch(component, layer, state.transpose(1, 2))
    return state if changed is None else changed.transpose(1, 2)


def _scores(query: Tensor, segments: Sequence[Segment], scale: float) -> Tensor:
    """Scaled products [batch, head, position, key] with the keys of all segments in order."""
    batch, heads, places, _ = query.shape
    query = query * scale
    parts = []
    for segment in segments:
        rows, kv_heads, n_keys, _ = segment.keys.shape
        spread = _spread(query, rows, kv_heads)
        products = spread @ segment.keys.transpose(-1, -2)
        parts.append(_gathered(products, batch, heads, places, n_keys))
    scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return scores if scores.dtype in (torch.float32, torch.float64) else scores.float()


def _mixed(pattern: Tensor, segments: Sequence[Segment]) -> Tensor:
    """Values weighted by the pattern, [batch, head, position, d]."""
    batch, heads, places, _ = pattern.shape
    total, start = None, 0
    for segment in segments:
        rows, kv_heads, n_keys, width = segment.values.shape
        spread = _spread(pattern[..., start : start + n_keys], rows, kv_heads)
        part = _gathered(spread @ segment.values, batch, heads, places, width)
        total = part if total is None else total + part
        start += n_keys
    assert total is not None
    return total


def _spread(state: Tensor, rows: int, kv_heads: int) -> Tensor:
    """[batch, head, position, d] -> [rows, kv_heads, all that share these keys, d]."""
    batch, heads, places, width = state.shape
    times, group = batch // rows, heads // kv_heads
    if times == 1:
        return state.reshape(rows, kv_heads, group * places, width)
    state = state.view(times, rows, kv_heads, group, places, width)
    return state.permute(1, 2, 0, 3, 4, 5).reshape(rows, kv_heads, times * group * places, width)


def _gathered(state: Tensor, batch: int, heads: int, places: int, width: int) -> Tensor:
    """The inverse of `_spread`."""
    rows, kv_heads = state.shape[:2]
    times, group = batch // rows, heads // kv_heads
    if times == 1:
        return state.view(batch, heads, places, width)
    state = state.view(rows, kv_heads, times, group, places, width)
    return state.permute(2, 0, 1, 3, 4, 5).reshape(batch, heads, places, width)


@lru_cache(maxsize=256)
def _visible(first: int, places: int, window: int | None, device: torch.device) -> Tensor:
    """bool [position, key]: a query sees itself and what comes before it, within the window."""
    queries = torch.arange(first, first + places, device=device)[:, None]
    keys = torch.arange(first + places, device=device)[None, :]
    visible = keys <= queries
    return visible if window is None else visible & (keys > queries - window)


@dataclass(frozen=True)
class _How:
    """Scale of the products, window, softcap of the scores, sinks (one per head)."""

    scale: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None


_CURRENT: ContextVar[AttentionPass | None] = ContextVar("attention_pass", default=None)
AttentionInterface.register(IMPLEMENTATION, attend)
