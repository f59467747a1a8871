"""Which states restore the answer to a damaged prompt, and how much: the patches' statistics."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis, RobustnessSettings
from interpflow.stats.accuracy import accuracy
from interpflow.stats.effects import Direction, patch_effect_map, total_effect_gate
from interpflow.stats.intervals import mean_interval
from interpflow.stats.maxt import max_t
from interpflow.stats.pair_values import PairValues, pair_values
from interpflow.stats.power import detectable_mean
from interpflow.stats.record import Estimate
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_table, write_table
from interpflow.tables.provenance import Provenance

METRIC = "logit_difference"
RANDOM = "random"
EXPLORE, CONFIRM = ("discover", "develop"), ("confirm",)

# The curve that is tested on data it was not chosen on: states of the edited words themselves.
PRIMARY_COMPONENT, PRIMARY_SLOT = "resid_post", "edited"
DIRECTIONS: tuple[tuple[str, Direction], ...] = (("denoise", "recovery"), ("noise", "damage"))
MIN_FAMILIES = 4  # fewer in a part of the data choose or confirm nothing
TOP_HEADS = 5


def estimate_effects(
    name: str,
    settings: RobustnessSettings,
    seed: int,
    *,
    effects_path: Path | str,
    gates_path: Path | str,
    map_path: Path | str,
    estimates_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `effect_map` and `estimates` and the document `robustness_effects`.

    All empty, with the reason, for a refused model. Restoration is a ratio of means over damaged
    prompts, Σ(patched − perturbed)/Σ(clean − perturbed) of the logit difference, with Fieller's
    interval by family; tests compare with patches as far in a random direction (max-T over a
    direction's map).
    """
    gates = read_document(gates_path, "robustness_gates")
    map_rows: list[dict[str, Any]] = []
    estimates: list[dict[str, Any]] = []
    document: dict[str, Any] = {"model": name, "status": gates["status"], "reason": gates["reason"]}
    if gates["status"] == "run":
        table = read_table(effects_path, "robustness_pair_effects").to_pandas()
        chosen = table[table["component"] != "pattern"]
        for direction, quantity in DIRECTIONS:
            map_rows += _map_rows(name, chosen, direction, quantity, settings.analysis, seed)
            patterns = table[(table["component"] == "pattern") & (table["direction"] == direction)]
            if len(patterns):
                map_rows += _ratio_rows(
                    name, direction, quantity, pair_values(patterns, direction, METRIC),
                    settings.analysis,
                )  # fmt: skip
        estimates += _overall_rows(name, chosen, settings.analysis)
        document |= _headline(name, chosen, map_rows, settings.analysis, seed)
        if document["primary"] is not None:
            record = {k: v for k, v in document["primary"].items() if k != "layer"}
            estimates.append(
                _estimate_row(name, "restoration at the chosen layer", "confirm", record)
            )
    write_table(map_path, "effect_map", map_rows, provenance)
    write_table(estimates_path, "estimates", estimates, provenance)
    document["sentence"] = _sentence(name, document)
    write_document(document_path, "robustness_effects", document, provenance)
    print(document["sentence"])


