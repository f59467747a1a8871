"""Attribution patching of states: the effect of every patch at once, to first order.

Direction and sign (denoising form): the base is the corrupted run, the donor the clean one; an
effect is metric(patched) − metric(base), and the estimate of the effect of patching a state at one
position is (donor − base) · ∂metric/∂state. For noising swap the prompts. Sources: Nanda (2023),
attribution patching; Syed et al. (2023); integrated gradients of Sundararajan et al. (2017), along
the inputs as in Hanna et al. (2024) or along each state as "EAP-IG-activations" in MIB (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.circuits.gradients import (
    GRAPH_BATCH_TOKENS,
    State,
    TappedPass,
    check_finite,
    gradients,
    metric_values,
    tapped_pass,
)
from interpflow.engine.circuits.pair_batches import PairBatch, Prompts, pair_batches
from interpflow.engine.circuits.patch_sets import PatchCell
from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model
from interpflow.engine.sites import COMPONENTS, HEAD_COMPONENTS, Site
from interpflow.errors import UserError

PATHS = ("base", "inputs", "states")
DEFAULT_STEPS = 8


def attribute_states(
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    *,
    components: Sequence[str] = ("resid_post", "attn_out", "mlp_out", "head_out"),
    name: str | None = None,
    path: str = "base",
    steps: int = DEFAULT_STEPS,
    batch_tokens: int = GRAPH_BATCH_TOKENS,
) -> StateScores:
    """Estimated effect of patching each state of each component, at each position alone.

    metric: see `interpflow.engine.metrics`, differentiable in the logits; name: which of its
    values to explain (needed when it has several).
    path: where gradients are taken. "base": at the base run, two forwards and one backward for
    everything. "inputs": averaged over `steps` runs between the base's and the donor's embeddings.
    "states": averaged between the base's and the donor's state, each (component, layer) by itself
    with all that follows recomputed; its estimates then sum, over positions and heads, to the
    exact effect of patching the whole state, but it costs `steps` forwards and backwards for each.
    Steps are midpoints, so the integral's error falls with steps².
    Raises UserError for unknown components, pairs of unequal lengths, or a metric without
    finite gradient.
    """
    _check(model, components, path, steps)
    layers = {c: range(1 if c == "embed" else model.n_layers) for c in components}
    states = [(c, layer) for c in components for layer in layers[c]]
    longest = max(map(len, base_ids), default=0)
    scores: dict[str, np.ndarray] = {}
    ends = {end: np.full(len(base_ids), np.nan) for end in ("base", "donor")}
    for batch in pair_batches(base_ids, donor_ids, batch_tokens=batch_tokens, device=model.device):
        found, (base, donor) = _attribute_batch(model, batch, metric, name, states, path, steps)
        ends["base"][list(batch.pairs)], ends["donor"][list(batch.pairs)] = base, donor
        for component in components:
            own = np.stack([found[component, layer] for layer in layers[component]], axis=1)
            if component not in scores:
                shape = (len(base_ids), *own.shape[1:-1], longest)
                scores[component] = np.full(shape, np.nan)
            scores[component][list(batch.pairs), ..., : batch.length] = own
    return StateScores(scores, ends["base"], ends["donor"], path, 0 if path == "base" else steps)


def midpoints(steps: int) -> list[float]:
    """Where a path from 0 to 1 is looked at: (k + 1/2) / steps. Hanna et al. take k / steps, whose
    error falls only with 1 / steps."""
    return [(k + 0.5) / steps for k in range(steps)]


def between(base: Tensor, donor: Tensor, share: float) -> Callable[[Tensor], Tensor]:
    """A change that puts the state at this share of the way from base to donor."""
    value = torch.lerp(base, donor, share)
    return lambda _state: value


def smooth_sum(values: Tensor) -> Tensor:
    """The sum of a metric's values; raises UserError when they have no gradient."""
    if not values.requires_grad:
        raise UserError(
            "the metric has no gradient in the logits",
            where="metric",
            remedy="explain a smooth value, such as a logit difference",
        )
    return values.sum()


