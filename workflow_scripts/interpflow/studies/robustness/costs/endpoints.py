"""The questions named before the data were seen, each with its one test."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from interpflow.config.identity import derived_seed
from interpflow.config.robustness import RobustnessSettings
from interpflow.stats.equivalence import mean_equivalence
from interpflow.stats.multiplicity import holm
from interpflow.stats.permutation import sign_flip
from interpflow.stats.record import EMPTY_CELL, Estimate, undefined
from interpflow.stats.signed_ranks import hodges_lehmann
from interpflow.studies.robustness.costs.estimate_rows import Analyst
from interpflow.studies.robustness.costs.outcomes import (
    FloatArray,
    Outcomes,
    reference_conditions,
)
from interpflow.studies.robustness.costs.reward_changes import family_means

# Accuracy loss, equivalence and reward are tested here; the recovery by patching, in its own stage,
# is the fourth. It is counted with p = 1, so that these three hold whatever it comes to, and has
# Bonferroni's p there: it holds whatever these come to.
N_CONFIRMATORY = 4
FAMILY = "confirmatory"
# The view in which a reward model sees the same question before both answers.
PRIMARY_VIEW = "clean"


@dataclass(frozen=True)
class Endpoint:
    """One confirmatory question: what it is about, and its record."""

    name: str
    about: str
    estimate: Estimate

    def to_row(self) -> dict[str, Any]:
        return {"name": self.name, "about": self.about, **self.estimate.to_row()}


def doses_of_primary(outcomes: Outcomes, settings: RobustnessSettings) -> tuple[int, int] | None:
    """Conditions of the primary operator at its lowest and middle dose (the lower of two middle
    ones); None where it was not applied."""
    reference = reference_conditions(outcomes.conditions)
    places = reference.get(settings.analysis.primary)
    if not places:
        return None
    placement = outcomes.conditions[places[0]].placement
    steps = [
        i
        for i, condition in enumerate(outcomes.conditions)
        if condition.operator == settings.analysis.primary and condition.placement == placement
    ]
    for kind in ("n_edits", "rate", "strength"):
        ladder = [i for i in steps if getattr(outcomes.conditions[i], kind) is not None]
        if ladder:
            ladder.sort(key=lambda i: getattr(outcomes.conditions[i], kind))
            return ladder[0], ladder[(len(ladder) - 1) // 2]
    return places[0], places[0]


def endpoints(
    analyst: Analyst,
    outcomes: Outcomes,
    settings: RobustnessSettings,
    reward: tuple[str, FloatArray, FloatArray] | None,
) -> list[Endpoint]:
    """Loss of accuracy, equivalence and change of reward, with p adjusted by Holm over four.

    `reward`: name of the reward model, its scores [rows] and those of the clean prompts [bases].
    """
    doses = doses_of_primary(outcomes, settings)
    primary, bound = settings.analysis.primary, settings.analysis.equivalence
    lowest = middle = np.full(outcomes.n_bases, np.nan)
    change_of_reward = middle
    low_name = middle_name = f"{primary} was not applied"
    if doses is not None:
        means = outcomes.means(outcomes.values["strict"]) - outcomes.clean["strict"][:, None]
        lowest, middle = means[:, doses[0]], means[:, doses[1]]
        low_name, middle_name = (_name(outcomes, i) for i in doses)
        if reward is not None:
            change_of_reward = outcomes.means(reward[1])[:, doses[1]] - reward[2]
    level, clusters = settings.analysis.level, analyst.clusters
    loss = sign_flip(
        middle, clusters=clusters, quantity="change of accuracy", level=level,
        n_resamples=settings.analysis.n_permutations,
        seed=derived_seed(analyst.seed, analyst.model, "accuracy endpoint"),
    )  # fmt: skip
    equivalent = mean_equivalence(
        lowest, low=-bound, high=bound, clusters=clusters,
        quantity=f"change of accuracy within ±{bound:g}",
    ).estimate  # fmt: skip
    moved = (
        sign_flip(
            change_of_reward, clusters=clusters, quantity="change of reward", level=level,
            n_resamples=settings.analysis.n_permutations,
            seed=derived_seed(analyst.seed, analyst.model, "reward endpoint"),
        )
        if np.isfinite(change_of_reward).any()
        else undefined("change of reward", EMPTY_CELL, ci_level=level)
    )  # fmt: skip
    found = [
        Endpoint("P1 loss of accuracy", middle_name, loss),
        Endpoint("P2 harmless at the lowest dose", low_name, equivalent),
        Endpoint(
            "P4 change of reward",
            f"{middle_name}, {reward[0]}" if reward else "there are no rewards",
            moved,
        ),
    ]
    p_values = [endpoint.estimate.p_value for endpoint in found]
    adjusted = holm([*p_values, *[1.0] * (N_CONFIRMATORY - len(p_values))])
    return [
        replace(e, estimate=replace(e.estimate, p_adjusted=float(p), family=FAMILY))
        for e, p in zip(found, adjusted[: len(found)], strict=True)
    ]


def median_change(
    outcomes: Outcomes, settings: RobustnessSettings, reward: tuple[str, FloatArray, FloatArray]
) -> float:
    """Hodges-Lehmann median of the reward endpoint's change, over families."""
    doses = doses_of_primary(outcomes, settings)
    if doses is None:
        return math.nan
    change = outcomes.means(reward[1])[:, doses[1]] - reward[2]
    return hodges_lehmann(family_means(change, outcomes.clusters))


def _name(outcomes: Outcomes, place: int) -> str:
    condition = outcomes.conditions[place]
    where = "" if condition.placement == "any" else f" in {condition.placement} words"
    if condition.n_edits is not None:
        edits = "edit" if condition.n_edits == 1 else "edits"
        return f"{condition.operator}, {condition.n_edits} {edits}{where}"
    if condition.rate is not None:
        return f"{condition.operator}, {condition.rate:.0%} of the words{where}"
    if condition.strength is not None:
        return f"{condition.operator}, strength {condition.strength}"
    return condition.operator
