"""The edges of a decoder's residual stream: who writes into it, and who reads it.

Senders are what is added to the stream: the embedding, each head through its slice of the output
projection, each MLP. Receivers read it: each head's query, key and value input (keys and values
per group where heads are grouped), each MLP, and the logits. An edge exists from every sender to
every later receiver; in a parallel block the MLP does not see its own block's heads. GPT-2 small
has 32,491 edges, the count of ACDC (Conmy et al. 2023) and EAP (Syed et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interpflow.engine.model import Model
from interpflow.engine.sites import Site
from interpflow.errors import UserError

RECEIVER_KINDS = ("q", "k", "v", "mlp", "logits")


@dataclass(frozen=True, order=True)
class Receiver:
    """What reads the residual stream: q, k or v of a head (k, v: of a group), the MLP of a layer,
    or the logits."""

    kind: str
    layer: int = 0
    head: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in RECEIVER_KINDS:
            raise UserError(
                f"there is no receiver {self.kind!r}", remedy=f"use {', '.join(RECEIVER_KINDS)}"
            )
        if (self.kind in ("q", "k", "v")) != (self.head is not None):
            raise UserError(f"receiver {self.kind} needs a head for q, k, v and else none")

    def __str__(self) -> str:
        if self.kind == "logits":
            return "logits"
        head = "" if self.head is None else f".H{self.head}"
        return f"{self.kind}.L{self.layer}{head}"


@dataclass(frozen=True, order=True)
class Edge:
    """From a sender (`embed`, a `head_out` with its head, an `mlp_out`) to a receiver."""

    sender: Site
    receiver: Receiver

    def __str__(self) -> str:
        return f"{self.sender}->{self.receiver}"


@dataclass(frozen=True)
class EdgeMap:
    """All senders and receivers of a decoder, in the order in which a forward reaches them.

    Senders: embed, then per layer its heads and its MLP. Receivers: per layer q of each head, k and
    v of each group, the MLP; then the logits.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool

    @classmethod
    def of(cls, model: Model) -> EdgeMap:
        return cls(model.n_layers, model.n_heads, model.n_kv_heads, model.architecture.parallel)

    @cached_property
    def senders(self) -> tuple[Site, ...]:
        return (Site("embed"), *(
            site
            for layer in range(self.n_layers)
            for site in (
                *(Site("head_out", layer, head) for head in range(self.n_heads)),
                Site("mlp_out", layer),
            )
        ))  # fmt: skip

    @cached_property
    def receivers(self) -> tuple[Receiver, ...]:
        heads = (("q", self.n_heads), ("k", self.n_kv_heads), ("v", self.n_kv_heads))
        return (*(
            receiver
            for layer in range(self.n_layers)
            for receiver in (
                *(Receiver(kind, layer, head) for kind, n in heads for head in range(n)),
                Receiver("mlp", layer),
            )
        ), Receiver("logits"))  # fmt: skip

    @property
    def width(self) -> int:
        """Senders of one layer."""
        return self.n_heads + 1

    def senders_before(self, kind: str, layer: int) -> int:
        """How many of `senders` a receiver of this kind and layer reads: the first so many."""
        if kind == "logits":
            return len(self.senders)
        inside = self.n_heads if kind == "mlp" and not self.parallel else 0
        return 1 + layer * self.width + inside

    def head_senders(self, layer: int) -> slice:
        """Where the heads of a layer are among `senders`."""
        return slice(1 + layer * self.width, 1 + layer * self.width + self.n_heads)

    def mlp_sender(self, layer: int) -> int:
        """Where the MLP of a layer is among `senders`."""
        return (layer + 1) * self.width

    def layer_receivers(self, layer: int) -> dict[str, slice]:
        """Where q, k, v and mlp of a layer are among `receivers`."""
        sizes = {"q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads, "mlp": 1}
        start, found = layer * sum(sizes.values()), {}
        for kind, size in sizes.items():
            found[kind] = slice(start, start + size)
            start += size
        return found

    def receivers_of(self, sender: Site) -> tuple[Receiver, ...]:
        """The receivers that feed a sender: q, k and v of a head, the MLP's own; none the
        embedding."""
        layer = sender.layer
        if sender.component == "embed":
            return ()
        if sender.head is None:
            return (Receiver("mlp", layer),)
        group = sender.head // (self.n_heads // self.n_kv_heads)
        kinds = (("q", sender.head), ("k", group), ("v", group))
        return tuple(Receiver(kind, layer, head) for kind, head in kinds)

    @cached_property
    def exists(self) -> np.ndarray:
        """bool [receiver, sender]: which pairs are edges."""
        before = [self.senders_before(r.kind, r.layer) for r in self.receivers]
        return np.arange(len(self.senders))[None, :] < np.array(before)[:, None]

    @property
    def n_edges(self) -> int:
        return int(self.exists.sum())

    def index(self, edge: Edge) -> tuple[int, int]:
        """(receiver, sender) of an edge; raises UserError when the decoder has no such edge."""
        receiver = self._receiver_index.get(edge.receiver)
        sender = self._sender_index.get(edge.sender)
        if receiver is None or sender is None or not self.exists[receiver, sender]:
            raise UserError(
                f"there is no edge {edge}",
                where=f"{self.n_layers} layers of {self.n_heads} heads",
                remedy="name an embed, head_out or mlp_out site and a receiver after it",
            )
        return receiver, sender

    def edge(self, receiver: int, sender: int) -> Edge:
        return Edge(self.senders[sender], self.receivers[receiver])

    def mask(self, edges: Iterable[Edge]) -> np.ndarray:
        """bool [receiver, sender], true for these edges."""
        found = np.zeros_like(self.exists)
        for edge in edges:
            found[self.index(edge)] = True
        return found

    def edges(self, mask: np.ndarray | None = None) -> tuple[Edge, ...]:
        """The edges of a mask [receiver, sender]; all edges if None."""
        chosen = self.exists if mask is None else mask & self.exists
        return tuple(self.edge(int(r), int(s)) for r, s in np.argwhere(chosen))

    @cached_property
    def _receiver_index(self) -> dict[Receiver, int]:
        return {receiver: i for i, receiver in enumerate(self.receivers)}

    @cached_property
    def _sender_index(self) -> dict[Site, int]:
        return {sender: i for i, sender in enumerate(self.senders)}
