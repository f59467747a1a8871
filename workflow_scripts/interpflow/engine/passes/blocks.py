"""The blocks of a decoder, run one at a time on states of our choice.

Hugging Face models run their blocks in one loop over all positions and rows. Here each block is
called by itself, with the arguments that the model's own loop would give it at those positions, so
that rows can enter at any block, begin at any position, and end at any position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import (
    AttentionPass,
    Part,
    Segment,
    StopForward,
    attention_configs,
    attention_modules,
)
from interpflow.engine.passes.entry import Look, enter_blocks
from interpflow.engine.passes.recorder import Edit, Recorder
from interpflow.engine.sites import Site

# Arguments are kept for this many prompt lengths.
KEPT_LENGTHS = 64


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a model whose attention goes through `interpflow.engine.passes.attention`."""

    module: PreTrainedModel
    architecture: Architecture
    _arguments: dict[int, list[tuple[tuple, dict[str, Any]]]] = field(default_factory=dict)

    @cached_property
    def layers(self) -> dict[nn.Module, int]:
        return attention_modules(self.architecture)

    @cached_property
    def configs(self) -> list[Any]:
        return attention_configs(self.module)

    @property
    def n_layers(self) -> int:
        return self.architecture.n_layers

    def embed(self, ids: Tensor) -> Tensor:
        """Input of block 0, [batch, position, d_model], of token ids [batch, position]."""
        seen: list[Tensor] = []
        self._enter(
            ids, lambda layer, args, kwargs: seen.append(hooks.state_of_input(args, kwargs))
        )
        return seen[0]

    @contextmanager
    def attention(self, **settings: Any) -> Iterator[AttentionPass]:
        """A pass whose attention is ours; `settings` are the fields of AttentionPass."""
        run = AttentionPass(self.layers, **settings)
        with torch.no_grad(), run.active(self.configs):
            yield run

    def run(
        self,
        layer: int,
        states: Tensor,
        first: int,
        length: int,
        *,
        segments: Sequence[Segment] = (),
        keep: bool = False,
        edits: Sequence[Edit] = (),
        capture: Sequence[Site] = (),
        pattern_rows: Tensor | None = None,
    ) -> BlockResult:
        """Run one block on states [batch, position, d_model] of the positions from `first` on in
        prompts of `length` tokens; `segments` hold the keys and values of the earlier positions.

        Places of edits count from `first`. keep: keep the own keys and values. pattern_rows: int64
        [batch, n], places from `first` on of the queries whose attention is returned; the rest of
        the pattern is not computed for it.
        Raises RuntimeError when a hook or the attention did not run exactly once.
        """
        self.know(length)
        batch, places, _ = states.shape
        recorder = Recorder(self.architecture, batch, places)
        with hooks.removed_afterwards() as handles:
            for edit in edits:
                recorder.attach_edit(handles, edit)
            for site in capture:
                recorder.attach_capture(handles, site)
            watched, watch = recorder.attention_watch
            rows: list[Tensor] = []

            def show(component: str, at: int, state: Tensor) -> Tensor | None:
                # The rows asked for are shown before the whole pattern, if that is watched too.
                if component == "pattern" and pattern_rows is not None and not rows:
                    rows.append(state)
                    return None
                return None if watch is None else watch(component, at, state)

            with self.attention(
                segments={layer: segments},
                keep=frozenset([layer] if keep else []),
                watched=watched,
                watch=show,
                pattern_rows={} if pattern_rows is None else {layer: pattern_rows},
            ) as run:
                output = self.call(layer, states, first, length)
        recorder.check_fired()
        if run.calls != {layer: 1} or len(rows) != (pattern_rows is not None):
            raise RuntimeError(f"attention of block {layer} ran {run.calls}, expected once")
        captured = recorder.finished(capture)
        return BlockResult(output, run.kept.get(layer), captured, rows[0] if rows else None)

    def run_packed(
        self,
        layer: int,
        parts: Sequence[PackedPart],
        length: int,
        *,
        edits: Sequence[Edit] = (),
        keys_only: bool = False,
    ) -> list[Tensor] | list[Segment]:
        """Run one block on several parts at once, whatever their rows and first positions.

        Rows of edits are 0, places count over all parts. Returns each part's output [row, position,
        d_model], or, if keys_only, each part's keys and values, and then computes nothing else.
        """
        self.know(length)
        packed = torch.cat([part.states.flatten(0, 1) for part in parts])[None]
        recorder = Recorder(self.architecture, 1, packed.shape[1])
        shapes = [Part(part.states.shape[0], part.states.shape[1], part.segments) for part in parts]
        only = frozenset([layer] if keys_only else [])
        with hooks.removed_afterwards() as handles:
            for edit in edits:
                recorder.attach_edit(handles, edit)
            watched, watch = recorder.attention_watch
            with self.attention(
                parts={layer: shapes}, keep=only, keys_only=only, watched=watched, watch=watch
            ) as run:
                try:
                    packed = self.call(layer, packed, _positions(parts), length)
                except StopForward:
                    assert keys_only
        recorder.check_fired()
        if run.calls != {layer: 1}:
            raise RuntimeError(f"attention of block {layer} ran {run.calls}, expected once")
        split = [part.n_packed for part in shapes]
        if not keys_only:
            outs = packed[0].split(split)
            return [out.unflatten(0, part.states.shape[:2]) for out, part in zip(outs, parts)]
        kept = run.kept[layer]
        return [
            Segment(*(state.unflatten(1, part.states.shape[:2]).transpose(0, 1) for state in both))
            for *both, part in zip(
                kept.keys[0].split(split, dim=1), kept.values[0].split(split, dim=1), parts
            )
        ]

    def keys_values(
        self, layer: int, states: Tensor, first: int, length: int, *, edits: Sequence[Edit] = ()
    ) -> Segment:
        """Keys and values of states [batch, position, d_model]; nothing after them is computed."""
        self.know(length)
        batch, places, _ = states.shape
        recorder = Recorder(self.architecture, batch, places)
        with hooks.removed_afterwards() as handles:
            for edit in edits:
                recorder.attach_edit(handles, edit)
            watched, watch = recorder.attention_watch
            only = frozenset([layer])
            settings: dict[str, Any] = {"watched": watched, "watch": watch}
            with (
                self.attention(keep=only, keys_only=only, **settings) as run,
                suppress(StopForward),
            ):
                self.call(layer, states, first, length)
        recorder.check_fired()
        return run.kept[layer]

    def call(self, layer: int, states: Tensor, first: int | Tensor, length: int) -> Tensor:
        """The bare call of a block within `attention`; see `run` for the arguments. `first` may be
        the position of every place, int64 [place]."""
        args, kwargs = self._at(layer, length, first, states.shape[1])
        if args:
            output = self.architecture.blocks[layer].block(states, *args[1:], **kwargs)
        else:
            output = self.architecture.blocks[layer].block(**{**kwargs, "hidden_states": states})
        return hooks.state_of_output(output)

    def _at(
        self, layer: int, length: int, first: int | Tensor, n_places: int
    ) -> tuple[tuple, dict[str, Any]]:
        """The block's arguments for some positions of a prompt."""
        args, kwargs = self._arguments[length][layer]
        if isinstance(first, int) and first == 0 and n_places == length:
            return args, kwargs
        chosen = slice(first, first + n_places) if isinstance(first, int) else first
        return (
            tuple(_at_positions(value, length, chosen) for value in args),
            {name: _at_positions(value, length, chosen) for name, value in kwargs.items()},
        )

    def know(self, length: int) -> None:
        """Have the arguments for prompts of this length, before hooks are attached that the pass
        which finds them would set off."""
        if length not in self._arguments:
            while len(self._arguments) >= KEPT_LENGTHS:
                self._arguments.pop(next(iter(self._arguments)))
            self._arguments[length] = self._record(length)

    def _record(self, length: int) -> list[tuple[tuple, dict[str, Any]]]:
        """What the model's own loop passes to each block, states left out."""
        found: list[tuple[tuple, dict[str, Any]]] = []

        def keep(_layer: int, args: tuple, kwargs: dict[str, Any]) -> None:
            kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            found.append(((None, *args[1:]) if args else (), kwargs))

        ids = torch.zeros(1, length, dtype=torch.int64, device=self.architecture.device)
        self._enter(ids, keep, through=True)
        return found

    def _enter(self, ids: Tensor, look: Look, *, through: bool = False) -> None:
        """See `enter_blocks`; no mask is made for attention that is ours."""
        with self.attention():
            enter_blocks(self.module, self.architecture, ids, look, through=through)


