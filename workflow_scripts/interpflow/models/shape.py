"""Sizes of a model, from its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The names that architectures give to one size; most have the first.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
NEURONS = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim")
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
NEURONS_PER_WIDTH = 4  # where a config leaves the usual number unsaid


@dataclass(frozen=True)
class ModelShape:
    """Blocks, attention heads of a block, width of the residual stream, neurons of a block, and
    the longest context in tokens (None: none is stated)."""

    layers: int
    heads: int
    width: int
    neurons: int
    context: int | None = None


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape that the content of a config.json states; None where it does not."""
    own = config.get("text_config")
    stated = own if isinstance(own, Mapping) else config
    layers, heads, width = (_first(stated, names) for names in (LAYERS, HEADS, WIDTH))
    if layers is None or heads is None or width is None:
        return None
    neurons = _first(stated, NEURONS) or NEURONS_PER_WIDTH * width
    return ModelShape(layers, heads, width, neurons, _first(stated, CONTEXT))


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
