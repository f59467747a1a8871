"""Patches inside attention by bare torch hooks, written apart from all else in the engine.

Queries, keys and values are written where the model's own projections give them out, before they
are rotated or normalised; a row of a pattern by writing what it makes of the values where the
output projection reads it. The model's own attention runs in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interpflow.engine.architecture import Architecture
from interpflow.engine.model import Model, full_precision
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.plain_hooks import bare_logits

PROJECTED_COMPONENTS = ("q", "k", "v")
# Projections of q, k and v in one, by model family: name, and whether each head has its query, key
# and value side by side (all queries, then all keys, then all values otherwise).
FUSED_PROJECTIONS = {
    "gpt2": ("c_attn", False),
    "phi3": ("qkv_proj", False),
    "gpt_neox": ("query_key_value", True),
}
# transformers computes the softmax of eager attention in float32 whatever the model's type.
EAGER_UNITS = 64
# How far eager weights times values may be from what the output projection reads, relative to the
# largest value: further, and the values that attention mixes are not those of the projection.
MIX_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
LOW_PRECISION_MIX_TOLERANCE = 0.1


class NoIndependentRoute(Exception):
    """The architecture has no place where bare hooks could write this state; says why."""


def projection_of(architecture: Architecture, site: Site) -> Projection:
    """Where a head's q, k or v leaves its projection. Raises NoIndependentRoute."""
    parts = architecture.blocks[site.layer]
    head, kind = site.head, PROJECTED_COMPONENTS.index(site.component)
    assert head is not None
    heads = [architecture.n_heads, architecture.n_kv_heads, architecture.n_kv_heads]
    widths = [architecture.key_dim, architecture.key_dim, architecture.head_dim]
    sizes = [n * width for n, width in zip(heads, widths)]
    own = _only(parts.attention, f"{site.component}_proj")
    if own is not None:
        return Projection(own, head * widths[kind], widths[kind], sizes[kind])
    name, by_head = FUSED_PROJECTIONS.get(architecture.family, ("", False))
    fused = _only(parts.attention, name)
    if fused is None:
        raise NoIndependentRoute(
            f"{parts.attention_name} has no projection of {site.component} of a known layout"
        )
    start = sum(sizes[:kind]) + head * widths[kind]
    if by_head:
        start = head * sum(widths) + sum(widths[:kind])
    return Projection(fused, start, widths[kind], sum(sizes))


def _only(attention: nn.Module | None, name: str) -> nn.Module | None:
    """The one module of this name inside attention."""
    if attention is None or not name:
        return None
    found = [part for path, part in attention.named_modules() if path.split(".")[-1] == name]
    return found[0] if len(found) == 1 else None


@contextmanager
def projection_written(
    model: Model, ids: list[int], site: Site, position: int, direction: Tensor
) -> Iterator[None]:
    """While this holds, one head's projection gives `direction` [d], stretched to the length of
    what it gave (at least 1), at one position of the prompt. Raises NoIndependentRoute."""
    place = projection_of(model.architecture, site)

    def write(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
        flat = place.flat(output, len(ids)).clone()
        length = flat[position, place.features].float().norm().clamp(min=1.0)
        flat[position, place.features] = (direction.to(flat.device) * length).to(flat)
        return flat.reshape(output.shape)

    handle = place.module.register_forward_hook(write)
    try:
        yield
    finally:
        handle.remove()


def plain_pattern(
    model: Model, ids: list[int], site: Site, position: int, row: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits [vocab] at the last token of one prompt in which the head's attention at `position` is
    `row` [key], and the attention [key] that it has unpatched, from the model's eager attention.
    Raises NoIndependentRoute."""
    architecture, head = model.architecture, site.head
    parts, width = architecture.blocks[site.layer], architecture.head_dim
    assert head is not None
    assert parts.attention is not None  # what is not found is refused
    assert parts.attention_projection is not None
    group = head // (architecture.n_heads // architecture.n_kv_heads)
    place = projection_of(architecture, Site("v", site.layer, group))
    own = slice(head * width, (head + 1) * width)
    values: list[Tensor] = []
    weights: list[Tensor] = []
    mixed: list[Tensor] = []

    def keep_values(_module: nn.Module, _args: tuple, output: Tensor) -> None:
        values.append(place.flat(output, len(ids))[:, place.features])

    def keep_weights(_module: nn.Module, _args: tuple, output: Any) -> None:
        if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], Tensor):
            weights.append(output[1][0, head])

    def keep_mixed(_module: nn.Module, args: tuple) -> None:
        if not args:
            raise NoIndependentRoute(f"{parts.attention_name} names what its output reads")
        mixed.append(args[0].reshape(len(ids), -1)[:, own])

    def write(_module: nn.Module, args: tuple) -> tuple:
        flat = args[0].reshape(len(ids), -1).clone()
        flat[position, own] = row.to(values[0]) @ values[0]
        return (flat.reshape(args[0].shape), *args[1:])

    handles = [place.module.register_forward_hook(keep_values)]
    try:
        before = parts.attention_projection.register_forward_pre_hook(keep_mixed)
        handles += [before, parts.attention.register_forward_hook(keep_weights)]
        with _eager(model.module):
            bare_logits(model, ids)
        if len(weights) != 1 or weights[0].shape != (len(ids), len(ids)):
            raise NoIndependentRoute(f"{parts.attention_name} hands out no attention weights")
        _check_mix(weights[0], values[0], mixed[0], parts.attention_name)
        before.remove()
        values.clear()
        handles.append(parts.attention_projection.register_forward_pre_hook(write))
        logits = bare_logits(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    return logits, full_precision(weights[0][position])


def _check_mix(weights: Tensor, values: Tensor, mixed: Tensor, name: str) -> None:
    """The model's own attention mixes what the value projection gives, and nothing else."""
    limit = MIX_TOLERANCE.get(values.dtype, LOW_PRECISION_MIX_TOLERANCE)
    gap = (weights.to(values) @ values - mixed).abs().max() / values.abs().max().clamp(min=1e-30)
    if not float(gap) <= limit:
        raise NoIndependentRoute(
            f"{name} mixes something else than what its projection of values gives"
        )


@contextmanager
def _eager(module: nn.Module) -> Iterator[None]:
    """The model's eager attention, which alone hands out its weights."""
    found: list[Any] = [getattr(part, "config", None) for part in module.modules()]
    configs = {id(c): c for c in found if hasattr(c, "_attn_implementation")}
    former = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = former[key]


@dataclass(frozen=True)
class Projection:
    """A module that gives out, among `total` features, `width` features of one head."""

    module: nn.Module
    start: int
    width: int
    total: int

    @property
    def features(self) -> slice:
        return slice(self.start, self.start + self.width)

    def flat(self, output: Any, n_positions: int) -> Tensor:
        """The module's output as [position, total]. Raises NoIndependentRoute."""
        if not isinstance(output, Tensor) or output.numel() != n_positions * self.total:
            raise NoIndependentRoute(
                f"a projection of attention does not give {self.total} features a position"
            )
        return output.reshape(n_positions, self.total)
