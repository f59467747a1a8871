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

from interpflow.engine import hooks
from interpflow.engine.architecture import Architecture
from interpflow.engine.sites import COMPONENTS, Site

KeysValues = tuple[tuple[Tensor, Tensor], ...]


def run_forward(
    module: PreTrainedModel,
    architecture: Architecture,
    input_ids: Tensor,
    *,
    edits: Sequence[Edit] = (),
    capture: Sequence[Site] = (),
    logits_at: Tensor | None = None,
    resume: Resume | None = None,
    keep_keys_values: bool = False,
    observe: Callable[[list[Any]], None] | None = None,
) -> ForwardResult:
    """Run tokens [batch, position] and return logits and captured states.

    input_ids may be padded on the right: no mask hides the padding, because under a causal mask no
    real token sees it, while a padded token that may see nothing at all would turn into NaN.
    logits_at: int64 [batch], the place of each row whose logits are computed (all places if None).
    resume: start at a block, or after cached positions, instead of at the beginning.
    observe: attaches further hooks, after the edits, and adds their handles to the list it gets.
    Raises RuntimeError when a hook did not run exactly once, naming the site.
    """
    batch, positions = input_ids.shape
    first = 0 if resume is None else resume.first_position
    recorder = _Recorder(architecture, batch, positions)
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
        arguments: dict[str, Any] = {"use_cache": cache is not None, "past_key_values": cache}
        if architecture.takes_position_ids:
            places = torch.arange(first, first + positions, device=input_ids.device)
            arguments["position_ids"] = places.expand(batch, positions)
        # All ones: a model would warn about padding tokens, or look for them, if given no mask.
        arguments["attention_mask"] = input_ids.new_ones(batch, first + positions)
        output = module(input_ids=input_ids, return_dict=True, **arguments)
    recorder.check_fired()
    keys_values = _keys_values(cache, architecture, positions) if keep_keys_values else None
    return ForwardResult(output.logits, recorder.finished(capture), keys_values)


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
class Edit:
    """Replace the state at `site` in row rows[k], place places[k] by values[k] [n, d].

    Places count from the first position of the pass (not of the prompt, when resumed).
    """

    site: Site
    rows: Tensor
    places: Tensor
    values: Tensor


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
    """logits [batch, position, vocab] (one position when `logits_at` was given)."""

    logits: Tensor
    states: dict[Site, Tensor]
    keys_values: KeysValues | None


class _Recorder:
    """Attaches the hooks of one pass, keeps what they captured and counts how often each ran."""

    def __init__(self, architecture: Architecture, batch: int, positions: int) -> None:
        self._architecture = architecture
        self._batch, self._positions = batch, positions
        self._fired: dict[str, int] = {}
        self._states: dict[Site, Tensor] = {}

    def attach_edit(self, handles: list[Any], edit: Edit) -> None:
        site = edit.site
        if site.component != "resid_mid":
            self._attach(handles, site, f"patch of {site}", lambda state: self._write(state, edit))
            return
        # The residual after attention is never a module's output, and a norm that reads it does
        # not carry it on; adding the missing part to the attention's output does.
        before = Site("resid_pre", site.layer)
        seen: list[Tensor] = []
        self._attach(handles, before, f"input for {site}", lambda state: seen.append(state))

        def write(state: Tensor) -> Tensor:
            residual = seen.pop()[edit.rows, edit.places]
            values = edit.values.to(residual) - residual
            return self._write(state, Edit(site, edit.rows, edit.places, values))

        self._attach(handles, Site("attn_out", site.layer), f"patch of {site}", write)

    def attach_capture(self, handles: list[Any], site: Site) -> None:
        parts = (site,)
        if site.component == "resid_mid":
            parts = (Site("resid_pre", site.layer), Site("attn_out", site.layer))
        for part in parts:
            if part not in self._states:
                self._states[part] = torch.empty(0)
                self._attach(handles, part, f"capture of {part}", self._keep(part))

    def attach_logits_at(self, handles: list[Any], places: Tensor) -> None:
        label = "unembedding"
        self._fired[label] = 0

        def gather(state: Tensor) -> Tensor:
            self._fired[label] += 1
            state = hooks.three_axes(state, self._batch, self._positions, label)
            rows = torch.arange(self._batch, device=state.device)
            return state[rows, places.to(state.device)].unsqueeze(1)

        handles.append(hooks.on_input(self._architecture.unembedding, gather))

    def check_fired(self) -> None:
        for label, times in self._fired.items():
            if times != 1:
                raise RuntimeError(f"{label}: its hook ran {times} times in one pass, expected 1")

    def finished(self, capture: Sequence[Site]) -> dict[Site, Tensor]:
        states = {}
        for site in dict.fromkeys(capture):
            if site.component == "resid_mid":
                before = self._states[Site("resid_pre", site.layer)]
                states[site] = before + self._states[Site("attn_out", site.layer)]
            else:
                states[site] = self._states[site]
        return states

    def _attach(
        self, handles: list[Any], site: Site, label: str, function: hooks.StateFunction
    ) -> None:
        while label in self._fired:
            label += "'"
        self._fired[label] = 0

        def counted(state: Tensor) -> Tensor | None:
            self._fired[label] += 1
            shaped = hooks.three_axes(state, self._batch, self._positions, label)
            edited = function(shaped)
            return None if edited is None else edited.view(state.shape)

        module, is_input = self._architecture.hook_place(site)
        attach = hooks.on_input if is_input else hooks.on_output
        handles.append(attach(module, counted))

    def _features(self, site: Site) -> slice:
        if site.head is None:
            return slice(None)
        width = self._architecture.head_dim
        return slice(site.head * width, (site.head + 1) * width)

    def _write(self, state: Tensor, edit: Edit) -> Tensor:
        features = self._features(edit.site)
        return hooks.write_states(state, edit.rows, edit.places, edit.values, features)

    def _keep(self, site: Site) -> Callable[[Tensor], None]:
        def keep(state: Tensor) -> None:
            self._states[site] = state[..., self._features(site)].detach().clone()

        return keep
