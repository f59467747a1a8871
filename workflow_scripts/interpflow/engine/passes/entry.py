"""Entering a model's own loop over its blocks without running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import StopForward

Look = Callable[[int, tuple, dict[str, Any]], None]


def enter_blocks(
    module: PreTrainedModel,
    architecture: Architecture,
    ids: Tensor,
    look: Look,
    *,
    through: bool = False,
) -> None:
    """Run the model on token ids [batch, position] up to its first block (`through`: past all of
    them, each handing on what it is given) and look at what each is called with: its number, its
    arguments and its keyword arguments.

    Rows may be padded on the right; nothing hides the padding. Raises RuntimeError when the loop
    does not come to its last block.
    """
    last = architecture.n_layers - 1 if through else 0

    def stand_in(layer: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            look(layer, args, kwargs)
            if layer == last:
                raise StopForward
            state = hooks.state_of_input(args, kwargs)
            return (state,) if architecture.block_returns_tuple else state

        return forward

    stands = {parts.block: stand_in(layer) for layer, parts in enumerate(architecture.blocks)}
    arguments: dict[str, Any] = {"use_cache": False, "attention_mask": ids.new_ones(ids.shape)}
    if architecture.takes_position_ids:
        places = ids.new_ones(ids.shape[1]).cumsum(0) - 1
        arguments["position_ids"] = places.expand(ids.shape)
    with hooks.replaced_forwards(stands):
        try:
            module(input_ids=ids, return_dict=True, **arguments)
        except StopForward:
            return
    raise RuntimeError("the model's loop did not reach its last block")
