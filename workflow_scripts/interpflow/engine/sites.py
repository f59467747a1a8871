"""Sites: the places of a decoder where a state can be read or replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from interpflow.errors import UserError

# In the order in which a forward reaches them within one block.
COMPONENTS = (
    "embed", "resid_pre", "q", "k", "v", "pattern", "head_out", "attn_out", "resid_mid", "mlp_act",
    "mlp_out", "resid_post",
)  # fmt: skip
# Inside attention: reached where a model calls its attention function, not by a module.
ATTENTION_COMPONENTS = ("q", "k", "v", "pattern")
# With one part per head; of k and v there are as many heads as keys have (grouped heads).
HEAD_COMPONENTS = (*ATTENTION_COMPONENTS, "head_out")
KEY_VALUE_COMPONENTS = ("k", "v")

_SITE_NAME = re.compile(r"^(?P<component>[a-z_]+)(?:\.L(?P<layer>\d+))?(?:\.H(?P<head>\d+))?$")


class _Sized(Protocol):
    @property
    def n_layers(self) -> int: ...

    @property
    def n_heads(self) -> int: ...

    @property
    def n_kv_heads(self) -> int: ...


def all_sites(
    model: _Sized, components: Sequence[str], layers: Sequence[int] | None = None
) -> tuple[Site, ...]:
    """Every site of the named components, layer by layer (all layers unless named).

    `embed` gives one site; components with heads give one per head.
    """
    chosen = range(model.n_layers) if layers is None else layers
    sites: list[Site] = []
    for component in components:
        if component == "embed":
            sites.append(Site("embed"))
        elif component in HEAD_COMPONENTS:
            heads = range(n_heads_of(model, component))
            sites += [Site(component, layer, head) for layer in chosen for head in heads]
        else:
            sites += [Site(component, layer) for layer in chosen]
    return tuple(sites)


def n_heads_of(model: _Sized, component: str) -> int:
    """Number of heads of a component with heads."""
    return model.n_kv_heads if component in KEY_VALUE_COMPONENTS else model.n_heads


@dataclass(frozen=True, order=True)
class Site:
    """One place in a decoder; its state has shape [batch, position, d]. Layers and heads count
    from 0.

    d is the width of the residual stream for `embed` (the input of block 0, the same as
    `resid_pre` of layer 0), `resid_pre`, `attn_out`, `resid_mid`, `mlp_out` and `resid_post`;
    `attn_out` and `mlp_out` are what is added to the stream, norms and multipliers included.
    `mlp_act`: the neurons, what the MLP's last projection reads; d is their number.
    `q`, `k`, `v`: as attention multiplies them, so q and k after rotation and normalisation; d is
    the width of a head. `head_out`: what a head hands to the output projection.
    `pattern`: attention weights of each query position; d is the number of key positions.
    These five have a head (of k and v, a head of keys), or None for all heads together: d is then
    heads x width of a head, and the state of `pattern` is [batch, position, head, key position].
    """

    component: str
    layer: int = 0
    head: int | None = None

    def __post_init__(self) -> None:
        if self.component not in COMPONENTS:
            raise UserError(
                f"there is no component {self.component!r}",
                where="site",
                remedy=f"use one of {', '.join(COMPONENTS)}",
            )
        if self.head is not None and (self.head < 0 or self.component not in HEAD_COMPONENTS):
            raise UserError(
                f"{self.component} has no head {self.head}",
                where="site",
                remedy=f"name a head from 0 on, and only for {', '.join(HEAD_COMPONENTS)}",
            )
        if self.layer < 0 or (self.component == "embed" and self.layer != 0):
            raise UserError(f"{self.component} has no layer {self.layer}", where="site")

    def __str__(self) -> str:
        if self.component == "embed":
            return "embed"
        head = "" if self.head is None else f".H{self.head}"
        return f"{self.component}.L{self.layer}{head}"

    @classmethod
    def parse(cls, name: str) -> Site:
        """The site whose `str()` is `name`, such as "resid_post.L2" or "head_out.L1.H3"."""
        match = _SITE_NAME.match(name)
        if match is None or (match["layer"] is None) != (match["component"] == "embed"):
            raise UserError(
                f"{name!r} does not name a site",
                remedy="write it as component.L2 or head_out.L2.H3",
            )
        head = match["head"]
        return cls(
            match["component"], int(match["layer"] or 0), None if head is None else int(head)
        )
