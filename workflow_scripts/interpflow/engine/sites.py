"""Sites: the places of a decoder where a state can be read or replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from interpflow.errors import UserError

# In the order in which a forward reaches them within one block.
COMPONENTS = ("embed", "resid_pre", "head_out", "attn_out", "resid_mid", "mlp_out", "resid_post")

_SITE_NAME = re.compile(r"^(?P<component>[a-z_]+)(?:\.L(?P<layer>\d+))?(?:\.H(?P<head>\d+))?$")


class _Sized(Protocol):
    @property
    def n_layers(self) -> int: ...

    @property
    def n_heads(self) -> int: ...


def all_sites(
    model: _Sized, components: Sequence[str], layers: Sequence[int] | None = None
) -> tuple[Site, ...]:
    """Every site of the named components, layer by layer (all layers unless named).

    `embed` gives one site; `head_out` gives one per head.
    """
    chosen = range(model.n_layers) if layers is None else layers
    sites: list[Site] = []
    for component in components:
        if component == "embed":
            sites.append(Site("embed"))
        elif component == "head_out":
            sites += [Site(component, i, head) for i in chosen for head in range(model.n_heads)]
        else:
            sites += [Site(component, i) for i in chosen]
    return tuple(sites)


@dataclass(frozen=True, order=True)
class Site:
    """One place in a decoder; its state has shape [batch, position, d].

    d is the width of the residual stream, or the head's width for `head_out` (the head's input
    to the attention output projection). `embed` is the input of block 0, the same as
    `resid_pre` of layer 0. Layers and heads count from 0.
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
        if (self.component == "head_out") != (self.head is not None):
            raise UserError(
                f"{self.component} takes {'a' if self.component == 'head_out' else 'no'} head",
                where="site",
                remedy="name a head for head_out and for nothing else",
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
