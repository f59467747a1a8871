"""The study's confirmatory endpoints, named before the data are seen; Holm over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.stats.layer_orders import distance_correlation
from interpflow.stats.multiplicity import adjust
from interpflow.stats.paired_contrasts import mean_over
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined
from interpflow.stats.unpaired import unpaired_difference
from interpflow.stats.verdicts import Directed, judge
from interpflow.studies.layer_surgery.effects.outcomes import Outcomes
from interpflow.studies.layer_surgery.estimate_rows import Analyst, FloatArray, Row

ENDPOINTS = "endpoints"
P1, P2, P3 = "P1 loss change", "P2 order distance", "P3 exit depth"
# Classes of plans of P1. Each document's loss change is the mean over the plans of the class.
CLASSES = ("skip_each", "repeat", "swap")
# Two kinds of tasks, from the original notes: form is said to be settled before sums are.
FORMATTING, ARITHMETIC = ("json", "code", "phrases"), ("addition", "addition_three")
LENS = "tuned"


def endpoint_rows(analyst: Analyst, outcomes: Outcomes, exits: Sequence[Row]) -> list[Row]:
    """P1: each class of plans costs more than the smallest effect that matters (one-sided t over
    documents). P2: damage of random orders goes with their distance, given which ends moved
    (permutation of plans). P3: depth at which answers are settled, formatting against arithmetic
    (permutation of item families)."""
    tests = [(P1, family, _loss_change(analyst, outcomes, family)) for family in CLASSES]
    tests.append((P2, "given moved ends", _distance(analyst, outcomes)))
    tests.append((P3, "arithmetic − formatting", _exit_contrast(analyst, outcomes, exits)))
    found = adjust([estimate for _, _, estimate in tests], method="holm", family=ENDPOINTS)
    return [
        analyst.row(ENDPOINTS, name, level, estimate)
        for (name, level, _), estimate in zip(tests, found, strict=True)
    ]


def _loss_change(analyst: Analyst, outcomes: Outcomes, family: str) -> Estimate:
    plans = [row["plan"] for row in outcomes.plans.of_family(family)]
    quantity = "mean loss change"
    if not plans:
        return undefined(quantity, EMPTY_CELL)
    smallest = analyst.settings.smallest_effect
    by_document = mean_over(outcomes.losses.delta(plans).T)
    return judge(
        by_document, Directed(1, smallest), 0.05, quantity=quantity, level=analyst.settings.level
    ).estimate


def _distance(analyst: Analyst, outcomes: Outcomes) -> Estimate:
    orders = outcomes.plans.of_role("random_order")
    quantity = "rank correlation of distance and loss change"
    if not orders:
        return undefined(quantity, EMPTY_CELL)
    damage = outcomes.losses.delta(row["plan"] for row in orders)
    return distance_correlation(
        [row["distance"] for row in orders],
        damage[:, np.isfinite(damage).all(axis=0)],
        strata=[f"{row['moves_first']}{row['moves_last']}" for row in orders],
        n_permutations=analyst.settings.n_permutations,
        n_resamples=analyst.settings.n_resamples,
        seed=analyst.seed_of(ENDPOINTS, P2),
        level=analyst.settings.level,
        quantity=quantity,
    )


def _exit_contrast(analyst: Analyst, outcomes: Outcomes, exits: Sequence[Row]) -> Estimate:
    def group(tasks: Sequence[str]) -> tuple[FloatArray, NDArray[Any]]:
        rows = [
            row
            for row in exits
            if row["lens"] == LENS
            and row["task"] in tasks
            and row["task"] in outcomes.tasks
            and row["example_id"] in outcomes.items
            and row["stable_depth"] is not None
        ]
        return (
            np.array([row["stable_depth"] for row in rows], dtype=np.float64),
            np.array([row["family_id"] for row in rows]),
        )

    arithmetic, sums = group(ARITHMETIC)
    formatting, forms = group(FORMATTING)
    return unpaired_difference(
        arithmetic, formatting, first_clusters=sums, second_clusters=forms,
        quantity="difference in exit depth, blocks", level=analyst.settings.level,
        n_resamples=analyst.settings.n_permutations, seed=analyst.seed_of(ENDPOINTS, P3),
    )  # fmt: skip
