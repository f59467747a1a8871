"""Findings worth a test: what is predicted of a plan, of how many units, with what chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interpflow.agent.policies.looking import Plan, Seen, chance
from interpflow.agent.work.session import View

Sign = Literal["increase", "decrease"]
MIN_PROBABILITY = 0.5
GOOD_PROBABILITY = 0.8
# Predicted at least, as a share of the effect explored: the largest that a test can well confirm.
SHARES = (0.5, 0.25)
LEAST_UNITS, MOST_TIMES = 8, 4  # of a test; of the usual number of documents


@dataclass(frozen=True)
class Finding:
    """A hypothesis and the test of it; task "": neutral text."""

    text: str
    plan: Plan
    prediction: Mapping[str, Any]
    probability: float
    n: int
    task: str = ""
    against: Plan | None = None
    block: int = -1


def directed(
    view: View, text: str, plan: Plan, seen: Seen | None, sign: Sign, *, task: str = "",
    against: Plan | None = None, block: int = -1,
) -> Finding | None:  # fmt: skip
    """The finding that an effect has a sign and at least a share of the size explored; None where
    another sign was explored, or no test has a fair chance. text: with a hole {least}."""
    if seen is None or (seen.mean > 0) != (sign == "increase"):
        return None
    tried: list[Finding] = []
    for share in SHARES:
        least = max(view.settings.smallest_effect, float(f"{share * abs(seen.mean):.2g}"))
        prediction = {"sign": sign, "smallest_effect": least}
        n, probability = sized(view, seen, prediction, task)
        told = text.format(least=least)
        tried.append(Finding(told, plan, prediction, probability, n, task, against, block))
        if probability >= GOOD_PROBABILITY:
            return tried[-1]
    best = max(tried, key=lambda each: each.probability)
    return best if best.probability >= MIN_PROBABILITY else None


def sized(
    view: View, seen: Seen, prediction: Mapping[str, Any], task: str
) -> tuple[int, float]:  # fmt: skip
    """Units of a test and the chance that it confirms: the fewest with a good one, else the best.

    Of a task's units half are taken, so that a test whose slot is a placebo can be run again; all
    of them where half have too little power.
    """
    usual = view.settings.n_units
    sizes = [usual, 2 * usual, MOST_TIMES * usual]
    if task:
        most = view.description["tasks"][task]["confirm"]
        sizes = [n for n in (min(usual, most // 2), min(MOST_TIMES * usual, most))
                 if n >= LEAST_UNITS]  # fmt: skip
    alpha = view.settings.alpha
    tried = [(n, round(chance(seen, prediction, n, alpha), 3)) for n in sizes]
    good = [each for each in tried if each[1] >= GOOD_PROBABILITY]
    return good[0] if good else max(tried, key=lambda each: each[1], default=(0, 0.0))
