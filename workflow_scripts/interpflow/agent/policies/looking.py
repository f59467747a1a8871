"""Looks at plans on the exploration pool, that courses share: what was asked, what was seen."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.agent.rules.actions import Action
from interpflow.agent.rules.claims import MEASURE, METRIC
from interpflow.stats.quantiles import t_quantile, t_upper

Plan = dict[str, Any]
Steps = Generator[Action, Mapping[str, Any], None]

# Level that a test may have, as a share of alpha: what forecasts count with.
LEVEL_SHARE = 0.1
MOST_CERTAIN = 0.97


@dataclass(frozen=True)
class Seen:
    """What a plan did on the exploration pool: mean change of the metric, its spread, units."""

    id: str
    mean: float
    sd: float
    n: int


def explored(
    plans: Sequence[Plan], looked: dict[str, Seen], task: str = ""
) -> Generator[Action, Mapping[str, Any], bool]:
    """Explore plans on text, or on the answers of a task; False where not all could be afforded.
    Then as many of the first are."""
    asked: dict[str, Any] = {"plans": list(plans), "measure": MEASURE}
    metric = METRIC
    if task:
        asked |= {"measure": "answers", "task": task}
        metric = "delta_log_prob"
    found = yield Action("explore", asked)
    if found.get("where") == "budget" and len(plans) > 1:
        yield from explored(plans[: len(plans) // 2], looked, task)
        return False
    for plan, result in zip(plans, found.get("results", ()), strict=False):
        seen = seen_in(result, metric)
        if seen is not None:
            looked[key(plan)] = seen
    return "results" in found


def compared(
    first: Seen, second: Seen, metric: str
) -> Generator[Action, Mapping[str, Any], Seen | None]:
    """First minus second, paired by unit; None where they have no unit in common."""
    found = yield Action("compare", {"results": [first.id, second.id]})
    return seen_in(found["result"], metric) if "result" in found else None


def seen_in(result: Mapping[str, Any], metric: str) -> Seen | None:
    """What a result says of a metric; None where that is undefined."""
    effect = result["effects"][metric]
    if effect["estimate"] is None or effect["sd"] is None:
        return None
    return Seen(result["id"], effect["estimate"], effect["sd"], effect["n"])


def chance(seen: Seen, prediction: Mapping[str, Any], n: int, alpha: float) -> float:
    """Chance that a test of n units at a level of `LEVEL_SHARE` · alpha confirms a prediction.

    The mean to come, given the mean seen of n0 units, is t-distributed with n0 − 1 degrees of
    freedom around it, in units of sd · √(1/n + 1/n0): the predictive distribution of normal data.
    The test confirms where it lies inside the predicted region by its own reach, sd · t / √n. At
    most `MOST_CERTAIN`: the plan was picked for what was seen of it.
    """
    low, high = region(prediction)
    if seen.sd == 0:
        return MOST_CERTAIN if low < seen.mean < high else 0.0
    reach = t_quantile(1 - LEVEL_SHARE * alpha, n - 1) * seen.sd / math.sqrt(n)
    spread = seen.sd * math.sqrt(1 / n + 1 / seen.n)
    misses = 0.0
    if low > -math.inf:
        misses += t_upper((seen.mean - low - reach) / spread, seen.n - 1)
    if high < math.inf:
        misses += t_upper((high - reach - seen.mean) / spread, seen.n - 1)
    return min(max(1 - misses, 0.0), MOST_CERTAIN)


def region(prediction: Mapping[str, Any]) -> tuple[float, float]:
    """Where a prediction says that the mean difference lies."""
    if "within" in prediction:
        return prediction["within"][0], prediction["within"][1]
    least = prediction["smallest_effect"]
    return (least, math.inf) if prediction["sign"] == "increase" else (-math.inf, -least)


def skip(span: tuple[int, int]) -> Plan:
    """The blocks from the first of the span to before the second left out."""
    return {"kind": "skip", "blocks": list(range(*span))}


def swap(block: int) -> Plan:
    """A block and the next exchanged."""
    return {"kind": "swap", "block": block, "with_block": block + 1}


def key(plan: Mapping[str, Any]) -> str:
    """A request as the name of what was seen of it."""
    return " ".join(f"{name}={plan[name]}" for name in sorted(plan))
