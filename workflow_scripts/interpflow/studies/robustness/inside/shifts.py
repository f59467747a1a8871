"""How far each variant's states are from the clean prompt's, site by site and place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from interpflow.activations.store import ActivationStore
from interpflow.stats.representation import cosine_distance, relative_norm
from interpflow.studies.robustness.inside.aligned_words import PlacePairs
from interpflow.studies.robustness.inside.stored_prompts import (
    BLOCK,
    NULL,
    StoredPrompts,
    mean_states,
)

FloatArray = NDArray[np.float64]

# Vectors of the residual stream and what is added to it. Neurons have a map of their own.
COMPONENTS = ("embed", "resid_post", "attn_out", "mlp_out", "head_out")
MEASURES = (
    "cosine_distance",
    "relative_norm",
    "unrelated_cosine_distance",
    "unrelated_relative_norm",
)


@dataclass(frozen=True, eq=False)
class Shifts:
    """Distances by `cells` (site, place): each measure of `values` is [variants, cells], NaN where
    a variant has no such place. `kl` [variants, cells] in nats, NaN but at the answer."""

    cells: tuple[tuple[str, str], ...]
    values: dict[str, FloatArray]
    kl: FloatArray


def measure_shifts(store: ActivationStore, n: int, places: Sequence[PlacePairs]) -> Shifts:
    """Distances of `n` variants at every site that holds one vector per token."""
    sites = [s for s in store.sites if store.records[s].component in COMPONENTS]
    cells = tuple((site, pairs.place) for site in sites for pairs in places)
    columns = [_distances(store, site, n, pairs) for site in sites for pairs in places]
    values = {name: np.column_stack([c[name] for c in columns] or [np.empty((n, 0))])
              for name in MEASURES}  # fmt: skip
    return Shifts(cells, values, np.full((n, len(cells)), np.nan))


def null_violations(prompts: StoredPrompts, shifts: Shifts) -> int:
    """How many numbers of the null operator, which changes nothing, are not exactly 0."""
    null = prompts.operators == NULL
    compared = [shifts.values["cosine_distance"], shifts.values["relative_norm"], shifts.kl]
    return sum(int(np.sum(np.nan_to_num(part[null], nan=0.0) != 0)) for part in compared)


def shift_table(prompts: StoredPrompts, shifts: Shifts, store: ActivationStore) -> pa.Table:
    """The table `robustness_shifts`: one row per variant and cell that exists."""
    kept, cell = np.nonzero(np.isfinite(shifts.values["cosine_distance"]))
    records = [store.records[site] for site, _ in shifts.cells]
    per_variant = {
        name: prompts.column(name)[kept].tolist()
        for name in ("example_id", "base_id", "family_id", "split", "operator", "n_edits")
    }
    per_cell = {
        "component": [record.component for record in records],
        "layer": [record.layer for record in records],
        "head": [-1] * len(records),
        "place": [place for _, place in shifts.cells],
    }
    columns: dict[str, Any] = per_variant | {
        name: np.array(values, dtype=object)[cell].tolist() for name, values in per_cell.items()
    }
    for name, values in (*shifts.values.items(), ("kl", shifts.kl)):
        columns[name] = pa.array(values[kept, cell], from_pandas=True)
    return pa.table(columns)


def _distances(
    store: ActivationStore, site: str, n: int, pairs: PlacePairs
) -> dict[str, FloatArray]:
    """Measure → [variants]; both states and the unrelated one without the mean of the clean
    prompts' states at this place, which all prompts share."""
    found = {name: np.full(n, np.nan) for name in MEASURES}
    if len(pairs.variants) == 0:
        return found
    clean_rows = np.unique(pairs.clean)
    one_group = np.zeros(len(clean_rows), dtype=np.intp)
    centre = mean_states(store, site, clean_rows, one_group, 1)[0].astype(np.float64)
    if pairs.pooled:
        far = pairs.unrelated >= 0
        states = [
            mean_states(store, site, rows, groups, n)
            for rows, groups in (
                (pairs.changed, pairs.variants),
                (pairs.clean, pairs.variants),
                (pairs.unrelated[far], pairs.variants[far]),
            )
        ]
        return _compare(states, centre)
    totals = {name: np.zeros(n) for name in MEASURES}
    counts = {name: np.zeros(n) for name in MEASURES}
    step = max(1, BLOCK // (3 * store.records[site].width))
    for start in range(0, len(pairs.variants), step):
        here = slice(start, start + step)
        far = pairs.unrelated[here]
        states = [store.matrix(site, rows) for rows in (pairs.changed[here], pairs.clean[here])]
        states.append(store.matrix(site, np.maximum(far, 0)))
        states[2][far < 0] = np.nan
        for name, values in _compare(states, centre).items():
            kept = np.isfinite(values)
            number = pairs.variants[here][kept]
            totals[name] += np.bincount(number, values[kept], minlength=n)
            counts[name] += np.bincount(number, minlength=n)
    return {
        name: np.divide(totals[name], counts[name], out=found[name], where=counts[name] > 0)
        for name in MEASURES
    }


def _compare(states: Sequence[NDArray[Any]], centre: FloatArray) -> dict[str, FloatArray]:
    """Measures [rows] of (changed, clean, unrelated) states [rows, width]."""
    changed, clean, unrelated = (part.astype(np.float64) - centre for part in states)
    # Equal states are at distance 0, also where all prompts share one (a template's last token).
    same, same_far = ((states[k] == states[1]).all(axis=1) for k in (0, 2))
    return {
        "cosine_distance": np.where(same, 0.0, cosine_distance(changed, clean)),
        "relative_norm": np.where(same, 0.0, relative_norm(changed, clean)),
        "unrelated_cosine_distance": np.where(same_far, 0.0, cosine_distance(unrelated, clean)),
        "unrelated_relative_norm": np.where(same_far, 0.0, relative_norm(unrelated, clean)),
    }
