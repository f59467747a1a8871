"""How much there is to restore, what passes through which states, and by operator."""

# Indexing a DataFrame has no static type: the columns are those of tables/schemas.py.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from interpflow.config.robustness import RobustnessAnalysis
from interpflow.stats.accuracy import accuracy
from interpflow.stats.effects import mediation_effects, patch_effect_map, total_effect_gate
from interpflow.stats.intervals import mean_interval
from interpflow.stats.multiplicity import adjust
from interpflow.stats.pair_values import PairValues, first_of_pair, pair_values
from interpflow.stats.power import detectable_mean
from interpflow.stats.record import Estimate
from interpflow.studies.robustness.patches.restoration_map import METRIC, PATTERN, RANDOM, flagged
from interpflow.tasks.perturbations.operators import OPERATORS

RESIDUAL = ("embed", "resid_post")
# States whose share of the whole effect is taken apart; the answer's last one carries all of it.
MEDIATOR_SLOTS = ("edited", "later", "answer")
OPERATOR_SLOT = "edited"
ANALYSIS, BY_OPERATOR = "mediation (damaged prompts)", "mediation by operator"


def estimate_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis
) -> Iterator[dict[str, Any]]:
    """Rows of `estimates` from rows of `robustness_pair_effects`."""
    values = pair_values(
        table[table["component"] != PATTERN], "denoise", METRIC, control=RANDOM
    )  # fmt: skip
    for estimate in _total(values, settings):
        yield row_of(name, "all", "all", estimate.to_row())
    residual = table[table["component"].isin(RESIDUAL)]
    if len(residual) == 0:
        return
    yield from _share_rows(name, residual, settings)
    yield from _corner_rows(name, residual, settings)
    yield from _operator_rows(name, residual, settings)


def row_of(
    name: str, factor: str, level: str, record: Mapping[str, Any], analysis: str = ANALYSIS
) -> dict[str, Any]:
    """A result record as a row of `estimates`."""
    return {
        "study": "robustness",
        "model": name,
        "analysis": analysis,
        "factor": factor,
        "level": level,
        **record,
    }


def _total(values: PairValues, settings: RobustnessAnalysis) -> Iterator[Estimate]:
    """The total effect, its gate, and what could have been detected."""
    total = values.clean - values.corrupt
    effect = mean_interval(total, clusters=values.families, quantity="TE", level=settings.level)
    gate = total_effect_gate(total, clusters=values.families, level=settings.level)
    yield effect
    yield Estimate(
        quantity="Fieller g (gate: below 1)",
        estimate=gate.value,
        n_units=effect.n_units,
        flags=() if gate.passed else ("GATE_FAILED",),
    )
    smallest = detectable_mean(float(np.std(total, ddof=1)), len(total))
    yield Estimate(
        quantity="smallest detectable TE (80 % power)", estimate=smallest, n_units=len(total)
    )


def _share_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis
) -> Iterator[dict[str, Any]]:
    """The share of damaged prompts whose right token is the likeliest again, by place."""
    values = pair_values(table, "denoise", "margin")
    for i, (_, layer, _, slot) in enumerate(values.cells):
        present = np.isfinite(values.patched[:, i])
        clusters = None if values.families is None else values.families[present]
        share = accuracy(values.patched[present, i] > 0, clusters=clusters, level=settings.level)
        record = flagged(share.strict.renamed("right token wins again"), values, i)
        yield row_of(name, f"residual at {slot}", f"layer {layer}", record.to_row())


def _corner_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis
) -> Iterator[dict[str, Any]]:
    """Total, direct and indirect effects (prompt × state: perturbed or clean) by layer, Holm over
    the layers of a slot."""
    denoise, noise = (pair_values(table, way, METRIC) for way in ("denoise", "noise"))
    for slot in MEDIATOR_SLOTS:
        cells = [cell for cell in denoise.cells if cell[3] == slot and cell in noise.cells]
        found: dict[str, list[Estimate]] = {}
        for cell in cells:
            i, j = denoise.cells.index(cell), noise.cells.index(cell)
            corners = mediation_effects(
                denoise.corrupt, denoise.clean, noise.patched[:, j], denoise.patched[:, i],
                clusters=denoise.families, level=settings.level,
            )  # fmt: skip
            for estimate in corners.estimates():
                record = flagged(estimate, denoise, i)
                found.setdefault(estimate.quantity, []).append(record)
        for quantity, estimates in found.items():
            family = f"{quantity}, residual at {slot}, all layers"
            for cell, estimate in zip(cells, adjust(estimates, method="holm", family=family)):
                yield row_of(name, f"residual at {slot}", f"layer {cell[1]}", estimate.to_row())


def _operator_rows(
    name: str, table: pd.DataFrame, settings: RobustnessAnalysis
) -> Iterator[dict[str, Any]]:
    """Restoration by the edited words' states for each operator and family of operators."""
    values = pair_values(table[table["slot"] == OPERATOR_SLOT], "denoise", METRIC)
    operators = first_of_pair(table[table["direction"] == "denoise"]).loc[values.pairs, "operator"]
    families = [_family(operator) for operator in operators]
    for factor, labels in (("operator", operators.to_numpy()), ("family", np.array(families))):
        for label in sorted(set(labels)):
            part = _of(values, labels == label)
            ratios = patch_effect_map(
                part.clean, part.corrupt, part.patched, direction="recovery",
                clusters=part.families, level=settings.level,
            )  # fmt: skip
            for i, (_, layer, _, _) in enumerate(part.cells):
                record = flagged(ratios.estimate(i, _by_layer(layer)), part, i)
                yield row_of(name, factor, label, record.to_row(), BY_OPERATOR)


def _by_layer(layer: int) -> str:
    after = "at the embedding" if layer < 0 else f"after layer {layer}"
    return f"restoration by the edited words {after}"


def _family(operator: str) -> str:
    """Of an operator's name; those of texts from elsewhere say theirs before a colon."""
    known = OPERATORS.get(operator)
    return known.family if known else operator.partition(":")[0]


def _of(values: PairValues, chosen: np.ndarray) -> PairValues:
    return PairValues(
        cells=values.cells,
        pairs=[pair for pair, kept in zip(values.pairs, chosen) if kept],
        families=None if values.families is None else values.families[chosen],
        patched=values.patched[chosen],
        control=None,
        clean=values.clean[chosen],
        corrupt=values.corrupt[chosen],
    )