def _check(model: Model, components: Sequence[str], path: str, steps: int) -> None:
    if path not in PATHS:
        raise UserError(f"there is no path {path!r}", remedy=f"use one of {', '.join(PATHS)}")
    if steps < 1:
        raise UserError(f"{steps} steps of a path", where="steps", remedy="use at least one step")
    for component in components:
        model.check_site(Site(component))


def _attribute_batch(
    model: Model,
    batch: PairBatch,
    metric: Metric,
    name: str | None,
    states: Sequence[State],
    path: str,
    steps: int,
) -> tuple[dict[State, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Estimates per state, [row, (unit,) position], and the metric of base and donor [row]."""

    def value(run: TappedPass) -> Tensor:
        return metric_values(metric, name, run.logits, batch.pairs)

    donor = tapped_pass(model, batch.donor, {*states, ("embed", 0)})
    base = tapped_pass(model, batch.base, {*states, ("embed", 0)}, graph=path == "base")
    ends = (_array(value(base)), _array(value(donor)))
    total: dict[State, Tensor] = {}
    if path == "base":
        found = gradients(smooth_sum(value(base)), base.states)
        total = found
    for tapped, change in _path(path, base, donor, states, steps):
        run = tapped_pass(model, batch.base, tapped, changes=change, graph=True)
        found = gradients(smooth_sum(value(run)), run.states)
        for state, gradient in found.items():
            part = gradient / steps
            total[state] = total[state] + part if state in total else part
    estimates = {}
    for state in states:
        difference = donor.states[state] - base.states[state].detach()
        difference[batch.unchanged] = 0.0  # exactly, whatever rounding says
        found = _products(state[0], difference * total[state])
        check_finite(found, f"{state[0]} of layer {state[1]}")
        estimates[state] = _array(found)
    return estimates, ends


def _path(
    path: str, base: TappedPass, donor: TappedPass, states: Sequence[State], steps: int
) -> Iterator[tuple[Sequence[State], dict[State, Callable[[Tensor], Tensor]]]]:
    """The runs of a path: which states to take gradients at, and what to change."""
    if path == "inputs":
        ends = [run.states["embed", 0] for run in (base, donor)]
        for share in midpoints(steps):
            yield states, {("embed", 0): between(ends[0], ends[1], share)}
    elif path == "states":
        for state in states:
            for share in midpoints(steps):
                ends = [run.states[state] for run in (base, donor)]
                yield [state], {state: between(ends[0], ends[1], share)}


def _products(component: str, product: Tensor) -> Tensor:
    """Products summed over the width of a state: [row, position] | [row, unit, position], where a
    unit is a head (a query head for patterns) or a neuron."""
    if component == "mlp_act":
        return product.transpose(1, 2)
    summed = product.sum(dim=-1)
    return summed.transpose(1, 2) if component in HEAD_COMPONENTS else summed


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


@dataclass(frozen=True, eq=False)
class StateScores:
    """Estimated effects of patching single states.

    estimates: component -> float64 [pair, layer, position] for parts of the residual stream,
    [pair, layer, unit, position] for heads (k, v: groups) and neurons; `embed` has one layer; NaN
    past a pair's end. base, donor: the metric of the unpatched runs, float64 [pair].
    """

    estimates: dict[str, np.ndarray]
    base: np.ndarray
    donor: np.ndarray
    path: str
    steps: int

    def cells(self, *, by_position: bool = True) -> tuple[tuple[PatchCell, ...], np.ndarray]:
        """Every patch that was estimated, and its estimate [cell, pair].

        by_position=False: patches of all positions together, whose estimate is the sum.
        """
        cells: list[PatchCell] = []
        values = []
        for component in (c for c in COMPONENTS if c in self.estimates):
            own = self.estimates[component]
            if not by_position:
                own = np.nansum(own, axis=-1, keepdims=True)
            for index in np.ndindex(*own.shape[1:]):
                head = index[1] if component in HEAD_COMPONENTS else None
                neuron = index[1] if component == "mlp_act" else None
                place = index[-1] if by_position else None
                cells.append(PatchCell(Site(component, index[0], head), place, neuron))
                values.append(own[(slice(None), *index)])
        return tuple(cells), np.stack(values)
