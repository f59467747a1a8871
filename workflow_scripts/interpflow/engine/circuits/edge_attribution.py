"""Edge attribution patching (EAP) and its integrated form (EAP-IG): every edge at once, to first
order.

Direction and sign (denoising form): the base is the corrupted run, the donor the clean one. The
score of an edge estimates metric(base with this edge's sender replaced for this receiver alone)
− metric(base): Σ over positions of (sender's contribution in the donor run − in the base run) ·
∂metric/∂(the receiver's input), the derivative through this receiver alone, its norm included.
Sources: Syed et al. (2023) for EAP; Hanna et al. (2024) for integrated gradients along the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.circuits.attribution import (
    DEFAULT_STEPS,
    PATHS,
    between,
    midpoints,
    smooth_sum,
)
from interpflow.engine.circuits.edges import EdgeMap
from interpflow.engine.circuits.gradients import (
    GRAPH_BATCH_TOKENS,
    State,
    TappedPass,
    check_finite,
    frozen_parameters,
    gradients,
    metric_values,
    tapped_pass,
)
from interpflow.engine.circuits.pair_batches import PairBatch, Prompts, pair_batches
from interpflow.engine.circuits.residual_graph import ResidualGraph, residual_graph
from interpflow.engine.circuits.sender_states import SenderDifferences, sender_taps
from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model
from interpflow.errors import UserError

# Gradients at receivers' inputs that are held at a time.
RECEIVER_BYTES = 256 * 2**20


def attribute_edges(
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    *,
    name: str | None = None,
    path: str = "base",
    steps: int = DEFAULT_STEPS,
    batch_tokens: int = GRAPH_BATCH_TOKENS,
) -> EdgeScores:
    """Score of every edge for every pair.

    metric, name: as in `attribute_states`. path "base": gradients at the base run (EAP); "inputs":
    averaged over `steps` runs between the base's and the donor's embeddings (EAP-IG); "states": for
    the senders of each layer, averaged between their base and donor states, heads of a layer
    together, with all that follows recomputed: `steps` gradients for each half of each block.
    Memory: a graph over `batch_tokens` token places, contributions of all senders there where the
    prompts differ, RECEIVER_BYTES of gradients; never a product of senders and receivers by width.
    Raises UserError when the model's residual stream could not be taken apart, or for pairs of
    unequal lengths, or a metric without gradient.
    """
    if path not in PATHS:
        raise UserError(f"there is no path {path!r}", remedy=f"use one of {', '.join(PATHS)}")
    graph = residual_graph(model)
    scores = np.full((len(base_ids), *graph.edges.exists.shape), np.nan)
    ends = {end: np.full(len(base_ids), np.nan) for end in ("base", "donor")}
    for batch in pair_batches(base_ids, donor_ids, batch_tokens=batch_tokens, device=model.device):
        rows = list(batch.pairs)
        donor = tapped_pass(model, batch.donor, sender_taps(model))
        base = tapped_pass(model, batch.base, sender_taps(model))
        for end, run in (("base", base), ("donor", donor)):
            values = metric_values(metric, name, run.logits, batch.pairs)
            ends[end][rows] = values.double().cpu().numpy()
        differences = SenderDifferences(graph, base.states, donor.states, batch.first_difference)
        total = np.zeros((len(rows), *graph.edges.exists.shape))
        n_steps = 1 if path == "base" else steps
        for change, senders in _runs(graph, path, base, donor, steps):
            slopes = _slopes(model, batch, metric, name, change)
            first_layer = max(0, senders.start - 1) // graph.edges.width
            for receivers, inputs in receiver_gradients(graph, *slopes, first_layer=first_layer):
                n_senders = int(graph.edges.exists[receivers.start].sum())
                own = slice(senders.start, min(senders.stop, n_senders))
                if own.start < own.stop:
                    found = differences.products(inputs, n_senders)[:, :, own]
                    check_finite(found, f"edges into {graph.edges.receivers[receivers.start]}")
                    total[:, receivers, own] += found.double().cpu().numpy() / n_steps
        scores[rows] = np.where(graph.edges.exists, total, np.nan)
    return EdgeScores(
        graph.edges, scores, ends["base"], ends["donor"], path, 0 if path == "base" else steps
    )


def receiver_gradients(
    graph: ResidualGraph,
    states: Mapping[State, Tensor],
    slopes: Mapping[State, Tensor],
    *,
    first_layer: int = 0,
) -> Iterator[tuple[slice, Tensor]]:
    """∂metric/∂(input residual) through each receiver alone: (where in `edges.receivers`, gradients
    [receiver, row, position, d_model]), receivers of one kind and layer at a time or fewer.

    states: `resid_pre` and (serial blocks) `resid_mid` of every layer; slopes: ∂metric/∂state of
    q, k, v and mlp_out of every layer, and of the last resid_post. Layers before `first_layer` are
    left out.
    """
    edges, last = graph.edges, graph.edges.n_layers - 1
    middle = "resid_pre" if edges.parallel else "resid_mid"
    for layer in range(first_layer, edges.n_layers):
        places = edges.layer_receivers(layer)
        before = states["resid_pre", layer].detach().requires_grad_()
        with torch.enable_grad(), frozen_parameters(graph.model.module):
            heads = dict(zip("qkv", graph.read_heads(layer, before)))
        size = max(1, RECEIVER_BYTES // (before.numel() * before.element_size()))
        for kind, state in heads.items():
            slope = slopes[kind, layer]
            for start in range(0, state.shape[2], size):
                chosen = range(start, min(start + size, state.shape[2]))
                found = [
                    torch.autograd.grad(
                        state[:, :, head], before, slope[:, :, head], retain_graph=True
                    )[0]
                    for head in chosen
                ]
                first = places[kind].start
                yield slice(first + chosen[0], first + chosen[-1] + 1), torch.stack(found)
        del heads
        between_parts = states[middle, layer].detach().requires_grad_()
        with torch.enable_grad(), frozen_parameters(graph.model.module):
            added = graph.read_mlp(layer, between_parts)
        found = torch.autograd.grad(added, between_parts, slopes["mlp_out", layer])
        yield places["mlp"], found[0][None]
    n_receivers = len(edges.receivers)
    yield slice(n_receivers - 1, n_receivers), slopes["resid_post", last][None]


def _slopes(
    model: Model,
    batch: PairBatch,
    metric: Metric,
    name: str | None,
    change: dict[State, Callable[[Tensor], Tensor]],
) -> tuple[dict[State, Tensor], dict[State, Tensor]]:
    """States of a run, and the metric's gradients, as `receiver_gradients` takes them."""
    layers = range(model.n_layers)
    taps = [(c, layer) for layer in layers for c in ("q", "k", "v", "mlp_out")]
    taps.append(("resid_post", model.n_layers - 1))
    kept = ["resid_pre"] if model.architecture.parallel else ["resid_pre", "resid_mid"]
    read = [(c, layer) for layer in layers for c in kept]
    run = tapped_pass(model, batch.base, [*taps, *read], changes=change, graph=True)
    total = smooth_sum(metric_values(metric, name, run.logits, batch.pairs))
    found = gradients(total, {tap: run.states[tap] for tap in taps})
    return {tap: run.states[tap].detach() for tap in read}, found


