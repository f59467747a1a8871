"""Reading and replacing states of one pass by hooks, and counting that each hook ran once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import Watch
from interpflow.engine.passes.edits import AnyEdit, Change, Edit, written
from interpflow.engine.sites import ATTENTION_COMPONENTS, KEY_VALUE_COMPONENTS, Site, n_heads_of

__all__ = ["AnyEdit", "Change", "Edit", "Recorder"]


class Recorder:
    """Attaches the hooks of one pass, keeps what they captured and counts how often each ran.

    Edits of one site act in the order in which they are attached; captures attached after them see
    what they wrote. `q`, `k`, `v` and `pattern` are reached by the attention of the pass: give
    `attention_watch` and `pattern_rows` to an `AttentionPass`.
    captured_places: int64 [batch, n], the places of captured states; all places if None.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: int,
        positions: int,
        captured_places: Tensor | None = None,
    ) -> None:
        self._architecture = architecture
        self._batch, self._positions = batch, positions
        self._captured_places = captured_places
        self._fired: dict[str, int] = {}
        self._states: dict[Site, Tensor] = {}
        self._attention: dict[tuple[str, int], list[hooks.StateFunction]] = {}
        self._edited_patterns: set[int] = set()

    def attach_edit(self, handles: list[Any], edit: AnyEdit) -> None:
        site = edit.site
        label = f"patch of {site}"
        if site.component == "pattern":
            self._edited_patterns.add(site.layer)
        if site.component != "resid_mid":
            self._attach(handles, site, label, lambda state: self._write(state, edit, None))
            return
        # The residual after attention is never a module's output, and a norm that reads it does
        # not carry it on; adding the missing part to the attention's output does.
        before = Site("resid_pre", site.layer)
        seen: list[Tensor] = []
        self._attach(handles, before, f"input for {site}", lambda state: seen.append(state))
        place = Site("attn_out", site.layer)
        self._attach(handles, place, label, lambda state: self._write(state, edit, seen.pop()))

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

    @property
    def attention_watch(self) -> tuple[frozenset[tuple[str, int]], Watch | None]:
        """What an AttentionPass has to show to this recorder, and to which function."""
        if not self._attention:
            return frozenset(), None
        return frozenset(self._attention) - {("pattern", i) for i in self.pattern_rows}, self._watch

    @property
    def pattern_rows(self) -> dict[int, Tensor]:
        """Layers of whose pattern only the captured places are read, and those places."""
        if self._captured_places is None:
            return {}
        layers = {layer for component, layer in self._attention if component == "pattern"}
        return dict.fromkeys(layers - self._edited_patterns, self._captured_places)

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
        if site.component in ATTENTION_COMPONENTS:
            self._architecture.require(site)

            def shown(state: Tensor) -> Tensor | None:
                self._fired[label] += 1
                edited = function(state.flatten(2))
                return None if edited is None else edited.view(state.shape)

            self._attention.setdefault((site.component, site.layer), []).append(shown)
            return

        def counted(state: Tensor) -> Tensor | None:
            self._fired[label] += 1
            shaped = hooks.three_axes(state, self._batch, self._positions, label)
            edited = function(shaped)
            return None if edited is None else edited.view(state.shape)

        module, is_input = self._architecture.hook_place(site)
        attach = hooks.on_input if is_input else hooks.on_output
        handles.append(attach(module, counted))

    def _watch(self, component: str, layer: int, state: Tensor) -> Tensor | None:
        changed = None
        for function in self._attention[component, layer]:
            found = function(state)
            if found is not None:
                state = changed = found
        return changed

    def _features(self, site: Site, state: Tensor) -> slice:
        """Which features of a state [batch, position, d] of all heads belong to the site."""
        if site.head is None:
            return slice(None)
        heads = n_heads_of(self._architecture, site.component)
        width = state.shape[-1] // heads
        return slice(site.head * width, (site.head + 1) * width)

    def _first_place(self, site: Site, state: Tensor) -> int:
        """Where place 0 of the pass is: keys and values of a model's own cache come before it."""
        return state.shape[1] - self._positions if site.component in KEY_VALUE_COMPONENTS else 0

    def _write(self, state: Tensor, edit: AnyEdit, before: Tensor | None) -> Tensor:
        """The module's state with the edit made; `before`: what the site holds besides it."""
        site = edit.site
        rows = edit.rows.to(state.device)
        places = edit.places.to(state.device) + self._first_place(site, state)
        features = self._features(site, state)
        part, scale = state[rows, places, features], self._architecture.multiplier(site)
        present = part * scale if scale != 1.0 else part
        if before is not None:
            residual = before[rows.to(before.device), places.to(before.device)].to(present)
            present = residual + present
            new = written(present, edit)
            values = new - residual
        else:
            values = new = written(present, edit)
        if scale != 1.0:
            values = values / scale
        if before is not None or scale != 1.0:
            # What is there already stays as it is, bit for bit.
            values = torch.where(new == present, part, values)
        return hooks.write_states(state, rows, places, values, features)

    def _keep(self, site: Site) -> Callable[[Tensor], None]:
        scale = self._architecture.multiplier(site)

        def keep(state: Tensor) -> None:
            features = self._features(site, state)
            if site.component == "pattern" and site.layer in self.pattern_rows:
                chosen = state[..., features]
            else:
                chosen = state[:, self._first_place(site, state) :, features]
                if self._captured_places is not None:
                    places = self._captured_places.to(state.device)
                    chosen = chosen[torch.arange(self._batch, device=state.device)[:, None], places]
            chosen = chosen * scale if scale != 1.0 else chosen.clone()
            if site.component == "pattern" and site.head is None:
                chosen = chosen.unflatten(2, (self._architecture.n_heads, -1))
            self._states[site] = chosen.detach()

        return keep
