"""Restoration and damage of every patched place, tested against random directions."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis
from interpflow.stats.effects import Direction, patch_effect_map
from interpflow.stats.maxt import max_t
from interpflow.stats.pair_values import PairValues, pair_values
from interpflow.stats.record import MIN_CLUSTERS, TOO_FEW_CLUSTERS, Estimate

METRIC = "logit_difference"
RANDOM = "random"  # the control donor, as the patches name it
PATTERN = "pattern"  # of other pairs than the rest, those of equal length, and without a control
DIRECTIONS: tuple[tuple[str, Direction], ...] = (("denoise", "recovery"), ("noise", "damage"))
Cell = tuple[str, int, int, str]


def map_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of `effect_map` from rows of `robustness_pair_effects`.

    Restoration is a ratio of means over damaged prompts, Σ(patched − perturbed)/Σ(clean −
    perturbed) of the logit difference (denoising), damage Σ(clean − patched)/Σ(clean − perturbed)
    (noising), each with Fieller's interval by family; the contrast with patches as far in a random
    direction is in nats, max-T over a direction's map. KL recovery sees tokens that the logit
    difference does not.
    """
    for direction, quantity in DIRECTIONS:
        here = table[table["direction"] == direction]
        for chosen in (here[here["component"] != PATTERN], here[here["component"] == PATTERN]):
            if len(chosen) == 0:
                continue
            values = pair_values(chosen, direction, METRIC, control=RANDOM)
            yield from _ratio_rows(name, direction, quantity, values, settings)
            if values.control is not None:
                yield from _tested_rows(name, direction, quantity, values, settings, seed)
            if direction == "denoise":
                yield from _divergence_rows(name, chosen, settings)


def enough_families(values: PairValues, cell: int) -> bool:
    """Whether a place was patched in enough independent pairs to support a claim."""
    present = np.isfinite(values.patched[:, cell])
    if values.families is None:
        return int(present.sum()) >= MIN_CLUSTERS
    return len(set(values.families[present])) >= MIN_CLUSTERS


def flagged(record: Estimate, values: PairValues, cell: int) -> Estimate:
    """The record of a place, flagged where too few families have it."""
    few = TOO_FEW_CLUSTERS not in record.flags and not enough_families(values, cell)
    return record.with_flags(TOO_FEW_CLUSTERS) if few else record


def _ratio_rows(
    name: str,
    direction: str,
    quantity: Direction,
    values: PairValues,
    settings: RobustnessAnalysis,
) -> Iterator[dict[str, Any]]:
    ratios = patch_effect_map(
        values.clean, values.corrupt, values.patched, direction=quantity,
        clusters=values.families, level=settings.level,
    )  # fmt: skip
    for i, cell in enumerate(values.cells):
        record = flagged(ratios.estimate(i, quantity), values, i)
        yield {**_place(name, direction, cell, METRIC), **record.to_row(), **_SIMULTANEOUS}


def _tested_rows(
    name: str,
    direction: str,
    quantity: Direction,
    values: PairValues,
    settings: RobustnessAnalysis,
    seed: int,
) -> Iterator[dict[str, Any]]:
    sign = 1.0 if direction == "denoise" else -1.0
    assert values.control is not None
    tested = max_t(
        sign * (values.patched - values.control),
        clusters=values.families,
        n_resamples=settings.n_permutations,
        seed=derived_seed(seed, name, "robustness", direction, "max-t"),
        level=settings.level,
    )
    for i, cell in enumerate(values.cells):
        record = tested.estimate(
            i, f"{quantity}: contrast with random donor", family=f"{direction} map"
        )
        yield {
            **_place(name, direction, cell, METRIC),
            **flagged(record, values, i).to_row(),
            "sim_low": _finite(tested.simultaneous_low[i]),
            "sim_high": _finite(tested.simultaneous_high[i]),
        }


def _divergence_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis
) -> Iterator[dict[str, Any]]:
    """1 − ΣKL(clean‖patched)/ΣKL(clean‖perturbed) of the next token, over the vocabulary."""
    values = pair_values(table, "denoise", "kl")
    ratios = patch_effect_map(
        np.zeros_like(values.corrupt), values.corrupt, values.patched, direction="recovery",
        clusters=values.families, level=settings.level,
    )  # fmt: skip
    for i, cell in enumerate(values.cells):
        record = flagged(ratios.estimate(i, "KL recovery"), values, i)
        yield {**_place(name, "denoise", cell, "kl"), **record.to_row(), **_SIMULTANEOUS}


_SIMULTANEOUS = {"sim_low": None, "sim_high": None}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _place(name: str, direction: str, cell: Cell, metric: str) -> dict[str, Any]:
    component, layer, head, slot = cell
    return {
        "model": name,
        "kind": "robustness",
        "direction": direction,
        "component": component,
        "layer": int(layer),
        "head": int(head),
        "slot": slot,
        "metric": metric,
    }
