"""Summaries of the shift by operator: its size, the similarity of whole populations, the next
token by depth, and (observational) how far the loss of accuracy goes along with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from interpflow.activations.store import ActivationStore
from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessAnalysis
from interpflow.stats.intervals import mean_interval
from interpflow.stats.ratios import ratio_of_means_map
from interpflow.stats.record import Estimate
from interpflow.stats.representation import MIN_ROWS, cka_estimate
from interpflow.stats.shift_mediation import ShiftMediation, shift_mediation
from interpflow.studies.robustness.inside.aligned_words import ANSWER, UNEDITED, PlacePairs
from interpflow.studies.robustness.inside.shifts import Shifts
from interpflow.studies.robustness.inside.stored_prompts import NULL, StoredPrompts, mean_states

# Enough for intervals of what is exploratory.
MOST_RESAMPLES = 999
MEASURE = "cosine_distance"


def shift_estimates(
    name: str,
    store: ActivationStore,
    prompts: StoredPrompts,
    shifts: Shifts,
    level: float,
) -> Iterator[dict[str, Any]]:
    """Mean distance over mean distance to an unrelated prompt (0 no shift, 1 as far as that), and
    the mean KL of the next token by depth; by operator at the usual number of edits."""
    usual = prompts.usual
    for operator in _operators(prompts):
        chosen = usual & (prompts.operators == operator)
        if chosen.sum() < 2:
            continue
        families = prompts.families[chosen].astype(str)
        if operator != NULL:  # exactly 0, which is a gate
            ratios = ratio_of_means_map(
                shifts.values[MEASURE][chosen], shifts.values[f"unrelated_{MEASURE}"][chosen],
                clusters=families, level=level,
            )  # fmt: skip
            for cell in np.flatnonzero(ratios.n_units > 0):
                estimate = ratios.estimate(int(cell), "cosine distance ÷ that to another prompt")
                yield _row(name, "representation shift", operator,
                           place_name(store, shifts, int(cell)), estimate)  # fmt: skip
        for cell in np.flatnonzero(np.isfinite(shifts.kl).any(axis=0)):
            estimate = mean_interval(
                shifts.kl[chosen, cell], clusters=families, quantity="KL of the next token (nats)",
                level=level,
            )  # fmt: skip
            yield _row(name, "next token by depth", operator,
                       place_name(store, shifts, int(cell)), estimate)  # fmt: skip


def similarity_estimates(
    name: str,
    store: ActivationStore,
    prompts: StoredPrompts,
    places: Sequence[PlacePairs],
    level: float,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Debiased CKA of clean and perturbed prompts at the answer and over the untouched words, one
    variant of each prompt per operator."""
    usual = prompts.usual
    sites = [s for s in store.sites if store.records[s].component in ("embed", "resid_post")]
    for pairs in places:
        if pairs.place not in (ANSWER, UNEDITED):
            continue
        for site in sites:
            changed, clean = (
                mean_states(store, site, rows, pairs.variants, len(prompts))
                for rows in (pairs.changed, pairs.clean)
            )
            known = np.isfinite(changed).all(axis=1)
            record = store.records[site]
            for operator in _operators(prompts):
                if operator == NULL:
                    continue
                chosen = usual & known & (prompts.operators == operator)
                rows = _one_each(prompts, np.flatnonzero(chosen))
                if len(rows) < MIN_ROWS:
                    continue
                estimate = cka_estimate(
                    clean[rows], changed[rows], clusters=prompts.families[rows].astype(str),
                    level=level, seed=derived_seed(seed, name, "cka", site, operator),
                )  # fmt: skip
                where = _place(record.component, record.layer, pairs.place)
                yield _row(name, "similarity of representations", operator, where, estimate)


def mediation_estimates(
    name: str,
    store: ActivationStore,
    prompts: StoredPrompts,
    shifts: Shifts,
    settings: RobustnessAnalysis,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Loss of accuracy by typos, split into what goes along with the residual's shift and the
    rest; rows are each prompt as it is (shift 0) and its accepted typo variants. Observational:
    the shift is not randomised."""
    chosen = np.flatnonzero(prompts.is_typo & prompts.accepted)
    if len(chosen) == 0:
        return
    clean = {row["example_id"]: row for row in (prompts.cleans[i] for i in chosen)}
    bases = [*(row["base_id"] for row in clean.values()), *prompts.column("base_id")[chosen]]
    families = [*(row["family_id"] for row in clean.values()), *prompts.families[chosen]]
    right = [*map(prompts.correct, clean),
             *(prompts.correct(prompts.examples[i]["example_id"]) for i in chosen)]  # fmt: skip
    treated = np.r_[np.zeros(len(clean)), np.ones(len(chosen))]
    found: list[tuple[str, ShiftMediation]] = []
    for cell, (site, _) in enumerate(shifts.cells):
        if store.records[site].component != "resid_post":
            continue
        shift = np.r_[np.zeros(len(clean)), shifts.values[MEASURE][chosen, cell]]
        mediated = shift_mediation(
            treated, shift, right, bases, clusters=families, level=settings.level,
            n_resamples=min(settings.n_resamples, MOST_RESAMPLES),
            seed=derived_seed(seed, name, "shift mediation"),
        )  # fmt: skip
        found.append((place_name(store, shifts, cell), mediated))
    for place, mediated in found:
        for estimate in mediated.estimates():
            yield _row(name, "accuracy loss along with the shift (observational)", "typo", place,
                       estimate)  # fmt: skip


def place_name(store: ActivationStore, shifts: Shifts, cell: int) -> str:
    site, place = shifts.cells[cell]
    return _place(store.records[site].component, store.records[site].layer, place)


def _place(component: str, layer: int, place: str) -> str:
    return f"{component} at {place}" if layer < 0 else f"{component} layer {layer} at {place}"


def _operators(prompts: StoredPrompts) -> list[str]:
    return sorted(set(prompts.operators.tolist()))


def _one_each(prompts: StoredPrompts, rows: np.ndarray) -> np.ndarray:
    """The first row of each base item."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(prompts.examples[row]["base_id"], int(row))
    return np.array(sorted(first.values()), dtype=np.intp)


def _row(name: str, analysis: str, factor: str, level: str, estimate: Estimate) -> dict[str, Any]:
    family = estimate.family or f"exploratory: {analysis}"
    return {
        "study": "robustness",
        "model": name,
        "analysis": analysis,
        "factor": factor,
        "level": level,
        **estimate.to_row(),
        "family": family,
    }
