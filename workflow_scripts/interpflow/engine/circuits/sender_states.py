"""What senders contribute to the residual stream in one run, and how two runs differ in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from interpflow.engine.circuits.gradients import State
from interpflow.engine.circuits.residual_graph import ResidualGraph
from interpflow.engine.model import Model

# Contributions of all senders that are held at a time, [sender, row, position, d_model].
SENDER_BYTES = 512 * 2**20


def sender_taps(model: Model) -> list[State]:
    """The states from which every sender's contribution follows."""
    layers = range(model.n_layers)
    return [("embed", 0), *((c, layer) for layer in layers for c in ("head_out", "mlp_out"))]


def sender_contributions(
    graph: ResidualGraph, states: Mapping[State, Tensor], n_senders: int, places: slice
) -> Tensor:
    """Contributions of the first senders at some positions, [sender, row, position, d_model].

    states: those of `sender_taps`, [row, position, ...].
    """
    parts = [states["embed", 0][None, :, places]]
    for layer in range(graph.edges.n_layers):
        if graph.edges.head_senders(layer).start >= n_senders:
            break
        parts.append(graph.contributions(layer, states["head_out", layer][:, places]))
        parts.append(states["mlp_out", layer][None, :, places])
    return torch.cat(parts)[:n_senders]


class SenderDifferences:
    """Donor minus base contributions of all senders, from the first position that differs on.

    They are held whole where they fit in SENDER_BYTES, else made again for a few positions at a
    time.
    """

    def __init__(
        self,
        graph: ResidualGraph,
        base: Mapping[State, Tensor],
        donor: Mapping[State, Tensor],
        first: int,
    ) -> None:
        self._graph, self._base, self._donor = graph, base, donor
        rows, length, width = base["embed", 0].shape
        self._first, self._length = first, length
        element = base["embed", 0].element_size()
        per_place = len(graph.edges.senders) * rows * width * element
        self._step = max(1, SENDER_BYTES // per_place)
        self._held: Tensor | None = None

    def products(self, inputs: Tensor, n_senders: int) -> Tensor:
        """Σ over positions of difference · input, [row, receiver, sender], for inputs [receiver,
        row, position, d_model] and the first `n_senders` senders."""
        total = inputs.new_zeros(inputs.shape[1], len(inputs), n_senders)
        for start in range(self._first, self._length, self._step):
            places = slice(start, min(start + self._step, self._length))
            senders = self._at(places, n_senders)
            left = inputs[:, :, places].permute(1, 0, 2, 3).flatten(2)
            right = senders.permute(1, 2, 3, 0).flatten(1, 2)
            total += left @ right
        return total

    @torch.no_grad()
    def _at(self, places: slice, n_senders: int) -> Tensor:
        whole = self._first + self._step >= self._length
        if self._held is not None:
            return self._held[:n_senders]
        count = len(self._graph.edges.senders) if whole else n_senders
        donor, base = (
            sender_contributions(self._graph, states, count, places)
            for states in (self._donor, self._base)
        )
        found = donor - base
        if whole:
            self._held = found
        return found[:n_senders]