def _runs(
    graph: ResidualGraph, path: str, base: TappedPass, donor: TappedPass, steps: int
) -> Iterator[tuple[dict[State, Callable[[Tensor], Tensor]], slice]]:
    """The runs of a path: what to change, and the senders whose edges the run is for."""
    edges = graph.edges
    everything = slice(0, len(edges.senders))
    groups: list[tuple[State | None, slice]] = [(None, everything)]
    if path == "inputs":
        groups = [(("embed", 0), everything)]
    elif path == "states":
        groups = [(("embed", 0), slice(0, 1))]
        for layer in range(edges.n_layers):
            mlp = edges.mlp_sender(layer)
            groups.append((("head_out", layer), edges.head_senders(layer)))
            groups.append((("mlp_out", layer), slice(mlp, mlp + 1)))
    for state, senders in groups:
        if state is None:
            yield {}, senders
            continue
        for share in midpoints(steps):
            yield {state: between(base.states[state], donor.states[state], share)}, senders


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Estimated effects of single edges: float64 [pair, receiver, sender], NaN where there is no
    edge. base, donor: the metric of the unpatched runs, float64 [pair]."""

    edges: EdgeMap
    scores: np.ndarray
    base: np.ndarray
    donor: np.ndarray
    path: str
    steps: int

    @property
    def mean(self) -> np.ndarray:
        """Mean over pairs, [receiver, sender]."""
        return self.scores.mean(axis=0)
