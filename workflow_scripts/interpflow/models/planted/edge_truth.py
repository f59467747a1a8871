"""Which edges of a planted model carry what differs between the prompts of a pair to the answer.

Edges are named as `interpflow.engine.circuits.edges.EdgeMap` names them: a sender (the embedding, a
head, an MLP) and a receiver (q of a head, k and v of a head or of the group that shares them, an
MLP, the logits).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from interpflow.errors import UserError
from interpflow.models.planted.plan import N_HEADS, N_LAYERS, planned_truth
from interpflow.models.planted.truth import Role, Task

# (layer, head), or the layer of an MLP.
_Head = tuple[int, int]
_Kind = Literal["q", "k", "v", "mlp", "logits"]
_Reading = tuple[_Head | int | Literal["embed"], _Kind, _Head | int]
# Sender, how it is read, and by which head or MLP (0 for the logits).
_NEEDED: dict[Task, tuple[_Reading, ...]] = {
    "induction": (
        ("embed", "v", (0, 2)),
        ((0, 2), "k", (2, 3)),
        ((2, 3), "mlp", 3),
        (3, "logits", 0),
    ),
    "redundant": (
        ("embed", "v", (0, 2)),
        ((0, 2), "k", (2, 3)),
        ((0, 2), "k", (2, 7)),
        ((2, 3), "mlp", 3),
        ((2, 7), "mlp", 3),
        (3, "logits", 0),
    ),
    "counting": (
        ("embed", "mlp", 0),
        (0, "v", (1, 6)),
        ((1, 6), "mlp", 2),
        (2, "logits", 0),
    ),
}


def planted_edges(task: Task, n_kv_heads: int) -> tuple[PlantedEdge, ...]:
    """Every edge of a planted model with its role, receivers in the order of a forward.

    n_kv_heads: how many keys and values the heads share (N_HEADS: none are shared).
    needed: what differs between a pair's prompts reaches the answer through it; patched alone into
    the corrupted run (denoising) it moves the answer, because every other needed edge hands on
    whatever it gets. dead: its sender writes, or all that it feeds write, exactly nothing.
    """
    alive = {
        (site.component, site.layer, site.head)
        for site in planned_truth(task)
        if site.role != "dead"
    }
    needed = {
        (_sender(sender), _receiver(kind, reader, n_kv_heads))
        for sender, kind, reader in _NEEDED[task]
    }
    group = N_HEADS // n_kv_heads
    found = []
    for receiver, layer, feeds in _receivers(n_kv_heads, group):
        read = not feeds or any(part in alive for part in feeds)
        heads_of_own_layer = receiver.startswith("mlp")
        for sender, part in _senders(layer, heads_of_own_layer):
            role: Role = "irrelevant" if read and (part is None or part in alive) else "dead"
            role = "needed" if (sender, receiver) in needed else role
            found.append(PlantedEdge(sender, receiver, role))
    return tuple(found)


def roles_of_edges(truth: Iterable[PlantedEdge], edges: Sequence[object]) -> tuple[Role, ...]:
    """The role of each edge, in their order; an edge is known by its `str()`. Raises UserError for
    one of which nothing is known."""
    known: dict[str, Role] = {str(edge): edge.role for edge in truth}
    unknown = [str(edge) for edge in edges if str(edge) not in known]
    if unknown:
        raise UserError(
            f"nothing is known of {unknown[0]}",
            where="ground truth",
            remedy="score edges of the planted model, named as sender->receiver",
        )
    return tuple(known[str(edge)] for edge in edges)


_Part = tuple[str, int, int | None]


def _receivers(n_kv_heads: int, group: int) -> Iterable[tuple[str, int, list[_Part]]]:
    """Name and layer of every receiver, and the parts it feeds (the logits: none)."""
    for layer in range(N_LAYERS):
        heads: list[_Part] = [("head_out", layer, head) for head in range(N_HEADS)]
        for head in range(N_HEADS):
            yield f"q.L{layer}.H{head}", layer, [heads[head]]
        for kind in ("k", "v"):
            for shared in range(n_kv_heads):
                own = heads[shared * group : (shared + 1) * group]
                yield f"{kind}.L{layer}.H{shared}", layer, own
        yield f"mlp.L{layer}", layer, [("mlp_out", layer, None)]
    yield "logits", N_LAYERS, []


def _senders(layer: int, heads_of_own_layer: bool) -> Iterable[tuple[str, _Part | None]]:
    """Name and part (the embedding: none) of all that write before a layer, or before its MLP."""
    yield "embed", None
    for earlier in range(layer + heads_of_own_layer):
        for head in range(N_HEADS):
            yield f"head_out.L{earlier}.H{head}", ("head_out", earlier, head)
        if earlier < layer:
            yield f"mlp_out.L{earlier}", ("mlp_out", earlier, None)


def _sender(part: _Head | int | str) -> str:
    if isinstance(part, tuple):
        return f"head_out.L{part[0]}.H{part[1]}"
    return f"mlp_out.L{part}" if isinstance(part, int) else part


def _receiver(kind: str, reader: _Head | int, n_kv_heads: int) -> str:
    if not isinstance(reader, tuple):
        return f"mlp.L{reader}" if kind == "mlp" else "logits"
    layer, head = reader
    return f"{kind}.L{layer}.H{head if kind == 'q' else head * n_kv_heads // N_HEADS}"


@dataclass(frozen=True)
class PlantedEdge:
    """One edge of a planted model; `str()` is "sender->receiver". Roles are those of
    `truth.PlantedSite`."""

    sender: str
    receiver: str
    role: Role

    def __str__(self) -> str:
        return f"{self.sender}->{self.receiver}"
