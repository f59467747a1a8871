"""Interventions made ready for a pass: donors run, positions counted, features chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from interpflow.engine.alignment import Alignment
from interpflow.engine.architecture import Architecture
from interpflow.engine.interventions import (
    Acting,
    DonorIntervention,
    Intervention,
    ResampleAblation,
)
from interpflow.engine.passes.edits import Change
from interpflow.engine.positions import positions_of_rows
from interpflow.engine.prompts import as_rows
from interpflow.engine.sites import KEY_VALUE_COMPONENTS, Site, n_heads_of
from interpflow.errors import UserError

# States of a site in prompts given as token ids, [batch, position, ...]; NaN beyond their ends.
StatesOf = Callable[[list[list[int]], Site], Tensor]


def with_donors_run(
    interventions: Sequence[Intervention],
    lengths: Sequence[int],
    tokenizer: object,
    states_of: StatesOf,
) -> list[Intervention]:
    """The interventions with the values of every donor in them; each donor is run once per site.

    lengths: tokens of each prompt that they will act on. Raises UserError for donors of another
    length without alignment, and for donor positions that do not pair up.
    """
    found: dict[tuple[int, Site], tuple[list[int], Tensor]] = {}
    ready = []
    for one in interventions:
        if isinstance(one, DonorIntervention) and one.donor is not None:
            key = (id(one.donor), one.site)
            if key not in found:
                rows = as_rows(one.donor, tokenizer)
                found[key] = ([len(row) for row in rows], states_of(rows, one.site))
            ready.append(_with_values(one, lengths, *found[key]))
        elif isinstance(one, ResampleAblation) and one.values is not None:
            drawn = one.drawn(len(lengths), len(one.values))
            ready.append(replace(one, values=one.values[drawn]))
        else:
            ready.append(one)
    return ready


def changes(
    architecture: Architecture,
    interventions: Sequence[Intervention],
    lengths: Sequence[int],
    *,
    rows: Sequence[int] | None = None,
    first: int = 0,
    stop: int | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
) -> list[Change]:
    """What a pass over positions first .. stop - 1 has to change.

    lengths: tokens of each prompt; rows: the prompts (by number) that are rows of the pass, all if
    None. stop: None for whole prompts. limit: positions that rows may still come to have.
    Keys and values of earlier positions are changed again in each pass, because a model's cache
    keeps them unchanged.
    """
    rows = range(len(lengths)) if rows is None else rows
    ends = [length if stop is None else stop for length in lengths]
    limits = None if limit is None else [limit] * len(lengths)
    made: list[tuple[Intervention, Change]] = []
    for one in interventions:
        where = f"{type(one).__name__} of {one.site}"
        _check_values(architecture, one, len(lengths), max(lengths), where)
        chosen = positions_of_rows(one.positions, lengths, ends, limits=limits, where=where)
        start = 0 if one.site.component in KEY_VALUE_COMPONENTS else first
        places = [
            (number, row, place)
            for number, row in enumerate(rows)
            for place in dict.fromkeys(chosen[row])
            if place >= start
        ]
        if not places:
            continue
        index = torch.tensor(places, dtype=torch.int64, device=device)
        acting = Acting(index[:, 1], index[:, 2])
        # The input of block 0 is one place with two names.
        site = Site("resid_pre") if one.site.component == "embed" else one.site
        change = Change(
            site,
            index[:, 0],
            index[:, 2] - first,
            partial(one.new_states, at=acting),
            _features(architecture, one, max(ends)),
        )
        _check_not_overwritten(one, change, made)
        made.append((one, change))
    return [change for _, change in made]


def _features(architecture: Architecture, one: Intervention, n_keys: int) -> Tensor | None:
    """The features that an intervention changes, int64; all if None."""
    if one.heads is None and one.neurons is None:
        return None
    site, where = one.site, f"{type(one).__name__} of {one.site}"
    n_heads = n_heads_of(architecture, site.component) if site.head is None else 1
    if one.heads is not None:
        _check_range(one.heads, n_heads, "head", where)
    width = architecture.width(site, n_keys)
    if site.component == "pattern":
        keys = range(n_keys) if one.neurons is None else one.neurons
        _check_range(keys, None, "key position", where)
        return torch.tensor(
            [
                head * n_keys + key
                for head in (range(n_heads) if one.heads is None else one.heads)
                for key in keys
                if key < n_keys
            ],
            dtype=torch.int64,
        )
    if one.neurons is not None:
        _check_range(one.neurons, width, "feature", where)
        return torch.tensor(list(one.neurons), dtype=torch.int64)
    part = width // n_heads
    chosen = [range(head * part, (head + 1) * part) for head in one.heads or ()]
    return torch.tensor([feature for head in chosen for feature in head], dtype=torch.int64)


def _check_values(
    architecture: Architecture, one: Intervention, n_rows: int, length: int, where: str
) -> None:
    values = one.values if isinstance(one, DonorIntervention) else None
    if values is None:
        return
    expected: tuple[int | str, ...] = (n_rows, length, architecture.width(one.site, length))
    if one.site.component == "pattern":
        heads = () if one.site.head is not None else (architecture.n_heads,)
        expected = (n_rows, length, *heads, "keys")
    fixed = [(found, size) for found, size in zip(values.shape, expected) if size != "keys"]
    del fixed[1]  # positions without a value are noticed when they are asked for
    if values.ndim != len(expected) or any(found != size for found, size in fixed):
        raise UserError(
            f"values have shape {list(values.shape)}, expected {list(expected)}", where=where
        )


def _check_range(numbers: Sequence[int], count: int | None, what: str, where: str) -> None:
    for number in numbers:
        if number < 0 or (count is not None and number >= count):
            raise UserError(
                f"there is no {what} {number}",
                where=where,
                remedy=f"count from 0 to {count - 1}" if count else "count from 0",
            )


def _check_not_overwritten(
    one: Intervention, change: Change, made: Sequence[tuple[Intervention, Change]]
) -> None:
    """An intervention whose work is thrown away is a mistake, not an effect of zero."""
    if not one.replaces:
        return
    mine = set(zip(change.rows.tolist(), change.places.tolist()))
    for earlier, before in made:
        if before.site != change.site or not _share(before.features, change.features):
            continue
        if not mine.isdisjoint(zip(before.rows.tolist(), before.places.tolist())):
            raise UserError(
                f"{one.site} is changed twice at one position: {type(one).__name__} overwrites "
                f"what {type(earlier).__name__} did",
                where="interventions",
                remedy="name different positions or features, or leave one out",
            )


def _share(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        return True
    return not set(left.tolist()).isdisjoint(right.tolist())


def _with_values(
    one: DonorIntervention, lengths: Sequence[int], donor_lengths: Sequence[int], states: Tensor
) -> DonorIntervention:
    """The intervention with the donor's states moved to the recipients' positions."""
    where = f"{type(one).__name__} of {one.site}"
    if isinstance(one, ResampleAblation):
        drawn = one.drawn(len(lengths), len(donor_lengths))
    elif len(donor_lengths) in (1, len(lengths)):
        drawn = list(range(len(lengths))) if len(donor_lengths) > 1 else [0] * len(lengths)
    else:
        raise UserError(f"{len(donor_lengths)} donors for {len(lengths)} prompts", where=where)
    donor_lengths = [donor_lengths[row] for row in drawn]
    states = states[drawn]
    mine = positions_of_rows(one.positions, lengths, where=where)
    if one.alignment is not None:
        pairs = _aligned(one.alignment, mine, lengths, donor_lengths, one.positions == "all", where)
    elif one.donor_positions is not None:
        theirs = positions_of_rows(one.donor_positions, donor_lengths, where=f"donor of {where}")
        pairs = _paired(mine, theirs, where)
    else:
        resampled = isinstance(one, ResampleAblation)
        for row, (length, other) in enumerate(zip(lengths, donor_lengths)):
            if length != other and not (resampled and max(mine[row], default=0) < other):
                raise UserError(
                    f"the donor has {other} tokens, the prompt {length}",
                    where=f"{where}, row {row}",
                    remedy="name donor_positions, or give an alignment",
                )
        pairs = [[(place, place) for place in places] for places in mine]
    width = max(lengths)
    values = states.new_full((len(lengths), width, *states.shape[2:]), float("nan"))
    for row, placed in enumerate(pairs):
        if placed:
            to, source = (list(side) for side in zip(*placed))
            values[row, to] = states[row, source]
    placed_at = [[to for to, _ in placed] for placed in pairs]
    return replace(
        one, positions=placed_at, values=values, donor=None, donor_positions=None, alignment=None
    )


def _paired(
    mine: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], where: str
) -> list[list[tuple[int, int]]]:
    for row, (places, others) in enumerate(zip(mine, theirs)):
        if len(places) != len(others):
            raise UserError(
                f"{len(places)} positions get the states of {len(others)} donor positions",
                where=f"{where}, row {row}",
                remedy="name as many donor positions as positions",
            )
    return [list(zip(places, others)) for places, others in zip(mine, theirs)]


def _aligned(
    alignment: Sequence[Alignment],
    mine: Sequence[Sequence[int]],
    lengths: Sequence[int],
    donor_lengths: Sequence[int],
    everything: bool,
    where: str,
) -> list[list[tuple[int, int]]]:
    """The aligned pairs of positions; "all" means every aligned position."""
    if len(alignment) != len(lengths):
        raise UserError(f"{len(alignment)} alignments for {len(lengths)} prompts", where=where)
    pairs = []
    for row, (table, places) in enumerate(zip(alignment, mine)):
        donor_of = table.donor_of
        if any(place >= lengths[row] for place in donor_of) or any(
            place >= donor_lengths[row] for place in donor_of.values()
        ):
            raise UserError("the alignment leaves the prompts", where=f"{where}, row {row}")
        chosen = [place for place in places if place in donor_of]
        if not everything and len(chosen) < len(places):
            lost = next(place for place in places if place not in donor_of)
            raise UserError(
                f"nothing in the donor stands for position {lost}",
                where=f"{where}, row {row}",
                remedy="patch aligned positions, or add this one to the alignment",
            )
        pairs.append([(place, donor_of[place]) for place in chosen])
    return pairs
