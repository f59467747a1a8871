"""One forward pass with states captured and replaced, whole or resumed from a block.

Everything the engine runs goes through `run_forward`, so that a patch is the same operation in the
whole pass, the resumed pass and the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import AttentionPass, attention_configs, attention_modules
from interpflow.engine.passes.recorder import AnyEdit, Recorder
from interpflow.engine.passes.recorder import Edit as Edit
from interpflow.engine.sites import COMPONENTS, Site

KeysValues = tuple[tuple[Tensor, Tensor], ...]


def run_forward(
    module: PreTrainedModel,
    architecture: Architecture,
    input_ids: Tensor,
    *,
    edits: Sequence[AnyEdit] = (),
    capture: Sequence[Site] = (),
    captured_places: Tensor | None = None,
    logits_at: Tensor | None = None,
    resume: Resume | None = None,
    keep_keys_values: bool = False,
    observe: Callable[[list[Any]], None] | None = None,
) -> ForwardResult:
    """Run tokens [batch, position] and return logits and captured states.

    input_ids may be padded on the right: no mask hides the padding, because under a causal mask no
    real token sees it, while a padded token that may see nothing at all would turn into NaN.
    edits act in the order in which a forward reaches their components, and in the given order
    within one component. captured_places: int64 [batch, n], the places whose states are kept (all
    if None); of patterns, only those query rows are then computed beside the model's attention.
    logits_at: int64 [batch], the place of each row whose logits are computed (all places if None).
    resume: start at a block, or after cached positions, instead of at the beginning.
    observe: attaches further hooks, after the edits, and adds their handles to the list it gets.
    Sites inside attention (q, k, v, pattern) are reached by running `attention.attend` in the
    place of the model's own attention, which may change the last bits of the logits.
    Raises RuntimeError when a hook did not run exactly once, naming the site.
    """
    batch, positions = input_ids.shape
    first = 0 if resume is None else resume.first_position
    recorder = Recorder(architecture, batch, positions, captured_places)
    cache = DynamicCache() if keep_keys_values else None
    with torch.no_grad(), ExitStack() as stack:
        if resume is not None:
            if resume.keys_values is not None:
                cache = _prefix_cache(resume.keys_values, first)
            stack.enter_context(hooks.replaced_forwards(_skips(architecture, resume)))
        handles = stack.enter_context(hooks.removed_afterwards())
        for edit in sorted(edits, key=lambda e: COMPONENTS.index(e.site.component)):
            recorder.attach_edit(handles, edit)
        for site in dict.fromkeys(capture):
            recorder.attach_capture(handles, site)
        if observe is not None:
            observe(handles)
        if logits_at is not None:
            recorder.attach_logits_at(handles, logits_at)
        attention = None
        watched, watch = recorder.attention_watch
        if watch is not None:
            attention = AttentionPass(
                attention_modules(architecture),
                watched=watched,
                watch=watch,
                pattern_rows=recorder.pattern_rows,
            )
            stack.enter_context(attention.active(attention_configs(module)))
        arguments: dict[str, Any] = {"use_cache": cache is not None, "past_key_values": cache}
        if architecture.takes_position_ids:
            places = torch.arange(first, first + positions, device=input_ids.device)
            arguments["position_ids"] = places.expand(batch, positions)
        # All ones: a model would warn about padding tokens, or look for them, if given no mask.
        arguments["attention_mask"] = input_ids.new_ones(batch, first + positions)
        output = module(input_ids=input_ids, return_dict=True, **arguments)
    recorder.check_fired()
    keys_values = _keys_values(cache, architecture, first + positions) if keep_keys_values else None
    return ForwardResult(output.logits, recorder.finished(capture), keys_values, attention)


def _skips(architecture: Architecture, resume: Resume) -> dict[nn.Module, Callable[..., Any]]:
    """Stand-ins for the blocks before `resume.layer`; the last one hands on the stored residual."""

    def stand_in(residual: Tensor | None) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            state = residual
            if state is None:
                state = args[0] if args else kwargs["hidden_states"]
            return (state,) if architecture.block_returns_tuple else state

        return forward

    return {
        architecture.blocks[i].block: stand_in(resume.residual if i == resume.layer - 1 else None)
        for i in range(resume.layer)
    }


def _prefix_cache(keys_values: KeysValues, length: int) -> DynamicCache:
    """A cache for one forward; the stored tensors themselves are never handed to the model's
    in-place updates, because `update` makes new tensors."""
    cache = DynamicCache()
    for keys, values in keys_values:
        if keys.shape[-2] != length:
            raise RuntimeError(f"a prefix of {keys.shape[-2]} positions, expected {length}")
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _keys_values(
    cache: DynamicCache | None, architecture: Architecture, positions: int
) -> KeysValues | None:
    """The keys and values of every layer, or None where the model does not keep them plainly."""
    if cache is None or len(cache.layers) != architecture.n_layers:
        return None
    kept = []
    for layer in cache.layers:
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            return None
        if layer.get_seq_length() != positions:
            return None
        kept.append((layer.keys, layer.values))
    return tuple(kept)


@dataclass(frozen=True)
class Resume:
    """Where a pass starts.

    layer: first block that runs (the number of blocks = only what follows them).
    residual: input of that block [batch, position, d_model]; None when layer is 0.
    first_position: prompt position of place 0; keys_values: those of the positions before it, per
    layer ([batch, heads, first_position, d] twice), None when first_position is 0.
    """

    layer: int
    residual: Tensor | None
    first_position: int = 0
    keys_values: KeysValues | None = None


@dataclass(frozen=True)
class ForwardResult:
    """logits [batch, position, vocab] (one position when `logits_at` was given); attention: what
    took the place of the model's own, if anything did."""

    logits: Tensor
    states: dict[Site, Tensor]
    keys_values: KeysValues | None
    attention: AttentionPass | None = None
