"""What a patch writes: the donor's states, or a placebo that moves the base state as far."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.sites import Site
from interpflow.errors import UserError

DONORS = ("activation", "random_norm_matched")


def donor_values(
    donor: str,
    donor_states: dict[Site, Tensor],
    base_states: dict[Site, Tensor],
    pairs: Sequence[int],
    base_ids: Sequence[Sequence[int]],
    donor_ids: Sequence[Sequence[int]],
    seed: int,
) -> dict[Site, Tensor]:
    """Values to write per site, [pair, position, d].

    "activation": the donor's own states. "random_norm_matched": base + u |donor - base| with u a
    random unit vector per pair, site and position: what a change of that length does when its
    direction carries nothing. Where the pair has read the same tokens the length is exactly 0.
    """
    if donor == "activation":
        return donor_states
    if donor != "random_norm_matched":
        raise UserError(f"unknown donor {donor!r}", remedy=f"use one of {', '.join(DONORS)}")
    values = {}
    for site, states in donor_states.items():
        base = base_states[site]
        moved = []
        for row, pair in enumerate(pairs):
            direction = _directions(seed, pair, site, base.shape[1:]).to(base.device)
            length = (states[row].double() - base[row].double()).norm(dim=-1, keepdim=True)
            first = _first_difference(base_ids[pair], donor_ids[pair])
            length[:first] = 0.0
            moved.append((base[row].double() + direction * length).to(base.dtype))
        values[site] = torch.stack(moved)
    return values


def aligned_values(
    states: Sequence[Tensor], tables: Sequence[Sequence[int] | None], length: int
) -> Tensor:
    """Donor states moved to base positions, [pair, position, ...]; NaN where none is aligned.

    states: per pair [position of the donor, ...]. tables: per pair the donor position of each of
    the `length` base positions (-1: none), None for the same positions.
    """
    moved = states[0].new_full((len(states), length, *states[0].shape[1:]), float("nan"))
    for row, (state, table) in enumerate(zip(states, tables)):
        places = range(length) if table is None else table
        here = [i for i, place in enumerate(places) if place >= 0]
        moved[row, here] = state[[places[i] for i in here]]
    return moved


def _directions(seed: int, pair: int, site: Site, shape: torch.Size) -> Tensor:
    """Unit vectors [position, d] that depend on seed, pair and site only."""
    site_key = int.from_bytes(hashlib.sha256(str(site).encode()).digest()[:4], "big")
    generator = np.random.default_rng(np.random.SeedSequence([seed, pair, site_key]))
    drawn = torch.from_numpy(generator.standard_normal(tuple(shape)))
    return drawn / drawn.norm(dim=-1, keepdim=True)


def _first_difference(base: Sequence[int], donor: Sequence[int]) -> int:
    for place, (left, right) in enumerate(zip(base, donor)):
        if left != right:
            return place
    return len(base)
