"""Statistics of the patched pairs: recovery maps, the four-corner decomposition, interchange."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interpflow.config.counting import CountingMediation
from interpflow.config.identity import derived_seed
from interpflow.stats.effects import (
    Direction,
    mediation_effects,
    patch_effect_map,
    total_effect_gate,
)
from interpflow.stats.iia import against_placebo, interchange_accuracy
from interpflow.stats.intervals import mean_interval
from interpflow.stats.maxt import MaxTMap, max_t
from interpflow.stats.multiplicity import adjust
from interpflow.stats.pair_values import PairValues, first_of_pair, pair_values
from interpflow.stats.power import detectable_mean
from interpflow.stats.ratios import RatioMap
from interpflow.stats.record import Estimate
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_table, write_table
from interpflow.tables.provenance import Provenance

# Mediators of the layer summary: the last state that the answer is read from, and what each layer
# adds to it; the swapped word's own state and that of the words after it.
MEDIATORS = (
    ("resid_post", "item"),
    ("resid_post", "later_items"),
    ("resid_post", "answer"),
    ("attn_out", "answer"),
    ("mlp_out", "answer"),
)


def estimate_effects(
    name: str,
    effects_path: Path | str,
    gates_path: Path | str,
    settings: CountingMediation,
    seed: int,
    *,
    map_path: Path | str,
    estimates_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `effect_map` and `estimates`; both empty for a refused model."""
    refused = read_document(gates_path, "counting_gates")["status"] == "refused"
    map_rows: list[dict[str, Any]] = []
    estimate_rows: list[dict[str, Any]] = []
    if not refused:
        table = read_table(effects_path, "pair_effects").to_pandas()
        for kind in ("minimal", "random"):
            chosen = table[table["kind"] == kind]
            if len(chosen) == 0:
                continue
            map_rows += list(_map_rows(name, kind, chosen, settings, seed))
            estimate_rows += list(_estimate_rows(name, kind, chosen, settings))
    write_table(map_path, "effect_map", map_rows, provenance)
    write_table(estimates_path, "estimates", estimate_rows, provenance)


def _map_rows(
    name: str, kind: str, table: pd.DataFrame, settings: CountingMediation, seed: int
) -> Iterator[dict[str, Any]]:
    """Recovery (denoising) and damage (noising) of every place, family-wise tested."""
    quantities: tuple[tuple[str, Direction], ...] = (("denoise", "recovery"), ("noise", "damage"))
    for direction, quantity in quantities:
        values = pair_values(table, direction, "logit_difference")
        ratios = patch_effect_map(
            values.clean, values.corrupt, values.patched, direction=quantity,
            clusters=values.families, level=settings.level,
        )  # fmt: skip
        tested = _test_map(values, direction, kind, name, settings, seed)
        yield from _cell_rows(name, kind, direction, quantity, values, ratios, tested)
        if direction == "denoise":
            yield from _divergence_rows(name, kind, table, settings)


def _test_map(
    values: PairValues,
    direction: str,
    kind: str,
    name: str,
    settings: CountingMediation,
    seed: int,
) -> MaxTMap | None:
    """Max-T over all places of the real minus the control donor's effect, in nats.

    Without control donors (random pairs) there is no test: flipping signs of a skewed effect
    that is no difference of exchangeable halves would not hold its level.
    """
    if values.control is None:
        return None
    sign = 1.0 if direction == "denoise" else -1.0
    return max_t(
        sign * (values.patched - values.control),
        clusters=values.families,
        n_resamples=settings.n_permutations,
        seed=derived_seed(seed, name, kind, direction, "max-t"),
        level=settings.level,
    )


def _cell_rows(
    name: str,
    kind: str,
    direction: str,
    quantity: str,
    values: PairValues,
    ratios: RatioMap,
    tested: MaxTMap | None,
) -> Iterator[dict[str, Any]]:
    family = f"{kind} {direction} map"
    for i, (component, layer, head, slot) in enumerate(values.cells):
        place = {
            "model": name,
            "kind": kind,
            "direction": direction,
            "component": component,
            "layer": int(layer),
            "head": int(head),
            "slot": slot,
            "metric": "logit_difference",
        }
        record = ratios.estimate(i, quantity).to_row()
        yield {**place, **record, "sim_low": None, "sim_high": None}
        if tested is not None:
            yield {
                **place,
                **tested.estimate(
                    i, f"{quantity}: contrast with control donor", family=family
                ).to_row(),
                "sim_low": float(tested.simultaneous_low[i]),
                "sim_high": float(tested.simultaneous_high[i]),
            }


