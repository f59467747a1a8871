"""Which patched rows a sweep has to run, and from where.

What a patch at block l and position p can change in a causal decoder: blocks >= l and positions
>= p, and nothing at all where base and donor have read the same tokens. The plan uses that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interpflow.engine.sites import KEY_VALUE_COMPONENTS, Site
from interpflow.errors import UserError

Groups = Sequence[Sequence[Sequence[int] | None]]


def check_pairs(
    base_ids: Sequence[Sequence[int]],
    donor_ids: Sequence[Sequence[int]],
    groups: Groups,
    donor_positions: Sequence[Sequence[int] | None] | None = None,
) -> int:
    """The number of groups; raises UserError, naming the pair, when the lists do not match.

    donor_positions: per pair the donor's position for each base position (-1: none), or None.
    """
    if not len(base_ids) == len(donor_ids) == len(groups) or not base_ids:
        raise UserError(
            f"{len(base_ids)} base and {len(donor_ids)} donor prompts, {len(groups)} group lists",
            where="sweep",
            remedy="pass one of each per pair, and at least one pair",
        )
    n_groups = len(groups[0])
    for pair, (base, donor, chosen) in enumerate(zip(base_ids, donor_ids, groups)):
        table = None if donor_positions is None else donor_positions[pair]
        if table is not None:
            _check_alignment(pair, base, donor, chosen, table)
        elif len(base) != len(donor) or not len(base):
            raise UserError(
                f"base has {len(base)} tokens, donor {len(donor)}",
                where=f"pair {pair}",
                remedy="make pairs of equally many tokens, give an alignment, or drop the pair",
            )
        if len(chosen) != n_groups:
            raise UserError(f"{len(chosen)} groups, expected {n_groups}", where=f"pair {pair}")
        for group in chosen:
            places = list(group or ())
            if len(set(places)) != len(places) or any(not 0 <= p < len(base) for p in places):
                raise UserError(
                    f"positions {places} repeat or lie outside {len(base)} tokens",
                    where=f"pair {pair}",
                )
    return n_groups


def _check_alignment(
    pair: int,
    base: Sequence[int],
    donor: Sequence[int],
    groups: Sequence[Sequence[int] | None],
    table: Sequence[int],
) -> None:
    if len(table) != len(base) or any(not -1 <= place < len(donor) for place in table):
        raise UserError(
            f"the alignment has {len(table)} donor positions for {len(base)} tokens, or one "
            f"outside the donor's {len(donor)} tokens",
            where=f"pair {pair}",
        )
    alone = [p for group in groups for p in group or () if 0 <= p < len(base) and table[p] < 0]
    if alone:
        raise UserError(
            f"position {alone[0]} has no aligned donor position",
            where=f"pair {pair}",
            remedy="leave it out of the groups, or align it",
        )


def canonical(site: Site, n_layers: int) -> Site:
    """The same place under one name: block inputs, save for the output of the last block."""
    if site.component == "embed":
        return Site("resid_pre", 0)
    if site.component == "resid_post" and site.layer < n_layers - 1:
        return Site("resid_pre", site.layer + 1)
    return site


def live_positions(
    site: Site,
    positions: Sequence[int],
    differs: np.ndarray,
    n_layers: int,
) -> tuple[int, ...]:
    """The positions where a patch at the canonical `site` can change the last position's logits.
    differs: bool [position], whether base and donor have another token there.

    Left out: positions before the first differing token (base and donor states are the same);
    for the input of block 0 and what it computes of each position alone, every position with equal
    tokens; within or after the last block, save for its keys and values, every position but the
    last (nothing moves between positions any more).
    """
    first = int(differs.argmax()) if differs.any() else len(differs)
    live = [p for p in positions if p >= first]
    if site.layer == 0 and site.component in ("resid_pre", "q", *KEY_VALUE_COMPONENTS):
        live = [p for p in live if differs[p]]
    if site.layer == n_layers - 1 and site.component not in ("resid_pre", *KEY_VALUE_COMPONENTS):
        live = [p for p in live if p == len(differs) - 1]
    return tuple(sorted(live))


def plan_rows(
    pairs: Sequence[int],
    base_ids: Sequence[Sequence[int]],
    donor_ids: Sequence[Sequence[int]],
    sites: Sequence[Site],
    groups: Groups,
    *,
    asked: np.ndarray,
    n_layers: int,
    skip: bool,
) -> list[Row]:
    """Rows to run for these pairs in the cells [site, group] that are `asked` for; skip: leave out
    what cannot change anything."""
    planned: list[Row] = []
    places = [canonical(site, n_layers) for site in sites]
    chosen = [np.flatnonzero(row).tolist() for row in asked]
    for pair in pairs:
        differs = np.asarray(base_ids[pair]) != np.asarray(donor_ids[pair])
        for s, place in enumerate(places):
            for g in chosen[s]:
                live = tuple(sorted(groups[pair][g] or ()))
                if skip and live:
                    live = live_positions(place, live, differs, n_layers)
                if live:
                    planned.append(Row(pair, s, g, place, live))
    return planned


@dataclass(frozen=True)
class Row:
    """One patched run: which pair, which site and group it fills in, and what is replaced."""

    pair: int
    site_index: int
    group: int
    place: Site
    positions: tuple[int, ...]
