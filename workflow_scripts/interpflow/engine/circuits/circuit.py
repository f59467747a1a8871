"""Circuits: what a model computes when everything outside a chosen part is replaced.

A circuit is a set of nodes (the embedding, heads, MLPs) or of edges that is kept. The base is the
clean run; everything outside is replaced by its value in the donor run, here called corrupted (or
by zeros, or by its mean over the corrupted runs). Of nodes: each replaced output goes to all that
read it. Of edges: each receiver reads its kept senders as recomputed in the pass, the others
replaced. The full circuit is the clean run; the empty one, with donor replacement, the corrupted
run. Definitions as in MIB (Mueller et al. 2025); `interpflow.stats.faithfulness` makes f(k), CPR
and CMD of the values.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interpflow.engine.circuits.edges import Edge, EdgeMap, Receiver
from interpflow.engine.circuits.pair_batches import Prompts
from interpflow.engine.circuits.patch_sets import PatchCell, PatchedSets, patch_sets
from interpflow.engine.circuits.path_patching import EDGE_BATCH_TOKENS, patch_edge_masks
from interpflow.engine.circuits.residual_graph import residual_graph
from interpflow.engine.metrics import Metric
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.engine.sites import Site
from interpflow.errors import UserError
from interpflow.stats.faithfulness import MIB_FRACTIONS


def evaluate_node_circuits(
    model: Model,
    clean_ids: Prompts,
    corrupted_ids: Prompts,
    metric: Metric,
    circuits: Sequence[Collection[Site]],
    *,
    nodes: Sequence[Site] | None = None,
    name: str | None = None,
    replacement: str = "donor",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> CircuitValues:
    """Metric of each circuit of sites, on every pair.

    nodes: the sites a circuit is chosen from (embedding, heads and MLPs if None); those not kept
    are replaced. A circuit that leaves out the embedding sees nothing of the clean prompt.
    replacement, name: see `patch_sets`. Raises UserError for a site that is not among the nodes.
    """
    every = EdgeMap.of(model).senders if nodes is None else tuple(nodes)
    sets = [_outside(every, kept) for kept in (*circuits, ())]
    found = patch_sets(
        model, clean_ids, corrupted_ids, metric,
        [[PatchCell(site) for site in sites] for sites in sets],
        name=name, replacement=replacement, batch_tokens=batch_tokens,
    )  # fmt: skip
    return _values(found)


def evaluate_edge_circuits(
    model: Model,
    clean_ids: Prompts,
    corrupted_ids: Prompts,
    metric: Metric,
    circuits: Sequence[Collection[Edge]] | np.ndarray,
    *,
    name: str | None = None,
    replacement: str = "donor",
    batch_tokens: int = EDGE_BATCH_TOKENS,
) -> CircuitValues:
    """Metric of each circuit of edges, on every pair.

    circuits: collections of edges, or masks, bool [circuit, receiver, sender] as `EdgeMap.mask`
    makes them. replacement, name: see `patch_edges`.
    """
    graph = residual_graph(model)
    exists = graph.edges.exists
    kept = circuits
    if not isinstance(kept, np.ndarray):
        kept = np.array([graph.edges.mask(edges) for edges in kept], dtype=bool)
        kept = kept.reshape(-1, *exists.shape)
    if kept.shape[1:] != exists.shape or bool((kept & ~exists).any()):
        raise UserError(
            f"masks {list(kept.shape)} do not fit {list(exists.shape)} receivers and senders, or "
            "name edges that do not exist",
            where="circuits",
            remedy="make masks with EdgeMap.of(model).mask(edges)",
        )
    outside = np.concatenate([exists & ~kept, exists[None]])
    found = patch_edge_masks(
        graph, clean_ids, corrupted_ids, metric, outside,
        name=name, replacement=replacement, batch_tokens=batch_tokens,
    )  # fmt: skip
    return _values(found)


def top_edges(
    edges: EdgeMap,
    scores: np.ndarray,
    fractions: Sequence[float] = MIB_FRACTIONS,
    *,
    by: str = "value",
    connected: bool = False,
) -> np.ndarray:
    """Circuits of the best edges, bool [fraction, receiver, sender], for `evaluate_edge_circuits`.

    scores: [receiver, sender], large for edges to keep, such as the mean of `attribute_edges` with
    the corrupted run as base. fractions: shares of all edges, rounded down. by: "value" (CPR) or
    "size", the absolute value (CMD). connected: grow from the logits backwards, so that every kept
    edge leads to them (the greedy search of Hanna et al. 2024); best edges first among those.
    """
    worth = np.where(edges.exists, _worth(scores, by), -np.inf)
    if connected:
        order = _connected_order(edges, worth)
    else:
        order = np.argsort(-worth, axis=None, kind="stable")[: edges.n_edges]
    masks = np.zeros((len(fractions), edges.exists.size), dtype=bool)
    for row, count in enumerate(_counts(fractions, edges.n_edges)):
        masks[row, order[:count]] = True
    return masks.reshape(-1, *edges.exists.shape)


def top_nodes(
    scores: Mapping[Site, float],
    fractions: Sequence[float] = MIB_FRACTIONS,
    *,
    by: str = "value",
    always: Collection[Site] = (Site("embed"),),
) -> list[frozenset[Site]]:
    """Circuits of the best nodes by score; those in `always` are kept besides, and not counted."""
    sites = [site for site in scores if site not in always]
    worth = _worth(np.array([scores[site] for site in sites], dtype=np.float64), by)
    ranked = [sites[i] for i in np.argsort(-worth, kind="stable")]
    return [frozenset([*always, *ranked[:count]]) for count in _counts(fractions, len(ranked))]


def _outside(every: Sequence[Site], kept: Collection[Site]) -> list[Site]:
    unknown = [site for site in kept if site not in every]
    if unknown:
        raise UserError(
            f"{unknown[0]} is not among the nodes a circuit is chosen from",
            where="circuits",
            remedy="name heads as head_out with a head, MLPs as mlp_out, or give `nodes`",
        )
    return [site for site in every if site not in kept]


def _values(found: PatchedSets) -> CircuitValues:
    return CircuitValues(found.values[:-1].T, found.base, found.values[-1], found.donor)


def _worth(scores: np.ndarray, by: str) -> np.ndarray:
    if by not in ("value", "size"):
        raise UserError(f"cannot rank by {by!r}", remedy="use value or size")
    return np.abs(scores) if by == "size" else np.asarray(scores)


def _counts(fractions: Sequence[float], total: int) -> list[int]:
    if any(not 0 <= share <= 1 for share in fractions):
        raise UserError(f"fractions {list(fractions)} are no shares", where="fractions")
    # 0.29 x 100 is 28.999..., and would lose an edge.
    return [int(share * total + 1e-9) for share in fractions]


def _connected_order(edges: EdgeMap, worth: np.ndarray) -> np.ndarray:
    """Flat numbers of all edges, each after one that leads from its receiver to the logits."""
    index = {receiver: number for number, receiver in enumerate(edges.receivers)}
    order: list[int] = []
    waiting: list[tuple[float, int]] = []
    reached: set[int] = set()

    def reach(receiver: Receiver) -> None:
        number = index[receiver]
        if number in reached:
            return
        reached.add(number)
        for sender in np.flatnonzero(edges.exists[number]):
            cell = number * len(edges.senders) + int(sender)
            heapq.heappush(waiting, (-float(worth[number, sender]), cell))

    reach(Receiver("logits"))
    while waiting:
        cell = heapq.heappop(waiting)[1]
        order.append(cell)
        for receiver in edges.receivers_of(edges.senders[cell % len(edges.senders)]):
            reach(receiver)
    return np.array(order)


@dataclass(frozen=True, eq=False)
class CircuitValues:
    """Metric of circuits, float64 [pair, circuit]; of the full and of the empty circuit, and of the
    corrupted runs, [pair] (empty and corrupted agree under donor replacement when all nodes or
    edges can be replaced)."""

    circuit: np.ndarray
    full: np.ndarray
    empty: np.ndarray
    corrupted: np.ndarray
