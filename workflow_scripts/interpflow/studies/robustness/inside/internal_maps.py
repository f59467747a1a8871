"""Maps over layers and heads: the typo against the matched control edit, family-wise tested.

Places are ranked on the splits discover and develop; all of them, and what was chosen there, are
measured anew on confirm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis
from interpflow.stats.maxt import MaxTMap, max_t
from interpflow.stats.multiplicity import adjust
from interpflow.stats.permutation import sign_flip
from interpflow.studies.robustness.inside.attention_shifts import AttentionShifts
from interpflow.studies.robustness.inside.shifts import Shifts
from interpflow.studies.robustness.inside.stored_prompts import CONTROL, StoredPrompts

FloatArray = NDArray[np.float64]

PARTS = {"explore": ("discover", "develop"), "confirm": ("confirm",)}
TYPO = "typo"  # all operators of that family together
N_CHOSEN_HEADS = 3
# A t test of fewer families says nothing.
MIN_FAMILIES = 3


@dataclass(frozen=True, eq=False)
class Cell:
    """One place of a map, as columns of the table `effect_map`."""

    component: str
    layer: int
    head: int
    slot: str

    @property
    def name(self) -> str:
        head = "" if self.head < 0 else f" head {self.head}"
        layer = "" if self.layer < 0 else f" layer {self.layer}"
        return f"{self.component}{layer}{head} at {self.slot}"


@dataclass(frozen=True, eq=False)
class ContrastMap:
    """A quantity of families [families, cells] whose mean is tested against 0 cell by cell."""

    metric: str
    quantity: str
    cells: tuple[Cell, ...]
    values: FloatArray
    families: NDArray[Any]
    splits: NDArray[Any]

    def of(self, splits: Sequence[str]) -> FloatArray:
        rows = self.values[np.isin(self.splits, splits)]
        return rows[np.isfinite(rows).any(axis=1)]


def shift_maps(
    store: ActivationStore, prompts: StoredPrompts, shifts: Shifts, primary: str
) -> list[ContrastMap]:
    """Shift by typo − shift by the matched control edit, in units of the mean distance to an
    unrelated prompt, for all typo operators together and for the primary one."""
    cells = tuple(
        Cell(store.records[site].component, store.records[site].layer, -1, place)
        for site, place in shifts.cells
    )
    usual = prompts.usual
    control = usual & (prompts.operators == CONTROL)
    maps = []
    for name, chosen in _groups(prompts, primary):
        for metric in ("cosine_distance", "relative_norm"):
            far = shifts.values[f"unrelated_{metric}"][usual & chosen]
            scale = _mean(far)[None, :]
            with np.errstate(invalid="ignore", divide="ignore"):
                values = np.where(scale > 0, shifts.values[metric] / scale, np.nan)
            families, splits, typo = by_family(prompts, values, usual & chosen)
            values = typo - by_family(prompts, values, control, families)[2]
            quantity = f"shift: {name} − control"
            maps.append(ContrastMap(metric, quantity, cells, values, families, splits))
    return maps


def attention_maps(
    prompts: StoredPrompts, found: AttentionShifts, primary: str
) -> list[ContrastMap]:
    """Log lift contrast of edited and control words, layer × head × query."""
    cells = tuple(
        Cell("pattern", layer, head, query)
        for layer, query in found.cells for head in range(found.n_heads)
    )  # fmt: skip
    values = np.full((len(prompts), len(cells)), np.nan)
    values[found.variants] = found.contrast.reshape(len(found.variants), len(cells))
    usual = prompts.usual
    maps = []
    for name, chosen in _groups(prompts, primary):
        families, splits, means = by_family(prompts, values, usual & chosen)
        quantity = f"attention to edited words: {name}"
        maps.append(ContrastMap("log_did", quantity, cells, means, families, splits))
    return maps


def map_rows(
    name: str, one: ContrastMap, settings: RobustnessAnalysis, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of the table `effect_map`, for the exploration splits and for confirm."""
    for part, splits in PARTS.items():
        tested = _tested(name, one, splits, settings, seed)
        if tested is None:
            continue
        for i, cell in enumerate(one.cells):
            record = tested.estimate(i, one.quantity, family=f"{one.quantity}, {one.metric} "
                                     f"({part})")  # fmt: skip
            yield {
                "model": name,
                "kind": "robustness",
                "direction": "",
                "component": cell.component,
                "layer": cell.layer,
                "head": cell.head,
                "slot": cell.slot,
                "metric": one.metric,
                **record.to_row(),
                "sim_low": _number(tested.simultaneous_low[i]),
                "sim_high": _number(tested.simultaneous_high[i]),
            }


