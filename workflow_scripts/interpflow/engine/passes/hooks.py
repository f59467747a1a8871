"""Reading and replacing states on the real module tree, whatever shape a module returns.

A module may return a tensor or a tuple that begins with it, and may take its states as the first
argument or as `hidden_states`. That is settled here once; nothing else looks inside an output.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

StateFunction = Callable[[Tensor], Tensor | None]


def write_states(
    states: Tensor, rows: Tensor, places: Tensor, values: Tensor, features: slice
) -> Tensor:
    """A copy of `states` [batch, position, d] in which [rows[k], places[k], features] = values[k].

    rows, places: int64 [n]; values: [n, width of features]. The copy must be handed back to the
    model by the hook: editing a copy alone changes nothing.
    """
    edited = states.clone()
    edited[rows, places, features] = values.to(device=states.device, dtype=states.dtype)
    return edited


def state_of_output(output: Any) -> Tensor:
    """The state tensor in a module's output."""
    return output if isinstance(output, Tensor) else output[0]


def state_of_input(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """The state tensor that a module is called with."""
    return args[0] if args else kwargs["hidden_states"]


def with_state(output: Any, state: Tensor) -> Any:
    """The module's output with its state tensor replaced."""
    if isinstance(output, Tensor):
        return state
    return type(output)((state, *output[1:]))


def on_output(module: nn.Module, function: StateFunction) -> Any:
    """Call `function` on the module's output state; what it returns (unless None) replaces it."""

    def hook(_module: nn.Module, _args: tuple, output: Any) -> Any:
        state = function(state_of_output(output))
        return None if state is None else with_state(output, state)

    return module.register_forward_hook(hook)


def on_input(module: nn.Module, function: StateFunction) -> Any:
    """Call `function` on the module's input state; what it returns (unless None) replaces it."""

    def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        state = function(state_of_input(args, kwargs))
        if state is None:
            return None
        if args:
            return (state, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": state}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


# A pass changes the model for as long as it lasts: threads take turns.
TURN = threading.RLock()


@contextmanager
def removed_afterwards() -> Iterator[list[Any]]:
    """A list for hook handles; ours, and only ours, are removed however the block is left."""
    handles: list[Any] = []
    with TURN:
        try:
            yield handles
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def replaced_forwards(replacements: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules run another `forward`; the former one is back however the block is left."""
    with TURN:
        former = {module: module.__dict__.get("forward") for module in replacements}
        try:
            for module, forward in replacements.items():
                module.forward = forward
            yield
        finally:
            for module, forward in former.items():
                if forward is not None:
                    module.forward = forward
                else:
                    module.__dict__.pop("forward", None)


def three_axes(state: Tensor, batch: int, positions: int, what: str) -> Tensor:
    """View a state as [batch, position, d]; some modules flatten the first two axes."""
    if state.ndim == 2 and state.shape[0] == batch * positions:
        return state.view(batch, positions, -1)
    if state.ndim != 3 or state.shape[:2] != (batch, positions):
        raise RuntimeError(
            f"{what}: expected a state [{batch}, {positions}, d], got {tuple(state.shape)}"
        )
    return state
