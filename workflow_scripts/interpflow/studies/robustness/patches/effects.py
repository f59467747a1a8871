"""Which states restore the answer to a damaged prompt, and how much: the patches' statistics."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis, RobustnessSettings
from interpflow.stats.effects import patch_effect_map
from interpflow.stats.maxt import max_t
from interpflow.stats.pair_values import PairValues, pair_values
from interpflow.stats.ratios import RatioMap
from interpflow.stats.record import TOO_FEW_CLUSTERS
from interpflow.studies.robustness.costs.endpoints import FAMILY, N_CONFIRMATORY
from interpflow.studies.robustness.patches.restoration_estimates import (
    RESIDUAL,
    estimate_rows,
    row_of,
)
from interpflow.studies.robustness.patches.restoration_map import METRIC, RANDOM, flagged, map_rows
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_table, write_table
from interpflow.tables.provenance import Provenance

EXPLORE, CONFIRM = ("discover", "develop"), ("confirm",)

# The curve that is tested on data it was not chosen on: states of the edited words themselves.
PRIMARY_COMPONENT, PRIMARY_SLOT = "resid_post", "edited"
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

    All empty, with the reason, for a refused model. See `restoration_map` for the quantities of a
    place, `restoration_estimates` for the others.
    """
    gates = read_document(gates_path, "robustness_gates")
    places: list[dict[str, Any]] = []
    estimates: list[dict[str, Any]] = []
    document: dict[str, Any] = {"model": name, "status": gates["status"], "reason": gates["reason"]}
    if gates["status"] == "run":
        table = read_table(effects_path, "robustness_pair_effects").to_pandas()
        places = list(map_rows(name, table, settings.analysis, seed))
        estimates = list(estimate_rows(name, table, settings.analysis))
        document |= _headline(name, table, places, settings.analysis, seed)
        if document["primary"] is not None:
            record = {k: v for k, v in document["primary"].items() if k != "layer"}
            estimates.append(row_of(name, "restoration at the chosen layer", "confirm", record))
    write_table(map_path, "effect_map", places, provenance)
    write_table(estimates_path, "estimates", estimates, provenance)
    document["sentence"] = _sentence(name, document)
    write_document(document_path, "robustness_effects", document, provenance)
    print(document["sentence"])


def _headline(
    name: str,
    table: pd.DataFrame,
    places: Sequence[Mapping[str, Any]],
    settings: RobustnessAnalysis,
    seed: int,
) -> dict[str, Any]:
    """The restoration curves, the heads that restore most, and the confirmatory estimate."""
    restoring = [row for row in places if row["direction"] == "denoise"]
    # In nats against the random donor; what few pairs have is no finding.
    heads = [
        row
        for row in restoring
        if row["component"] == "head_out"
        and row["quantity"] == "recovery: contrast with random donor"
        and row["estimate"] is not None
        and TOO_FEW_CLUSTERS not in row["flags"]
    ]
    return {
        "n_pairs": int(table["pair_id"].nunique()),
        "n_families": int(table["family_id"].nunique()),
        "curves": [
            row
            for row in restoring
            if row["component"] in RESIDUAL and row["quantity"] == "recovery"
        ],
        "heads": sorted(heads, key=lambda row: -row["estimate"])[:TOP_HEADS],
        "primary": _primary(name, table, settings, seed),
    }


def _primary(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis, seed: int
) -> dict[str, Any] | None:
    """Restoration by the edited words' states: the layer chosen on the exploration splits,
    measured on the confirmation split. Its p is adjusted by Bonferroni over the confirmatory
    endpoints, whose other tests are those of the benchmark. None with too few families in a part,
    or where one shows no damage whose share could be taken."""
    chosen = table[
        (table["component"] == PRIMARY_COMPONENT)
        & (table["slot"] == PRIMARY_SLOT)
        & (table["direction"] == "denoise")
    ]
    parts = [chosen[chosen["split"].isin(splits)] for splits in (EXPLORE, CONFIRM)]
    if any(part["family_id"].nunique() < MIN_FAMILIES for part in parts):
        return None
    explored, confirmed = (pair_values(part, "denoise", METRIC, control=RANDOM) for part in parts)
    ratios = _recovery(explored, explored.patched, settings)
    if ratios.undefined.all():
        return None
    cell = explored.cells[int(np.nanargmax(ratios.ratio))]
    i = confirmed.cells.index(cell)
    measured = _recovery(confirmed, confirmed.patched[:, [i]], settings).estimate(
        0, f"restoration by the edited words after layer {cell[1]}"
    )
    if not measured.defined:
        return None
    assert confirmed.control is not None
    tested = max_t(
        (confirmed.patched - confirmed.control)[:, [i]],
        clusters=confirmed.families,
        n_resamples=settings.n_permutations,
        seed=derived_seed(seed, name, "robustness", "primary restoration"),
        level=settings.level,
    ).estimate(0, "")
    record = replace(
        measured,
        p_value=tested.p_value,
        p_adjusted=min(1.0, N_CONFIRMATORY * tested.p_value),
        family=FAMILY,
        test="sign_flip against random donors",
        n_resamples=tested.n_resamples,
        seed=tested.seed,
    )
    return {**flagged(record, confirmed, i).to_row(), "layer": int(cell[1])}


def _recovery(values: PairValues, patched: np.ndarray, settings: RobustnessAnalysis) -> RatioMap:
    return patch_effect_map(
        values.clean, values.corrupt, patched, direction="recovery",
        clusters=values.families, level=settings.level,
    )  # fmt: skip


def _sentence(name: str, document: Mapping[str, Any]) -> str:
    if document["status"] != "run":
        return f"{name}: nothing was patched: {document['reason']}."
    primary = document["primary"]
    if primary is None:
        return (
            f"{name}: {document['n_pairs']} damaged prompts were patched, too few to choose a "
            "layer on one part and confirm it on another."
        )
    n = primary["n_clusters"] or primary["n_units"]
    proof = (
        f"{n} independent prompts, too few for a claim"
        if TOO_FEW_CLUSTERS in primary["flags"]
        else f"adjusted p = {primary['p_adjusted']:.2g} against random directions"
    )
    return (
        f"{name}: of the damage to {primary['n_units']} prompts, {primary['estimate']:.0%} "
        f"({primary['ci_level']:.0%} interval {primary['ci_low']:.0%} to {primary['ci_high']:.0%}) "
        f"is undone by the clean states of the edited words after layer {primary['layer']}, chosen "
        f"on other prompts ({proof})."
    )