def _map_rows(
    name: str,
    table: pd.DataFrame,
    direction: str,
    quantity: Direction,
    settings: RobustnessAnalysis,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Restoration (denoising) or damage (noising) of every place, tested against random donors."""
    values = pair_values(table, direction, METRIC, control=RANDOM)
    yield from _ratio_rows(name, direction, quantity, values, settings)
    if values.control is None:
        return
    sign = 1.0 if direction == "denoise" else -1.0
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
            **_place(name, direction, cell),
            **record.to_row(),
            "sim_low": float(tested.simultaneous_low[i]),
            "sim_high": float(tested.simultaneous_high[i]),
        }


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
        record = ratios.estimate(i, quantity).to_row()
        yield {**_place(name, direction, cell), **record, "sim_low": None, "sim_high": None}


def _place(name: str, direction: str, cell: tuple[str, int, int, str]) -> dict[str, Any]:
    component, layer, head, slot = cell
    return {
        "model": name,
        "kind": "robustness",
        "direction": direction,
        "component": component,
        "layer": int(layer),
        "head": int(head),
        "slot": slot,
        "metric": METRIC,
    }


def _overall_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis
) -> Iterator[dict[str, Any]]:
    """The total effect with its gate and what could have been detected, and the share of damaged
    prompts whose right token wins again when a place is patched."""
    values = pair_values(table, "denoise", METRIC, control=RANDOM)
    total = values.clean - values.corrupt
    effect = mean_interval(total, clusters=values.families, quantity="TE", level=settings.level)
    gate = total_effect_gate(total, clusters=values.families, level=settings.level)
    smallest = detectable_mean(float(np.std(total, ddof=1)), len(total))
    flags = () if gate.passed else ("GATE_FAILED",)
    for estimate in (
        effect,
        Estimate(quantity="Fieller g (gate: below 1)", estimate=gate.value,
                 n_units=effect.n_units, flags=flags),
        Estimate(quantity="smallest detectable TE (80 % power)", estimate=smallest,
                 n_units=len(total)),
    ):  # fmt: skip
        yield _estimate_row(name, "all", "all", estimate.to_row())
    for i, (component, layer, head, slot) in enumerate(values.cells):
        if head >= 0 or component not in ("embed", "resid_post"):
            continue
        present = np.isfinite(values.patched[:, i])
        if not present.any():
            continue
        clusters = None if values.families is None else values.families[present]
        share = accuracy(values.patched[present, i] > 0, clusters=clusters, level=settings.level)
        record = share.strict.renamed("right token wins again").to_row()
        yield _estimate_row(name, f"residual at {slot}", f"layer {layer}", record)


def _estimate_row(name: str, factor: str, level: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "study": "robustness",
        "model": name,
        "analysis": "mediation (damaged prompts)",
        "factor": factor,
        "level": level,
        **record,
    }


def _headline(
    name: str,
    table: pd.DataFrame,
    map_rows: Sequence[Mapping[str, Any]],
    settings: RobustnessAnalysis,
    seed: int,
) -> dict[str, Any]:
    """The restoration curves, the heads that restore most, and the confirmatory estimate."""
    restored = [
        row for row in map_rows if row["direction"] == "denoise" and row["quantity"] == "recovery"
    ]
    heads = [
        row
        for row in map_rows
        if row["direction"] == "denoise"
        and row["component"] == "head_out"
        and row["quantity"] != "recovery"
    ]
    ranked = sorted(heads, key=lambda row: -(row["estimate"] or 0.0))
    primary = _primary(name, table, settings, seed)
    return {
        "n_pairs": int(table["pair_id"].nunique()),
        "n_families": int(table["family_id"].nunique()),
        "curves": [row for row in restored if row["component"] in ("embed", "resid_post")],
        "heads": ranked[:TOP_HEADS],
        "primary": primary,
    }


def _primary(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis, seed: int
) -> dict[str, Any] | None:
    """Restoration by the edited words' states: the layer chosen on the exploration splits,
    measured on the confirmation split. None with too few families in a part."""
    chosen = table[
        (table["component"] == PRIMARY_COMPONENT)
        & (table["slot"] == PRIMARY_SLOT)
        & (table["direction"] == "denoise")
    ]
    parts = [chosen[chosen["split"].isin(splits)] for splits in (EXPLORE, CONFIRM)]
    if any(part["family_id"].nunique() < MIN_FAMILIES for part in parts):
        return None
    explored, confirmed = (pair_values(part, "denoise", METRIC, control=RANDOM) for part in parts)
    ratios = patch_effect_map(
        explored.clean, explored.corrupt, explored.patched, direction="recovery",
        clusters=explored.families, level=settings.level,
    )  # fmt: skip
    cell = explored.cells[int(np.nanargmax(ratios.ratio))]
    i = confirmed.cells.index(cell)
    measured = patch_effect_map(
        confirmed.clean, confirmed.corrupt, confirmed.patched[:, [i]], direction="recovery",
        clusters=confirmed.families, level=settings.level,
    ).estimate(0, f"restoration by the edited words after layer {cell[1]}")  # fmt: skip
    assert confirmed.control is not None
    tested = max_t(
        (confirmed.patched - confirmed.control)[:, [i]],
        clusters=confirmed.families,
        n_resamples=settings.n_permutations,
        seed=derived_seed(seed, name, "robustness", "primary restoration"),
        level=settings.level,
    ).estimate(0, "")
    record = replace(measured, p_value=tested.p_value, test="sign_flip against random donors")
    return {**record.to_row(), "layer": int(cell[1])}


def _sentence(name: str, document: Mapping[str, Any]) -> str:
    if document["status"] != "run":
        return f"{name}: nothing was patched: {document['reason']}."
    primary = document["primary"]
    if primary is None:
        return (
            f"{name}: {document['n_pairs']} damaged prompts were patched, too few to choose a "
            "layer on one part and confirm it on another."
        )
    return (
        f"{name}: of the damage of {document['n_pairs']} prompts, {primary['estimate']:.0%} "
        f"({primary['ci_level']:.0%} interval {primary['ci_low']:.0%} to {primary['ci_high']:.0%}) "
        f"is undone by the clean states of the edited words after layer {primary['layer']}, chosen "
        f"on other prompts (p = {primary['p_value']:.2g} against random directions)."
    )