def _at_positions(value: Any, length: int, chosen: slice | Tensor) -> Any:
    """An argument of a block restricted to some positions; anything else is passed on."""
    if isinstance(value, tuple):
        return tuple(_at_positions(part, length, chosen) for part in value)
    if not isinstance(value, Tensor):
        return value
    axis = {1: 0, 2: 1, 3: 1, 4: 2}.get(value.ndim)
    if axis is None or value.shape[axis] != length:
        return value
    if isinstance(chosen, slice):
        return value.narrow(axis, chosen.start, chosen.stop - chosen.start)
    return value.index_select(axis, chosen.to(value.device))


def _positions(parts: Sequence[PackedPart]) -> Tensor:
    """Position of every packed place, int64 [place]."""
    device = parts[0].states.device
    found = []
    for part in parts:
        rows, places, _ = part.states.shape
        positions = torch.arange(part.first, part.first + places, device=device)
        found.append(positions.expand(rows, places).reshape(-1))
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class PackedPart:
    """Rows [row, position, d_model] that begin at one position, and what comes before them."""

    states: Tensor
    first: int
    segments: Sequence[Segment]


@dataclass(frozen=True, eq=False)
class BlockResult:
    """states: the block's output [batch, position, d_model]; captured: site -> state; pattern: the
    attention of the queries asked for, [batch, n, head, key position]."""

    states: Tensor
    kept: Segment | None
    captured: dict[Site, Tensor]
    pattern: Tensor | None = None