def _divergence_rows(
    name: str, kind: str, table: pd.DataFrame, settings: CountingMediation
) -> Iterator[dict[str, Any]]:
    """Recovery of the whole next-token distribution: 1 − ΣKL(patched)/ΣKL(corrupted)."""
    values = pair_values(table, "denoise", "kl")
    ratios = patch_effect_map(
        np.zeros_like(values.corrupt), values.corrupt, values.patched, direction="recovery",
        clusters=values.families, level=settings.level,
    )  # fmt: skip
    for i, (component, layer, head, slot) in enumerate(values.cells):
        yield {
            "model": name,
            "kind": kind,
            "direction": "denoise",
            "component": component,
            "layer": int(layer),
            "head": int(head),
            "slot": slot,
            "metric": "kl",
            **ratios.estimate(i, "KL recovery").to_row(),
            "sim_low": None,
            "sim_high": None,
        }


def _estimate_rows(
    name: str, kind: str, table: pd.DataFrame, settings: CountingMediation
) -> Iterator[dict[str, Any]]:
    """The total effect with its gate, and each layer's decomposition and interchange accuracy."""
    denoise = pair_values(table, "denoise", "logit_difference")
    noise = pair_values(table, "noise", "logit_difference")
    total = denoise.clean - denoise.corrupt

    def row(factor: str, level: str, estimate: Estimate) -> dict[str, Any]:
        return {
            "study": "counting",
            "model": name,
            "analysis": f"mediation ({kind} pairs)",
            "factor": factor,
            "level": level,
            **estimate.to_row(),
        }

    te = mean_interval(total, clusters=denoise.families, quantity="TE", level=settings.level)
    gate = total_effect_gate(total, clusters=denoise.families, level=settings.level)
    yield row("all", "all", te)
    yield row(
        "all", "all", Estimate(quantity="Fieller g (gate: below 1)", estimate=gate.value,
                               n_units=te.n_units, flags=() if gate.passed else ("GATE_FAILED",)),
    )  # fmt: skip
    smallest = detectable_mean(float(np.std(total, ddof=1)), len(total))
    yield row(
        "all", "all", Estimate(quantity="smallest detectable TE (80 % power)", estimate=smallest,
                               n_units=len(total)),
    )  # fmt: skip
    for component, slot in MEDIATORS:
        layers = [cell for cell in denoise.cells if (cell[0], cell[3]) == (component, slot)]
        place = f"{component} at {slot}"
        found: dict[str, list[Estimate]] = {}
        for cell in layers:
            i, j = denoise.cells.index(cell), noise.cells.index(cell)
            corners = mediation_effects(
                denoise.corrupt, denoise.clean, noise.patched[:, j], denoise.patched[:, i],
                clusters=denoise.families, level=settings.level,
            )  # fmt: skip
            for estimate in (*corners.estimates(), *_interchange(table, cell, settings)):
                found.setdefault(estimate.quantity, []).append(estimate)
        for quantity, estimates in found.items():
            # One family per mediator and quantity: all layers are looked at together.
            adjusted = adjust(estimates, method="holm", family=f"{quantity}, {place}, all layers")
            for cell, estimate in zip(layers, adjusted):
                yield row(place, f"layer {cell[1]}", estimate)


def _interchange(
    table: pd.DataFrame, cell: tuple[str, int, int, str], settings: CountingMediation
) -> Iterator[Estimate]:
    """Share of patched runs that answer with the donor list's count (non-trivial pairs), of all
    and of those with both unpatched runs right; p against the control donor on the same pairs."""
    values = pair_values(table, "denoise", "argmax_candidate")
    i = values.cells.index(cell)
    donors_count, base_count = _counts(table, values, "clean"), _counts(table, values, "corrupted")
    both_right = (values.clean == donors_count) & (values.corrupt == base_count)
    found = interchange_accuracy(
        values.patched[:, i], donors_count, values.corrupt, both_right=both_right,
        clusters=values.families, level=settings.level,
    )  # fmt: skip
    accuracy = found.non_trivial.renamed("interchange accuracy")
    if values.control is not None:
        against = against_placebo(
            values.patched[:, i], values.control[:, i], donors_count, values.corrupt,
            clusters=values.families,
        )  # fmt: skip
        accuracy = replace(
            accuracy, p_value=against.p_value, test=f"{against.test} against control"
        )
    else:
        accuracy = replace(accuracy, p_value=float("nan"))
    yield accuracy
    if found.when_right is not None:
        right = found.when_right.renamed("interchange accuracy, both runs right")
        yield replace(right, p_value=float("nan"))


def _counts(table: pd.DataFrame, values: PairValues, side: str) -> np.ndarray:
    """Right answers of the clean or corrupted lists, pair by pair."""
    first = first_of_pair(table[table["direction"] == "denoise"]).loc[values.pairs]
    return first[f"{side}_count"].to_numpy(dtype=float)