def chosen_rows(
    name: str, one: ContrastMap, settings: RobustnessAnalysis, seed: int, n_chosen: int
) -> Iterator[dict[str, Any]]:
    """Rows of the table `estimates`: the places of the largest |t| on the exploration splits, as
    measured on confirm, Holm over them. The embedding, which only says what was edited, is not
    chosen."""
    explored = _tested(name, one, PARTS["explore"], settings, seed)
    confirm = one.of(PARTS["confirm"])
    if explored is None or len(confirm) < MIN_FAMILIES:
        return
    ranked = np.argsort(-explored.t, kind="stable").tolist()
    order = [i for i in ranked if explored.t[i] > 0 and one.cells[i].layer >= 0][:n_chosen]
    found = [
        sign_flip(
            confirm[:, i], quantity=one.quantity, n_resamples=settings.n_permutations,
            seed=derived_seed(seed, name, one.quantity, one.metric, "chosen"),
            level=settings.level,
        )
        for i in order
    ]  # fmt: skip
    family = f"exploratory: {one.quantity}, {one.metric}, chosen places"
    for rank, (i, estimate) in enumerate(zip(order, adjust(found, method="holm", family=family))):
        yield {
            "study": "robustness",
            "model": name,
            "analysis": "chosen on exploration, measured on confirm",
            "factor": f"{one.metric} {rank + 1}",
            "level": one.cells[i].name,
            **estimate.to_row(),
        }


def by_family(
    prompts: StoredPrompts,
    values: FloatArray,
    chosen: NDArray[np.bool_],
    families: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any], FloatArray]:
    """Families (those given, or all of the chosen variants), their splits, and means [families,
    cells] of `values` [variants, cells] over the chosen variants of each, NaN left out."""
    names = np.unique(prompts.families[chosen].astype(str)) if families is None else families
    number = {family: k for k, family in enumerate(names)}
    codes = np.array([number.get(str(family), -1) for family in prompts.families])
    split_of = dict(zip(prompts.families.astype(str), prompts.splits))
    rows = np.flatnonzero(chosen & (codes >= 0))
    rows = rows[np.argsort(codes[rows], kind="stable")]
    found = np.full((len(names), values.shape[1]), np.nan)
    for code, part in zip(*_runs(codes[rows], rows)):
        found[code] = _mean(values[part])
    return names, np.array([split_of[name] for name in names], dtype=object), found


def _groups(prompts: StoredPrompts, primary: str) -> list[tuple[str, NDArray[np.bool_]]]:
    """All typos together, and the primary operator where it is another selection."""
    groups = [(TYPO, prompts.is_typo)]
    of_primary = prompts.operators == primary
    if of_primary.any() and not np.array_equal(of_primary, prompts.is_typo):
        groups.append((primary, of_primary))
    return groups


def _tested(
    name: str,
    one: ContrastMap,
    splits: Sequence[str],
    settings: RobustnessAnalysis,
    seed: int,
) -> MaxTMap | None:
    values = one.of(splits)
    if len(values) < MIN_FAMILIES or not one.cells:
        return None
    return max_t(
        values,
        n_resamples=settings.n_permutations,
        seed=derived_seed(seed, name, one.quantity, one.metric, *splits),
        level=settings.level,
    )


def _runs(codes: NDArray[Any], rows: NDArray[Any]) -> tuple[list[int], list[NDArray[Any]]]:
    """Distinct codes in order, and the rows of each; `codes` sorted."""
    distinct, starts = np.unique(codes, return_index=True)
    return distinct.tolist(), np.split(rows, starts[1:]) if len(rows) else []


def _mean(values: FloatArray) -> FloatArray:
    """Column means without NaN; NaN for a column of nothing else."""
    present = np.isfinite(values)
    count = present.sum(axis=0)
    total = np.where(present, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
