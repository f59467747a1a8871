"""What the runs of agents on altered and unaltered models come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from interpflow.config.identity import derived_seed
from interpflow.stats.intervals import mean_interval, proportion, upper_bound
from interpflow.stats.multiplicity import holm
from interpflow.stats.paired import paired_difference
from interpflow.stats.record import Estimate

Row = Mapping[str, Any]
UNALTERED = "unaltered"
ALL = "all"


def judging_estimates(
    rows: Sequence[Row], *, level: float, n_permutations: int, seed: int
) -> list[dict[str, Any]]:
    """Rows {analysis, factor, level, **estimate} of rows of the table `surgery_judging`.

    analysis "discovery": factor policy, level plant: share of runs in which the anomaly was found,
    with Wilson's interval, which takes runs on one model for independent; level "all": over all
    plants, clustered by model. "advantage": factor "a - b": paired difference of discovery on the
    same model and seed, sign-flip p over models, Holm over pairs of policies; level plant: exact
    McNemar over runs. "false_claims", "claims_true", "placebos", "forecasts": see the functions.
    """
    found = [
        *_discovery(rows, level),
        *_advantages(rows, level, n_permutations, seed),
        *_false_claims(rows, level),
        *_true_claims(rows, level),
        *_placebos(rows, level),
        *_forecasts(rows, level),
    ]
    return [
        {"analysis": analysis, "factor": factor, "level": level_name, **estimate.to_row()}
        for analysis, factor, level_name, estimate in found
    ]


Named = tuple[str, str, str, Estimate]


def _discovery(rows: Sequence[Row], level: float) -> Iterator[Named]:
    for policy in _values(rows, "policy"):
        mine = [row for row in _planted(rows) if row["policy"] == policy]
        for plant in _values(mine, "plant"):
            hits = [bool(row["discovered"]) for row in mine if row["plant"] == plant]
            estimate = proportion(sum(hits), len(hits), quantity="discovery rate", level=level)
            yield "discovery", policy, plant, estimate
        if mine:
            estimate = mean_interval(
                [float(row["discovered"]) for row in mine], clusters=_models(mine),
                quantity="discovery rate", level=level, is_proportion=True,
            )  # fmt: skip
            yield "discovery", policy, ALL, estimate


def _advantages(
    rows: Sequence[Row], level: float, n_permutations: int, seed: int
) -> Iterator[Named]:
    """Policies on the same models and seeds, within the same budget."""
    planted = _planted(rows)
    overall: list[Named] = []
    for first, second in combinations(_values(rows, "policy"), 2):
        name = f"{first} - {second}"
        one, two, models, plants = _pairs(planted, first, second)
        if not one:
            continue
        overall.append((
            "advantage", name, ALL,
            paired_difference(
                one, two, clusters=models, quantity="difference of discovery rates", level=level,
                n_resamples=n_permutations, seed=derived_seed(seed, name), family="advantage",
            ),
        ))  # fmt: skip
        for plant in dict.fromkeys(plants):
            mine = [i for i, each in enumerate(plants) if each == plant]
            estimate = paired_difference(
                [one[i] for i in mine], [two[i] for i in mine],
                quantity="difference of discovery rates", level=level,
            )  # fmt: skip
            yield "advantage", name, plant, estimate
    adjusted = holm([estimate.p_value for *_, estimate in overall]) if overall else ()
    for (analysis, name, plant, estimate), p_adjusted in zip(overall, adjusted):
        yield analysis, name, plant, replace(estimate, p_adjusted=float(p_adjusted))


def _false_claims(rows: Sequence[Row], level: float) -> Iterator[Named]:
    """Share of runs with a confirmed claim that is false. On the unaltered model every claim is
    one; the bound is one-sided at `level`, exact (Clopper & Pearson 1934)."""
    for policy in _values(rows, "policy"):
        for plant in _values(rows, "plant"):
            wrong = [
                row["n_false"] > 0
                for row in rows
                if row["policy"] == policy and row["plant"] == plant
            ]
            if wrong:
                estimate = upper_bound(
                    sum(wrong), len(wrong), quantity="runs with a false claim", level=level
                )
                yield "false_claims", policy, plant, estimate


def _true_claims(rows: Sequence[Row], level: float) -> Iterator[Named]:
    """Share of the confirmed claims on altered models that are true."""
    for policy in _values(rows, "policy"):
        mine = [row for row in _planted(rows) if row["policy"] == policy]
        true = sum(row["n_true"] for row in mine)
        n_claims = true + sum(row["n_false"] for row in mine)
        estimate = proportion(true, n_claims, quantity="true claims", level=level)
        yield "claims_true", policy, ALL, estimate


def _placebos(rows: Sequence[Row], level: float) -> Iterator[Named]:
    """Share of placebo tests that were confirmed: of tests without any effect."""
    for policy in _values(rows, "policy"):
        mine = [row for row in rows if row["policy"] == policy]
        estimate = upper_bound(
            sum(row["placebo_confirmed"] for row in mine), sum(row["n_placebos"] for row in mine),
            quantity="confirmed placebos", level=level,
        )  # fmt: skip
        yield "placebos", policy, ALL, estimate


def _forecasts(rows: Sequence[Row], level: float) -> Iterator[Named]:
    """Brier score of the stated probabilities, and how far below that of the base rate it is."""
    for policy in _values(rows, "policy"):
        mine = [row for row in rows if row["policy"] == policy and row["brier"] is not None]
        brier = np.array([row["brier"] for row in mine], dtype=np.float64)
        base = np.array([row["base_rate_brier"] for row in mine], dtype=np.float64)
        for name, values in (("brier", brier), ("base_rate", base), ("gain", base - brier)):
            estimate = mean_interval(
                values, clusters=_models(mine), quantity=f"Brier score, {name}", level=level
            )
            yield "forecasts", policy, name, estimate


def _pairs(
    rows: Sequence[Row], first: str, second: str
) -> tuple[list[bool], list[bool], list[str], list[str]]:
    """Discovery by the two on the same model and seed; the model and its plant."""
    by_run = {(row["policy"], row["model"], row["seed"]): row for row in rows}
    one, two, models, plants = [], [], [], []
    for row in rows:
        other = by_run.get((second, row["model"], row["seed"]))
        if row["policy"] == first and other is not None:
            one.append(bool(row["discovered"]))
            two.append(bool(other["discovered"]))
            models.append(row["model"])
            plants.append(row["plant"])
    return one, two, models, plants


def _planted(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["plant"] != UNALTERED]


def _models(rows: Sequence[Row]) -> list[str]:
    return [row["model"] for row in rows]


def _values(rows: Iterable[Row], name: str) -> list[str]:
    """In the order in which they come first."""
    return list(dict.fromkeys(row[name] for row in rows))
