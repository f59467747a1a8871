"""The offline scientist: looks by halving the depth, asks what repairs the model, tests, confirms.

It explores plans on the exploration pool; where a block can be left out without a trace, or where a
change improves the model, it states a hypothesis with a probability and registers the test that
decides it. Of rival repairs of the same blocks the best is tested first, and what is left of an
improvement once the model is repaired decides whether another is worth a test.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from interpflow.agent.policies.looking import (
    LEVEL_SHARE,
    MOST_CERTAIN,
    Plan,
    Seen,
    Steps,
    explored,
    key,
    skip,
    swap,
)
from interpflow.agent.policies.needs import decide_needs
from interpflow.agent.policies.policy import Course, CoursePolicy
from interpflow.agent.policies.steps import decide_claim
from interpflow.agent.rules.actions import MOST_PLANS, Action
from interpflow.agent.rules.claims import METRIC, AnomalyClaim
from interpflow.agent.work.session import View
from interpflow.stats.quantiles import normal_quantile

FACTORS = (0.5, 2.0)
REFINED = (0.5, 2**-0.5, 2**0.5, 2.0)  # of the better of the two
# A hypothesis whose test is less likely to confirm it is not worth its level.
MIN_PROBABILITY = 0.2
# Share of the turns that looking may take.
LOOKING_SHARE = 0.4


@dataclass(frozen=True)
class Candidate:
    claim: AnomalyClaim
    seen: Seen
    probability: float


def scientist(*, anomalies_only: bool = False) -> CoursePolicy:
    """The policy `offline`. anomalies_only: it stops after its hunt for anomalies, which is what
    policies are judged by."""
    return CoursePolicy("offline", partial(_course, anomalies_only=anomalies_only))


def _course(view: View, *, anomalies_only: bool) -> Course:
    looked: dict[str, Seen] = {}
    yield from _look(view, looked)
    for candidate in _no_ops(view, looked):
        yield from decide_claim(view, candidate.claim, candidate.probability, larger=True)
    yield from _repairs(view, looked)
    if not anomalies_only:
        yield from decide_needs(view, looked)


def _look(view: View, looked: dict[str, Seen]) -> Steps:
    """Ranges of blocks left out, halved where it costs least; then swaps and scales of the single
    blocks that were reached, and finer factors where one helps."""
    n_layers: int = view.description["n_layers"]
    turns = int(view.settings.budget.turns * LOOKING_SHARE)
    ranges = [(0, n_layers)] if n_layers > 1 else []
    blocks: list[int] = [] if ranges else [0]
    while ranges and turns > 0:
        ranges.sort(key=lambda span: _damage(looked, span))
        split, ranges = ranges[: MOST_PLANS // 2], ranges[MOST_PLANS // 2 :]
        halves = [half for span in split for half in _halves(span)]
        affordable = yield from explored([skip(half) for half in halves], looked)
        turns -= 1
        seen = [half for half in halves if key(skip(half)) in looked]
        ranges += [half for half in seen if half[1] - half[0] > 1]
        blocks += [half[0] for half in seen if half[1] - half[0] == 1]
        if not affordable:
            break
    if n_layers == 1:
        yield from explored([skip((0, 1))], looked)
    blocks.sort()
    plans = [swap(b) for b in range(n_layers - 1) if b in blocks or b + 1 in blocks]
    plans += [_scale(block, factor) for block in blocks for factor in FACTORS]
    for start in range(0, len(plans), MOST_PLANS):
        if turns <= 0 or not (yield from explored(plans[start : start + MOST_PLANS], looked)):
            return
        turns -= 1
    least = view.settings.smallest_effect
    finer = []
    for block in blocks:
        best = min(FACTORS, key=lambda factor, at=block: _mean(looked, _scale(at, factor)))
        if _mean(looked, _scale(block, best)) < -least / 2:
            finer += [_scale(block, best * factor) for factor in REFINED]
    finer.sort(key=lambda plan: _mean(looked, _scale(plan["block"], FACTORS[plan["factor"] > 1])))
    if finer and turns > 0:
        yield from explored(finer[:MOST_PLANS], looked)


def _no_ops(view: View, looked: Mapping[str, Seen]) -> list[Candidate]:
    """Blocks whose absence seems to change nothing, the surest first."""
    claims = [AnomalyClaim("no_op", (b,)) for b in range(view.description["n_layers"])]
    return sorted(_candidates(view, claims, looked), key=lambda each: abs(each.seen.mean))


def _repairs(view: View, looked: dict[str, Seen]) -> Steps:
    """Test what seems to improve the model, the best first, one repair for a block."""
    done: list[Candidate] = []
    for candidate in _improvements(view, looked):
        taken = {block for each in done for block in each.claim.blocks}
        if taken & set(candidate.claim.blocks):
            continue
        if done and not (yield from _helps_still(view, done[0], candidate)):
            continue
        verdict = yield from decide_claim(view, candidate.claim, candidate.probability, larger=True)
        if verdict == "CONFIRMED":
            done.append(candidate)


def _improvements(view: View, looked: Mapping[str, Seen]) -> list[Candidate]:
    n_layers: int = view.description["n_layers"]
    claims = [AnomalyClaim("duplicated", (b,)) for b in range(n_layers)]
    claims += [AnomalyClaim("swapped", (b, b + 1)) for b in range(n_layers - 1)]
    for block in range(n_layers):
        tried = [f * more for f in FACTORS for more in (1.0, *REFINED)]
        known = [factor for factor in tried if key(_scale(block, factor)) in looked]
        if known:
            best = min(known, key=lambda factor, at=block: _mean(looked, _scale(at, factor)))
            claims.append(AnomalyClaim("scaled", (block,), _rounded(best)))
    return sorted(_candidates(view, claims, looked), key=lambda each: each.seen.mean)


def _candidates(
    view: View, claims: Sequence[AnomalyClaim], looked: Mapping[str, Seen]
) -> list[Candidate]:
    """Claims that a test has a fair chance to confirm, by what was seen."""
    found = []
    for claim in claims:
        seen = looked.get(key(claim.plan))
        if seen is not None:
            probability = _forecast(view, claim, seen)
            if probability >= MIN_PROBABILITY:
                found.append(Candidate(claim, seen, round(probability, 3)))
    return found


def _forecast(view: View, claim: AnomalyClaim, seen: Seen) -> float:
    """Chance that the test confirms: normal, with the errors of both samples (the one seen and the
    one to come)."""
    least, n = view.settings.smallest_effect, view.settings.n_units
    margin = least - abs(seen.mean) if claim.kind == "no_op" else -seen.mean - least
    if margin <= 0:
        return 0.0
    if seen.sd == 0:
        return MOST_CERTAIN
    reach = normal_quantile(1 - LEVEL_SHARE * view.settings.alpha) * seen.sd / math.sqrt(n)
    spread = seen.sd * math.sqrt(1 / n + 1 / seen.n)
    chance = 0.5 * (1 + math.erf((margin - reach) / spread / math.sqrt(2)))
    return min(max(chance, 0.0), MOST_CERTAIN)


def _helps_still(
    view: View, repaired: Candidate, candidate: Candidate
) -> Generator[Action, Mapping[str, Any], bool]:
    """Whether a change improves the model that is repaired already: a damage shows as several
    improvements, of which all but its own repair only make up for it."""
    n_layers: int = view.description["n_layers"]
    both = _together(n_layers, repaired.claim, candidate.claim)
    alone = _together(n_layers, repaired.claim)
    plans = [{"kind": "steps", "steps": steps} for steps in (both, alone)]
    found = yield Action("explore", {"plans": plans, "measure": "text"})
    if "results" not in found:
        return False
    ids = [result["id"] for result in found["results"]]
    compared = yield Action("compare", {"results": ids})
    effect = compared.get("result", {}).get("effects", {}).get(METRIC, {})
    high = effect.get("ci_high")
    return high is not None and high < 0 and effect["estimate"] < -view.settings.smallest_effect


def _together(n_layers: int, *claims: AnomalyClaim) -> str:
    """The steps of a model with several claims' plans at once."""
    order, factors = list(range(n_layers)), {}
    for claim in claims:
        if claim.kind == "swapped":
            first, second = (order.index(block) for block in claim.blocks)
            order[first], order[second] = order[second], order[first]
        elif claim.kind == "scaled":
            factors[claim.blocks[0]] = claim.factor
        else:
            order.remove(claim.blocks[0])
    steps = (f"{b}*{factors[b]:g}" if b in factors else str(b) for b in order)
    return " ".join(steps) or "-"


def _halves(span: tuple[int, int]) -> list[tuple[int, int]]:
    middle = (span[0] + span[1]) // 2
    return [(span[0], middle), (middle, span[1])]


def _damage(looked: Mapping[str, Seen], span: tuple[int, int]) -> float:
    """Loss per block left out: ranges that cost least are looked into first."""
    seen = looked.get(key(skip(span)))
    return (seen.mean if seen else 0.0) / (span[1] - span[0])


def _mean(looked: Mapping[str, Seen], plan: Plan) -> float:
    seen = looked.get(key(plan))
    return math.inf if seen is None else seen.mean


def _scale(block: int, factor: float) -> Plan:
    return {"kind": "scale", "block": block, "factor": _rounded(factor)}


def _rounded(factor: float) -> float:
    return float(f"{factor:.4g}")
