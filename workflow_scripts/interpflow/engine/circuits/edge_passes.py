"""Exact passes in which chosen receivers read chosen senders from another run.

A receiver reads the residual of the pass as it is, with all changes upstream, and for each of its
patched edges that sender's contribution exchanged for the replacement's. A patched edge is thus
cut: nothing flows through it but the replacement; all other paths carry what was recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.circuits.gradients import State
from interpflow.engine.circuits.residual_graph import HeadStates, ResidualGraph
from interpflow.engine.passes.fast_modules import fast_modules

# Token places whose queries, keys and values are computed at a time.
READ_TOKENS = 4096

# Replacing contributions of senders (numbers in `EdgeMap.senders`), [sender, row, position, d].
Replacement = Callable[[Sequence[int]], Tensor]


@torch.no_grad()
def run_edge_sets(
    graph: ResidualGraph,
    base: Mapping[State, Tensor],
    replacement: Replacement,
    masks: np.ndarray,
    places: Tensor | None = None,
) -> Tensor:
    """Logits [set, pair, vocab] at the last position, with the edges of each set patched.

    base: states of the unpatched run of each pair: those of `sender_taps`, `resid_pre` of every
    layer and the last `resid_post`, [pair, position, ...]. masks: bool [set, receiver, sender].
    places: bool [pair, position], where senders are exchanged (everywhere if None).
    The pass starts at the first layer with a patched receiver.
    """
    with fast_modules(graph.model.module):
        return _EdgePass(graph, base, replacement, masks, places).run()


class _EdgePass:
    """One pass over all rows: set s of pair p is row s · pairs + p."""

    def __init__(
        self,
        graph: ResidualGraph,
        base: Mapping[State, Tensor],
        replacement: Replacement,
        masks: np.ndarray,
        places: Tensor | None,
    ) -> None:
        self._graph, self._base, self._replacement = graph, base, replacement
        self._edges, self._places = graph.edges, places
        self._n_sets, self._n_pairs = len(masks), len(base["embed", 0])
        self._needed = [int(s) for s in np.flatnonzero(masks.any(axis=(0, 1)))]
        self._masks = masks[:, :, self._needed]
        self._n_reads = max(1, READ_TOKENS // base["embed", 0].shape[:2].numel())
        # What the exchange of each needed sender changes, [needed sender, set, pair, position, d].
        shape = (len(self._needed), self._n_sets, *base["embed", 0].shape)
        self._change = base["embed", 0].new_zeros(shape)

    def run(self) -> Tensor:
        patched = np.flatnonzero(self._masks.any(axis=(0, 2)))
        receivers = [self._edges.receivers[int(number)] for number in patched]
        layers = [r.layer if r.kind != "logits" else self._edges.n_layers for r in receivers]
        first = min(layers, default=self._edges.n_layers)
        state = self._start(first)
        for layer in range(first, self._edges.n_layers):
            state = self._block(layer, state)
        inputs = self._unflat(state)[:, :, -1].clone()
        for number in range(self._n_sets):
            pattern = self._masks[number, -1]
            if pattern.any():
                inputs[number] += self._exchanged(number, pattern[None])[0][:, -1]
        return self._graph.model.architecture.unembed(inputs)

    def _start(self, layer: int) -> Tensor:
        """The unpatched input of a layer; senders before it contribute what they did unpatched."""
        n_layers = self._edges.n_layers
        name = ("resid_pre", layer) if layer < n_layers else ("resid_post", n_layers - 1)
        if 0 in self._needed:
            self._keep([0], self._base["embed", 0][None, None])
        for earlier in range(layer):
            chosen = self._heads_needed(earlier)
            if chosen:
                heads = self._base["head_out", earlier]
                own = self._graph.contributions(earlier, heads, chosen)
                self._keep(self._numbers(earlier, chosen), own[:, None])
            if self._edges.mlp_sender(earlier) in self._needed:
                own = self._base["mlp_out", earlier]
                self._keep([self._edges.mlp_sender(earlier)], own[None, None])
        return self._base[name].repeat(self._n_sets, 1, 1)

    def _block(self, layer: int, state: Tensor) -> Tensor:
        """The block's output, its senders' changes kept on the way."""
        graph, places = self._graph, self._edges.layer_receivers(layer)
        heads = graph.attend(layer, state, self._read_heads(layer, state, places))
        added = graph.add_heads(layer, heads)
        chosen = self._heads_needed(layer)
        if chosen:
            own = self._unflat(graph.contributions(layer, heads, chosen), axis=1)
            self._keep(self._numbers(layer, chosen), own)
        middle = state if self._edges.parallel else state + added
        reads = middle.clone()
        for number in range(self._n_sets):
            pattern = self._masks[number, places["mlp"]]
            if pattern.any():
                self._unflat(reads)[number] += self._exchanged(number, pattern)[0]
        mlp = graph.read_mlp(layer, reads)
        if self._edges.mlp_sender(layer) in self._needed:
            self._keep([self._edges.mlp_sender(layer)], self._unflat(mlp)[None])
        return state + added + mlp

    def _read_heads(
        self, layer: int, state: Tensor, places: Mapping[str, slice]
    ) -> HeadStates | None:
        """Queries, keys and values, each head's from its own input; None if all read the state."""
        own = slice(places["q"].start, places["v"].stop)
        if not self._masks[:, own].any():
            return None
        found = [self._unflat(x).clone() for x in self._graph.read_heads(layer, state)]
        sizes = [x.shape[3] for x in found]
        # Receiver -> which of q, k, v, and which head of it.
        heads = [(kind, head) for kind, size in enumerate(sizes) for head in range(size)]
        waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
        for number in range(self._n_sets):
            patterns, which = np.unique(self._masks[number, own], axis=0, return_inverse=True)
            which = which.reshape(-1)
            for pattern in np.flatnonzero(patterns.any(axis=1)):
                waiting.append((number, np.flatnonzero(which == pattern), patterns[pattern]))
                if len(waiting) == self._n_reads:
                    self._write(layer, state, found, waiting, heads)
                    waiting = []
        self._write(layer, state, found, waiting, heads)
        q, k, v = (x.flatten(0, 1) for x in found)
        return q, k, v

    def _write(
        self,
        layer: int,
        state: Tensor,
        found: Sequence[Tensor],
        waiting: Sequence[tuple[int, np.ndarray, np.ndarray]],
        heads: Sequence[tuple[int, int]],
    ) -> None:
        """Read the inputs of (set, receivers, pattern) and put what these receivers take of them
        in place."""
        if not waiting:
            return
        inputs = [
            self._unflat(state)[number] + self._exchanged(number, pattern[None])[0]
            for number, _, pattern in waiting
        ]
        read = self._graph.read_heads(layer, torch.cat(inputs))
        parts = [x.unflatten(0, (len(waiting), self._n_pairs)) for x in read]
        for place, (number, receivers, _) in enumerate(waiting):
            for kind, head in (heads[int(r)] for r in receivers):
                found[kind][number, :, :, head] = parts[kind][place, :, :, head]

    def _exchanged(self, number: int, patterns: np.ndarray) -> Tensor:
        """What these patterns [n, needed sender] of a set change in an input, [n, pair, position,
        d]."""
        chosen = torch.from_numpy(patterns).to(self._change)
        found = torch.tensordot(chosen, self._change[:, number], dims=1)
        return found if self._places is None else found * self._places[..., None]

    def _keep(self, senders: Sequence[int], own: Tensor) -> None:
        """Note what senders contribute in this pass, [sender, set (or 1), pair, position, d]."""
        given = self._replacement(senders)[:, None]
        rows = [self._needed.index(sender) for sender in senders]
        self._change[rows] = given.to(own) - own

    def _heads_needed(self, layer: int) -> list[int]:
        senders = self._edges.head_senders(layer)
        return [s - senders.start for s in self._needed if senders.start <= s < senders.stop]

    def _numbers(self, layer: int, heads: Sequence[int]) -> list[int]:
        return [self._edges.head_senders(layer).start + head for head in heads]

    def _unflat(self, rows: Tensor, axis: int = 0) -> Tensor:
        return rows.unflatten(axis, (self._n_sets, self._n_pairs))
