"""Passes whose states stay differentiable, and the gradient of a metric at each of them.

A state is named (component, layer) and holds all heads at once: [row, position, d] for parts of the
residual stream and for neurons, [row, position, head, d] for `head_out`, `q`, `k`, `v` (k and v
have one head per group), [row, position, head, key position] for `pattern`. Gradients are taken at
activations, never at weights. Rows do not see each other, so the gradient of a sum over rows is
each row's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model, full_precision
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import (
    AttentionNotSupported,
    AttentionPass,
    attention_configs,
    attention_modules,
)
from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.sites import ATTENTION_COMPONENTS, COMPONENTS, Site
from interpflow.errors import UserError

State = tuple[str, int]
Change = Callable[[Tensor], Tensor]

INPUT = ("resid_pre", 0)
# Token places per pass that keeps a graph: about 1.5 MB each for GPT-2 small in float32.
GRAPH_BATCH_TOKENS = 1024


def tapped_pass(
    model: Model,
    ids: Tensor,
    taps: Iterable[State] = (),
    *,
    changes: Mapping[State, Change] | None = None,
    graph: bool = False,
) -> TappedPass:
    """Run token ids [row, position] of equal length and keep the states named in `taps`.

    changes: per state, a function of the state in force that returns what replaces it; taps see
    the replaced state. graph: keep what gradients need, from the input of block 0 on.
    Raises UserError when the model has no such state, RuntimeError when one was not passed once.
    """
    taps = tuple(taps)
    wanted = list(dict.fromkeys(_canonical(tap) for tap in taps))
    replaced = {_canonical(state): change for state, change in (changes or {}).items()}
    tapped = _Taps(model, ids.shape, wanted, replaced, graph)
    attended = [s for s in (*wanted, *replaced) if s[0] in ATTENTION_COMPONENTS]
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(graph))
        stack.enter_context(frozen_parameters(model.module))
        stack.enter_context(fast_modules(model.module))  # where no graph is kept
        handles = stack.enter_context(hooks.removed_afterwards())
        tapped.attach(handles)
        if attended:
            run = AttentionPass(
                attention_modules(model.architecture),
                watched=frozenset(attended),
                watch=tapped.watch,
            )
            stack.enter_context(run.active(attention_configs(model.module)))
        arguments: dict[str, Any] = {"use_cache": False, "attention_mask": torch.ones_like(ids)}
        if model.architecture.takes_position_ids:
            arguments["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(
                ids.shape
            )
        try:
            output = model.module(input_ids=ids, return_dict=True, **arguments)
        except AttentionNotSupported as error:
            raise UserError(
                f"queries, keys and values of this model cannot be reached: {error}",
                where=model.architecture.family,
                remedy="keep to components of the residual stream and head_out",
            ) from None
    tapped.check_passed_once()
    logits = full_precision(output.logits[:, -1])
    return TappedPass(logits, {tap: tapped.states[_canonical(tap)] for tap in taps})


def gradients(total: Tensor, states: Mapping[State, Tensor]) -> dict[State, Tensor]:
    """d total / d state for each state of a pass with a graph; exact zeros where the metric does
    not depend on a state. The graph is used up."""
    found = torch.autograd.grad(total, list(states.values()), allow_unused=True)
    return {
        name: torch.zeros_like(state) if gradient is None else gradient.detach()
        for (name, state), gradient in zip(states.items(), found)
    }


def metric_values(
    metric: Metric, name: str | None, logits: Tensor, pair_index: Sequence[int]
) -> Tensor:
    """One of the metric's values for rows of logits [row, vocab], [row].

    Raises UserError when `name` is not among the metric's values, or missing while there are
    several.
    """
    found = metric(logits, torch.tensor(list(pair_index), dtype=torch.int64, device=logits.device))
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name is None or name not in found:
        raise UserError(
            "name the value to explain" if name is None else f"the metric has no value {name!r}",
            where="metric",
            remedy=f"use one of {', '.join(found)}",
        )
    return found[name]


def check_finite(values: Tensor, where: str) -> None:
    """Raise UserError when an attribution is NaN or infinite: ranked, it would go unnoticed."""
    if not bool(values.isfinite().all()):
        raise UserError(
            "the attribution is NaN or infinite: so is the metric, its gradient, or a state",
            where=where,
            remedy="explain a value that is finite and smooth at the base run, or use float32",
        )


@contextmanager
def frozen_parameters(module: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside; those that did ask again afterwards."""
    asking = [p for p in module.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _canonical(state: State) -> State:
    """The embedding is the input of block 0: one name for one state."""
    return INPUT if state[0] == "embed" else state


class _Taps:
    """The hooks of one pass: what they captured and how often each ran."""

    def __init__(
        self,
        model: Model,
        shape: torch.Size,
        wanted: Sequence[State],
        changes: Mapping[State, Change],
        graph: bool,
    ) -> None:
        self.states: dict[State, Tensor] = {}
        self._model, self._shape, self._graph = model, shape, graph
        self._wanted, self._changes = set(wanted), changes
        # Block inputs that wait for the attention's output.
        self._before: dict[int, Tensor] = {}
        self._passed: dict[State, int] = dict.fromkeys((INPUT, *wanted, *changes), 0)
        for state in self._passed:
            model.check_site(Site(*state))

    def attach(self, handles: list[Any]) -> None:
        """Attach hooks for every state that a module takes or returns."""
        handles.append(hooks.on_input(self._model.architecture.unembedding, self._last_only))
        middles = {layer for component, layer in self._passed if component == "resid_mid"}
        places = {state for state in self._passed if state[0] != "resid_mid"}
        places |= {(c, layer) for layer in middles for c in ("resid_pre", "attn_out")}
        for component, layer in sorted(places, key=lambda s: (s[1], COMPONENTS.index(s[0]))):
            if component not in ATTENTION_COMPONENTS:
                self._attach(handles, (component, layer), layer in middles)

    def watch(self, component: str, layer: int, state: Tensor) -> Tensor:
        return self._seen((component, layer), state)

    def check_passed_once(self) -> None:
        for (component, layer), times in self._passed.items():
            if times != 1:
                raise RuntimeError(
                    f"{component} of layer {layer}: passed {times} times in one pass, expected 1"
                )

    def _attach(self, handles: list[Any], state: State, middle: bool) -> None:
        component, layer = state
        module, is_input = self._model.architecture.hook_place(Site(component, layer))
        scale = self._model.architecture.multiplier(Site(component, layer))
        label = f"{component} of layer {layer}"

        def function(tensor: Tensor) -> Tensor:
            shaped = hooks.three_axes(tensor, self._shape[0], self._shape[1], label)
            if component == "head_out":
                shaped = shaped.unflatten(-1, (self._model.n_heads, -1))
            shaped = shaped if scale == 1.0 else shaped * scale
            if middle and component == "attn_out":
                found = self._middle(layer, shaped)
            else:
                found = self._seen(state, shaped)
                if middle and component == "resid_pre":
                    self._before[layer] = found
            if found is shaped and not self._graph:
                # A copy is kept: the model may add to its own in place.
                if state in self._wanted:
                    self.states[state] = found.clone()
                return tensor
            found = found.clone() if scale == 1.0 else found / scale
            return found.reshape(tensor.shape)

        handles.append((hooks.on_input if is_input else hooks.on_output)(module, function))

    def _middle(self, layer: int, attention: Tensor) -> Tensor:
        """The residual between attention and MLP is no module's output: it is reached through the
        attention's output, whose gradient is the same."""
        if ("attn_out", layer) in self._passed:
            attention = self._seen(("attn_out", layer), attention)
        before = self._before.pop(layer)
        middle = self._seen(("resid_mid", layer), before + attention)
        if not self._graph and ("resid_mid", layer) not in self._changes:
            return attention  # not even rounding changes what goes on
        return middle - before

    def _seen(self, state: State, tensor: Tensor) -> Tensor:
        """The state after its change, if it has one; kept if it was asked for."""
        if state in self._passed:
            self._passed[state] += 1
        if state in self._changes:
            tensor = self._changes[state](tensor).to(tensor)
        changed = state in self._changes
        if self._graph and (state == INPUT or (changed and not tensor.requires_grad)):
            tensor = tensor.detach().requires_grad_()
        if state in self._wanted:
            self.states[state] = tensor
        return tensor

    def _last_only(self, state: Tensor) -> Tensor:
        return hooks.three_axes(state, self._shape[0], self._shape[1], "unembedding")[:, -1:]


@dataclass(frozen=True, eq=False)
class TappedPass:
    """logits [row, vocab] at the last position; states: (component, layer) -> state."""

    logits: Tensor
    states: dict[State, Tensor]
