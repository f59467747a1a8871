"""The blocks of a model called one by one exactly as its own loop calls them.

A pass over the tokens in which every block only hands on what it is given shows the arguments of
each block: masks, rotations, positions. A block keeps its own arguments wherever a plan puts it,
so that a block with a sliding window keeps its window, and one whose scale was made from its number
(GPT-2 with `scale_attn_by_inverse_layer_idx`) keeps the scale. Nothing is cached, so no slot of a
cache depends on a block's number, and a plan may be longer than the model's own loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.passes.entry import enter_blocks
from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.passes.recorder import Edit, Recorder
from interpflow.engine.sites import Site
from interpflow.errors import UserError


def enter(model: Model, ids: Tensor) -> Entry:
    """What the model's own loop begins with on token ids [row, position], padded on the right."""
    seen: list[Tensor] = []
    arguments: list[tuple[tuple, dict[str, Any]]] = []

    def look(layer: int, args: tuple, kwargs: dict[str, Any]) -> None:
        if layer == 0:
            seen.append(hooks.state_of_input(args, kwargs))
        kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        arguments.append(((None, *args[1:]) if args else (), kwargs))

    with torch.no_grad():
        enter_blocks(model.module, model.architecture, ids, look, through=True)
    for args, kwargs in arguments:
        _check_own(model, (*args, *kwargs.values()))
    return Entry(model, seen[0], tuple(arguments))


def check_runs_alone(model: Model) -> None:
    """Raise UserError for a model whose blocks read what other blocks leave beside the stream."""
    config: Any = model.module.config.get_text_config(decoder=True)
    if getattr(config, "num_kv_shared_layers", None):
        _refuse(model, "its last blocks use the keys and values of earlier blocks")


@contextmanager
def quick_linears(model: Model, on: bool) -> Iterator[None]:
    """Without gradients, one thread at a time, and with fast linears if `on`."""
    with hooks.removed_afterwards(), torch.no_grad(), ExitStack() as stack:
        if on:
            stack.enter_context(fast_modules(model.module))
        yield


def _check_own(model: Model, values: Sequence[Any]) -> None:
    for value in values:
        # What is empty before the blocks run is there for them to fill.
        if isinstance(value, Cache) or (isinstance(value, dict | list) and not value):
            _refuse(model, f"a {type(value).__name__} goes from block to block")


def _refuse(model: Model, reason: str) -> None:
    raise UserError(
        f"the blocks of this model cannot be run in another order: {reason}",
        where=model.architecture.family,
        remedy="use a model whose blocks share nothing but the residual stream",
    )


@dataclass(frozen=True, eq=False)
class Entry:
    """Some rows on their way into the blocks.

    embedded: the input of the model's first block, [row, position, d_model]; arguments: what each
    block is called with besides its states, positional ones (the states' place is None) and named.
    """

    model: Model
    embedded: Tensor
    arguments: tuple[tuple[tuple, dict[str, Any]], ...]

    def run(
        self, block: int, states: Tensor, edits: Sequence[Edit] = (), capture: Sequence[Site] = ()
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """A block's output on states [row, position, d_model], and the states of sites inside it.

        Raises RuntimeError when a site was not reached exactly once.
        """
        architecture = self.model.architecture
        if not edits and not capture:
            return self._call(block, states), {}
        recorder = Recorder(architecture, states.shape[0], states.shape[1])
        with hooks.removed_afterwards() as handles:
            for edit in edits:
                recorder.attach_edit(handles, edit)
            for site in capture:
                recorder.attach_capture(handles, site)
            output = self._call(block, states)
        recorder.check_fired()
        return output, recorder.finished(capture)

    def _call(self, block: int, states: Tensor) -> Tensor:
        args, kwargs = self.arguments[block]
        module = self.model.architecture.blocks[block].block
        if args:
            return hooks.state_of_output(module(states, *args[1:], **kwargs))
        return hooks.state_of_output(module(**{**kwargs, "hidden_states": states}))
