"""Exact effects of patching sets of states jointly, each set in one forward.

Direction and sign as in `interpflow.engine.circuits.attribution`: the base is what is patched, the
donor where values come from, an effect is metric(patched) − metric(base). Every row of a pass is
one set on one pair; the sets of a pass need not touch the same states.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.circuits.gradients import (
    Change,
    State,
    metric_values,
    tapped_pass,
)
from interpflow.engine.circuits.pair_batches import PairBatch, Prompts, pair_batches
from interpflow.engine.metrics import Metric
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.engine.sites import COMPONENTS, Site
from interpflow.errors import UserError

# What a patched state becomes: the donor run's, zeros, or the donor runs' mean over all places.
REPLACEMENTS = ("donor", "zero", "mean")


def patch_sets(
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    sets: Sequence[Collection[PatchCell]],
    *,
    name: str | None = None,
    replacement: str = "donor",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> PatchedSets:
    """Metric of every base run with all cells of a set replaced at once.

    replacement: one of REPLACEMENTS; a mean is taken over all positions of all donor prompts, one
    vector per head or state. name: which of the metric's values, needed when it has several.
    A set that names a position past a pair's end is NaN there.
    Raises UserError for cells that the model does not have and for pairs of unequal lengths.
    """
    for cell in {cell for cells in sets for cell in cells}:
        check_cell(model, cell, max(map(len, base_ids), default=0))
    states = sorted({cell.state for cells in sets for cell in cells})
    means = _means(model, donor_ids, states, batch_tokens) if replacement == "mean" else {}
    if replacement not in REPLACEMENTS:
        raise UserError(
            f"there is no replacement {replacement!r}", remedy=f"use {', '.join(REPLACEMENTS)}"
        )
    values = np.full((len(sets), len(base_ids)), np.nan)
    ends = {end: np.full(len(base_ids), np.nan) for end in ("base", "donor")}
    for batch in pair_batches(base_ids, donor_ids, batch_tokens=batch_tokens, device=model.device):
        columns = list(batch.pairs)
        donor = tapped_pass(model, batch.donor, states)
        base = tapped_pass(model, batch.base)
        for end, run in (("base", base), ("donor", donor)):
            ends[end][columns] = _array(metric_values(metric, name, run.logits, batch.pairs))
        given = {s: _given(s, donor.states[s], replacement, means) for s in states}
        fitting = [i for i, cells in enumerate(sets) if _fits(cells, batch.length)]
        size = max(1, batch_tokens // batch.base.numel())
        for start in range(0, len(fitting), size):
            rows = fitting[start : start + size]
            found = _run(model, batch, metric, name, [sets[i] for i in rows], given)
            values[np.ix_(rows, columns)] = found
    return PatchedSets(values, ends["base"], ends["donor"])


def joint_effects(
    model: Model,
    base_ids: Prompts,
    donor_ids: Prompts,
    metric: Metric,
    sets: Sequence[Collection[PatchCell]],
    *,
    name: str | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> tuple[np.ndarray, np.ndarray]:
    """Effect of patching each set jointly, and the sum of its cells' single effects, both
    [set, pair]. Where they differ the cells work together or in each other's stead (Vig et al.
    2020)."""
    cells = sorted({cell for chosen in sets for cell in chosen}, key=lambda c: c.sort_key)
    found = patch_sets(
        model, base_ids, donor_ids, metric, [*sets, *([c] for c in cells)],
        name=name, batch_tokens=batch_tokens,
    ).effects  # fmt: skip
    singles = found[len(sets) :]
    number = {cell: i for i, cell in enumerate(cells)}
    sums = [singles[[number[cell] for cell in set(chosen)]].sum(axis=0) for chosen in sets]
    return found[: len(sets)], np.stack(sums)


def check_cell(model: Model, cell: PatchCell, length: int) -> None:
    """Raise UserError when the model has no such cell in prompts of at most `length` tokens."""
    model.check_site(cell.site)
    if cell.neuron is not None and cell.site.component != "mlp_act":
        raise UserError(f"{cell.site.component} has no neurons", where=str(cell))
    if cell.position is not None and not 0 <= cell.position < length:
        raise UserError(f"{cell} lies outside prompts of {length} tokens", where="patch")


def _run(
    model: Model,
    batch: PairBatch,
    metric: Metric,
    name: str | None,
    sets: Sequence[Collection[PatchCell]],
    given: dict[State, Tensor],
) -> np.ndarray:
    """Metric values [set, row of the batch]."""
    n_rows = len(batch.pairs)
    changes: dict[State, Change] = {}
    for state in sorted({cell.state for cells in sets for cell in cells}):
        mask = _mask(state, sets, given[state])
        changes[state] = _write(mask.repeat_interleave(n_rows, dim=0), given[state], len(sets))
    run = tapped_pass(model, batch.base.repeat(len(sets), 1), changes=changes)
    values = metric_values(metric, name, run.logits, batch.pairs * len(sets))
    return _array(values).reshape(len(sets), n_rows)


def _mask(state: State, sets: Sequence[Collection[PatchCell]], given: Tensor) -> Tensor:
    """bool [set, position, ...]: what each set replaces of one state; the axis of heads or neurons
    has its length, further axes have length 1."""
    component, _ = state
    shape = list(given.shape)
    if component != "mlp_act":
        shape[-1] = 1
    mask = torch.zeros(len(sets), *shape[1:], dtype=torch.bool)
    for row, cells in enumerate(sets):
        for cell in (c for c in cells if c.state == state):
            place = slice(None) if cell.position is None else cell.position
            unit = cell.site.head if cell.neuron is None else cell.neuron
            if unit is not None and not 0 <= unit < mask.shape[2]:
                raise UserError(f"{cell} does not exist: there are {mask.shape[2]}", where="patch")
            mask[row, place, slice(None) if unit is None else unit] = True
    return mask.to(given.device)


def _write(mask: Tensor, given: Tensor, times: int) -> Change:
    def change(state: Tensor) -> Tensor:
        values = given.repeat(times, *[1] * (given.ndim - 1))
        return torch.where(mask, values.to(state), state)

    return change


def _given(state: State, donor: Tensor, replacement: str, means: dict[State, Tensor]) -> Tensor:
    if replacement == "zero":
        return torch.zeros_like(donor)
    return means[state].to(donor).expand_as(donor) if replacement == "mean" else donor


def _means(
    model: Model, prompts: Prompts, states: Iterable[State], batch_tokens: int
) -> dict[State, Tensor]:
    """Mean of each state over all positions of all prompts."""
    states = tuple(states)
    if any(component == "pattern" for component, _ in states):
        raise UserError(
            "attention patterns have no mean over positions",
            where="replacement",
            remedy="use another replacement for patterns",
        )
    sums: dict[State, Tensor] = {}
    for batch in pair_batches(prompts, prompts, batch_tokens=batch_tokens, device=model.device):
        for state, found in tapped_pass(model, batch.base, states).states.items():
            part = found.double().sum(dim=(0, 1))
            sums[state] = sums[state] + part if state in sums else part
    return {state: total / sum(map(len, prompts)) for state, total in sums.items()}


def _fits(cells: Collection[PatchCell], length: int) -> bool:
    return all(cell.position is None or cell.position < length for cell in cells)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


@dataclass(frozen=True)
class PatchCell:
    """What one patch replaces: a site, or one neuron of `mlp_act`, at one position or at all
    (None). A site without a head means all heads."""

    site: Site
    position: int | None = None
    neuron: int | None = None

    @property
    def state(self) -> State:
        return self.site.component, self.site.layer

    @property
    def sort_key(self) -> tuple[int, ...]:
        """Orders cells as a forward reaches them."""
        component = COMPONENTS.index(self.site.component)
        parts = (self.site.head, self.neuron, self.position)
        return (self.site.layer, component, *(-1 if part is None else part for part in parts))

    def __str__(self) -> str:
        neuron = "" if self.neuron is None else f".N{self.neuron}"
        return f"{self.site}{neuron}" + ("" if self.position is None else f".P{self.position}")


@dataclass(frozen=True, eq=False)
class PatchedSets:
    """Metric of the patched runs, float64 [set, pair], and of the unpatched ones, [pair]."""

    values: np.ndarray
    base: np.ndarray
    donor: np.ndarray

    @property
    def effects(self) -> np.ndarray:
        """metric(patched) − metric(base), [set, pair]."""
        return self.values - self.base
