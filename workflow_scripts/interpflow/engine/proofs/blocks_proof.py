"""Proof that a model may be run block by block, entered and left at any block and position."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interpflow.engine.model import Model
from interpflow.engine.passes.attention import AttentionNotSupported
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.passes.forward import run_forward
from interpflow.engine.passes.prompt_states import run_prompts
from interpflow.engine.proofs.probe_pass import probe_ids
from interpflow.engine.proofs.resume_proof import CANNOT

# Rounding units of the logits' type, times the largest logit, that another order of sums may cost.
UNITS = 512
# Of a type with fewer digits than float32: an eighth of the largest logit in bfloat16.
NARROW_UNITS = 16
# transformers computes norms and softmaxes in float32 whatever the model's type.
SMALLEST_UNIT = torch.finfo(torch.float32).eps

_PROVEN: WeakKeyDictionary[Model, Blocks | str] = WeakKeyDictionary()


def proven_blocks(model: Model) -> Blocks | str:
    """See `prove_blocks`; once per model."""
    if model not in _PROVEN:
        _PROVEN[model] = prove_blocks(model)
    return _PROVEN[model]


def prove_blocks(model: Model) -> Blocks | str:
    """The model's blocks, or the reason why they cannot be run one at a time."""
    blocks = Blocks(model.module, model.architecture)
    ids = probe_ids(model.module, model.architecture)
    first = ids.shape[1] // 2
    whole = run_forward(model.module, model.architecture, ids).logits
    try:
        misses = [
            _miss(logits, whole[:, begin:])
            for begin, logits in ((0, _whole(blocks, ids)), (first, _resumed(blocks, ids, first)))
        ]
        last = model.architecture.unembed(run_prompts(blocks, ids).last)
        misses.append(_miss(last, whole[:, -1]))
    except AttentionNotSupported as error:
        return f"its attention cannot be taken over: {error}"
    except CANNOT as error:
        # Attention that cannot be reached is the usual reason, and was named when it was refused.
        reason = model.architecture.refused.get("q") or f"{type(error).__name__}: {error}"
        return f"its blocks cannot be called one at a time: {reason}"
    narrow = torch.finfo(whole.dtype).eps > SMALLEST_UNIT
    if not max(misses) <= (NARROW_UNITS if narrow else UNITS):
        return f"its blocks, run one at a time, miss the logits by {max(misses):.3g} units"
    return _undeclared_windows(model, blocks, ids) or blocks


def _whole(blocks: Blocks, ids: Tensor) -> Tensor:
    state = blocks.embed(ids)
    for layer in range(blocks.n_layers):
        state = blocks.run(layer, state, 0, ids.shape[1]).states
    with torch.no_grad():
        return blocks.architecture.unembed(state)


def _resumed(blocks: Blocks, ids: Tensor, first: int) -> Tensor:
    """Two copies of the rows from a middle position on; the second copy is returned."""
    kept = run_prompts(blocks, ids, keep=True, last_only=False)
    state = blocks.embed(ids)[:, first:].repeat(2, 1, 1)
    for layer in range(blocks.n_layers):
        segments = kept.before(layer, first, None)
        state = blocks.run(layer, state, first, ids.shape[1], segments=segments).states
    with torch.no_grad():
        return blocks.architecture.unembed(state[len(ids) :])


def _miss(found: Tensor, expected: Tensor) -> float:
    """Largest difference in rounding units of the largest logit; NaN is not small."""
    unit = max(torch.finfo(expected.dtype).eps, SMALLEST_UNIT) * float(expected.abs().max())
    gap = float((found - expected).detach().abs().max())
    return gap / max(unit, torch.finfo(torch.float32).tiny)


def _undeclared_windows(model: Model, blocks: Blocks, ids: Tensor) -> str | None:
    """A window wider than the probe shows only in what the attention is called with: it must be
    what the configuration says of that layer."""
    config: Any = model.module.config.get_text_config(decoder=True)
    types = getattr(config, "layer_types", None)
    if getattr(config, "attention_chunk_size", None):
        return "attention in chunks is not supported"
    state = blocks.embed(ids)
    for layer in range(blocks.n_layers):
        with blocks.attention() as run:
            state = blocks.call(layer, state, 0, ids.shape[1])
        kind = types[layer] if types else None
        if kind not in (None, "full_attention", "sliding_attention"):
            return f"block {layer} has attention of type {kind!r}"
        slides = kind == "sliding_attention" or (
            kind is None and getattr(config, "use_sliding_window", True)
        )
        declared = getattr(config, "sliding_window", None) if slides else None
        if run.windows[layer] != declared:
            return f"block {layer} uses a window of {run.windows[layer]}, declared is {declared}"
    return None
