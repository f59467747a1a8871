"""Reading and replacing states of one pass by hooks, and counting that each hook ran once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interpflow.engine import hooks
from interpflow.engine.architecture import Architecture
from interpflow.engine.attention import Watch
from interpflow.engine.sites import Site


@dataclass(frozen=True)
class Edit:
    """Replace the state at `site` in row rows[k], place places[k] by values[k] [n, d].

    Places count from the first position of the pass (not of the prompt, when resumed).
    """

    site: Site
    rows: Tensor
    places: Tensor
    values: Tensor


class Recorder:
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

    @property
    def attention_watch(self) -> tuple[frozenset[tuple[str, int]], Watch | None]:
        """What an AttentionPass has to show to this recorder, and to which function."""
        return frozenset(), None

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
