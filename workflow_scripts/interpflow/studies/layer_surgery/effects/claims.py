"""The pre-registered claims, decided by their rules on the confirm split of one model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interpflow.stats.clustered_share import mean_share
from interpflow.stats.intervals import mean_interval
from interpflow.stats.paired_contrasts import mean_over
from interpflow.stats.record import MIN_CLUSTERS, Estimate
from interpflow.stats.units import codes_of, group_sums
from interpflow.studies.layer_surgery.effects.claim_list import Claim, chosen_plans
from interpflow.studies.layer_surgery.effects.outcomes import Outcomes
from interpflow.studies.layer_surgery.estimate_rows import Analyst, FloatArray, Row

Verdict = Literal["supported", "refuted", "inconclusive"]
CLAIMS = "claims"
_TOKEN = re.compile(r"\w+|[^\w\s]")
_N_DRAWS = 1999


@dataclass(frozen=True)
class DecidedClaim:
    """A claim with its verdict, why, and the numbers it rests on (by what they are of)."""

    claim: Claim
    verdict: Verdict
    reason: str
    numbers: tuple[tuple[str, Estimate], ...] = ()

    def to_document(self) -> dict[str, Any]:
        keep = ("quantity", "estimate", "ci_low", "ci_high", "ci_level", "n_units", "flags")
        return {
            "name": self.claim.name,
            "text": self.claim.text,
            "source": self.claim.source,
            "rule": self.claim.rule,
            "given": dict(self.claim.given),
            "verdict": self.verdict,
            "reason": self.reason,
            "numbers": [
                {"of": name, **{key: number.to_row()[key] for key in keep}}
                for name, number in self.numbers
            ],
        }


def decide_claims(
    analyst: Analyst, outcomes: Outcomes, claims: Sequence[Claim]
) -> list[DecidedClaim]:
    """Each claim supported, refuted or inconclusive.

    The share of wrong ones among the claims that are decided either way is kept at 1 − level: of m
    claims as many, R, are decided as can be decided by two-sided intervals at 1 − (1 − level)·R/m
    (Benjamini & Hochberg 1995, and Benjamini & Yekutieli 2005 for the intervals). A claim of
    several comparisons is supported if all of them are (no further correction), and refuted if one
    of them is, at a level divided again.
    """
    decided: list[DecidedClaim] = []
    for n in range(max(1, len(claims)), 0, -1):
        level = 1 - (1 - analyst.settings.level) * n / max(1, len(claims))
        decided = [_RULES[claim.rule](claim, outcomes, level, analyst) for claim in claims]
        if sum(one.verdict != "inconclusive" for one in decided) >= n:
            break
    return decided


def claim_rows(analyst: Analyst, decided: Sequence[DecidedClaim]) -> list[Row]:
    """The numbers as rows of `estimates`; level: what the number is of."""
    return [
        analyst.row(CLAIMS, one.claim.name, name, number)
        for one in decided
        for name, number in one.numbers
    ]


def _costs_more(claim: Claim, outcomes: Outcomes, level: float, analyst: Analyst) -> DecidedClaim:
    sides = [
        [group for selector in claim.given[side] for group in _plans(selector, outcomes)]
        for side in ("dearer", "cheaper")
    ]
    pairs = [(dear, cheap) for dear in sides[0] for cheap in sides[1] if dear != cheap]
    if not pairs:
        return DecidedClaim(claim, "inconclusive", "this model has no such plans")
    by, numbers, wrong, short = float(claim.given["by"]), [], [], []
    strict = 1 - (1 - level) / len(pairs)
    for dear, cheap in pairs:
        difference = _loss(dear, outcomes) - _loss(cheap, outcomes)
        name = f"{_named(dear)} − {_named(cheap)}"
        if not np.isfinite(difference).any():
            return DecidedClaim(claim, "inconclusive", f"not measured: {name}")
        found = mean_interval(difference, quantity="loss difference", level=level)
        numbers.append((name, found))
        if _is_small(found):
            reason = f"measured on {found.n_units} documents alone: {name}"
            return DecidedClaim(claim, "inconclusive", reason, tuple(numbers))
        if mean_interval(difference, level=strict).ci_high < by:
            wrong.append(name)
        elif not found.ci_low >= by:
            short.append(name)
    if wrong:
        return DecidedClaim(
            claim, "refuted", f"less than {by:g} nats per token: {'; '.join(wrong)}", tuple(numbers)
        )
    if short:
        return DecidedClaim(
            claim, "inconclusive",
            f"not shown to be {by:g} nats per token or more: {'; '.join(short)}", tuple(numbers),
        )  # fmt: skip
    return DecidedClaim(
        claim, "supported", f"{by:g} nats per token or more in every comparison", tuple(numbers)
    )


def _retention(claim: Claim, outcomes: Outcomes, level: float, analyst: Analyst) -> DecidedClaim:
    tasks = claim.given.get("tasks") or list(outcomes.tasks)
    known = [outcomes.tasks[task] for task in tasks if task in outcomes.tasks]
    if not known:
        return DecidedClaim(
            claim, "inconclusive", f"the model does not solve {', '.join(tasks)} well enough"
        )
    groups = _plans(claim.given["plan"], outcomes)
    if not groups:
        return DecidedClaim(claim, "inconclusive", "this model has no such plan")
    plans = [str(plan.plan) for plan in groups[0]]
    kept = np.concatenate([mean_over(task.retained(plans).T) for task in known])
    families = np.concatenate([task.families for task in known])
    found = mean_share(kept, clusters=families, quantity="retention", level=level)
    return _bounded(claim, f"{_named(groups[0])}: {', '.join(t.task for t in known)}", found)


def _top1_kept(claim: Claim, outcomes: Outcomes, level: float, analyst: Analyst) -> DecidedClaim:
    groups = _plans(claim.given["plan"], outcomes)
    if not groups:
        return DecidedClaim(claim, "inconclusive", "this model has no such plan")
    kept = mean_over(outcomes.losses.kept(str(plan.plan) for plan in groups[0]).T)
    found = mean_share(kept, quantity="top-1 kept", level=level)
    return _bounded(claim, _named(groups[0]), found)


def _echoes(claim: Claim, outcomes: Outcomes, level: float, analyst: Analyst) -> DecidedClaim:
    groups = _plans(claim.given["plan"], outcomes)
    if not groups:
        return DecidedClaim(claim, "inconclusive", "this model has no such plan")
    plans = [str(plan.plan) for plan in groups[0]]
    shares = [
        mean_share(
            [echoes(outcomes.items[row["example_id"]]["prompt"], row["text"]) for row in rows],
            clusters=[outcomes.items[row["example_id"]]["family_id"] for row in rows],
            quantity="texts that begin with the prompt's last token",
            level=level,
        )
        for chosen in (plans, [outcomes.plans.intact])
        for rows in [[row for row in outcomes.generations if row["plan"] in chosen]]
    ]
    return _bounded(claim, _named(groups[0]), shares[0], extra=[("intact", shares[1])])


def echoes(prompt: str, text: str) -> float:
    """1 where `text` begins with the last word or mark of the prompt, else 0."""
    last, first = _TOKEN.findall(prompt)[-1:], _TOKEN.findall(text)[:1]
    return float(bool(last) and last == first)


def _earlier(claim: Claim, outcomes: Outcomes, level: float, analyst: Analyst) -> DecidedClaim:
    n_layers, share = outcomes.plans.n_layers, float(claim.given["share"])
    kept_first = [str(_plans({"family": "keep_first", "n": n}, outcomes)[0][0].plan)
                  for n in range(n_layers)]  # fmt: skip
    rng = np.random.default_rng(analyst.seed_of(CLAIMS, claim.name))
    draws, numbers = [], []
    for tasks in claim.given["groups"]:
        known = [outcomes.tasks[task] for task in tasks if task in outcomes.tasks]
        name = ", ".join(task.task for task in known)
        if not known:
            reason = f"the model does not solve {', '.join(tasks)} well enough"
            return DecidedClaim(claim, "inconclusive", reason, tuple(numbers))
        retained = np.concatenate([task.retained(kept_first) for task in known], axis=1)
        present = np.isfinite(retained).all(axis=0)
        families = np.concatenate([task.families for task in known])[present]
        n_families = len(set(families.tolist()))
        if n_families < MIN_CLUSTERS:
            reason = f"too few items of {name} were answered and measured at every depth"
            return DecidedClaim(claim, "inconclusive", reason, tuple(numbers))
        depths, observed = _depths(retained[:, present], families, share, rng)
        low, high = np.quantile(depths, [(1 - level) / 2, (1 + level) / 2], method="nearest")
        numbers.append((name, Estimate(
            quantity=f"fewest first blocks that keep {share:.0%}", estimate=observed,
            ci_low=float(low), ci_high=float(high), ci_level=level, test="cluster_bootstrap",
            n_units=len(families), n_clusters=n_families, n_resamples=_N_DRAWS,
        )))  # fmt: skip
        draws.append(depths)
    rising = [later > sooner for sooner, later in pairwise(draws)]
    in_order = float(np.mean(np.all(rising, axis=0)))
    reason = f"in this order in {in_order:.1%} of resamples"
    verdict: Verdict = "inconclusive"
    if in_order >= level:
        verdict = "supported"
    elif in_order <= 1 - level:
        verdict = "refuted"
    return DecidedClaim(claim, verdict, reason, tuple(numbers))


def _depths(
    retained: FloatArray, families: NDArray[Any], share: float, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Fewest first blocks from which on at least `share` of the items stay answered, in resamples
    of families and as observed. `retained` [n first blocks, items] of 0 and 1."""
    codes, n_groups = codes_of(families, retained.shape[1])
    sums = group_sums(retained.T, codes, n_groups)
    sizes = np.bincount(codes, minlength=n_groups).astype(np.float64)

    def depth(weights: FloatArray) -> FloatArray:
        kept = weights @ sums / np.maximum(weights @ sizes, 1e-9)[:, None]
        below = kept < share - 1e-12
        # The last depth that fails, plus one; all blocks always keep everything.
        return np.where(below.any(axis=1), below.shape[1] - np.argmax(below[:, ::-1], axis=1), 0)

    weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=_N_DRAWS)
    return depth(weights.astype(np.float64)), float(depth(np.ones((1, n_groups)))[0])


def _bounded(
    claim: Claim,
    name: str,
    found: Estimate,
    extra: Sequence[tuple[str, Estimate]] = (),
) -> DecidedClaim:
    """Decide at_least or at_most from an interval."""
    numbers = ((name, found), *extra)
    if math.isnan(found.ci_low) or _is_small(found):
        return DecidedClaim(claim, "inconclusive", "too little was measured", numbers)
    at_least = "at_least" in claim.given
    bound = float(claim.given["at_least" if at_least else "at_most"])
    above, below = found.ci_low >= bound, found.ci_high < bound
    if not at_least:
        above, below = found.ci_high <= bound, found.ci_low > bound
    said = f"{found.estimate:.3f} ({found.ci_low:.3f} to {found.ci_high:.3f})"
    reason = f"{name}: {said}, claimed at {'least' if at_least else 'most'} {bound:g}"
    verdict: Verdict = "supported" if above else "refuted" if below else "inconclusive"
    return DecidedClaim(claim, verdict, reason, numbers)


def _is_small(found: Estimate) -> bool:
    """Whether there are too few independent units to decide anything by."""
    return (found.n_clusters or found.n_units) < MIN_CLUSTERS


def _plans(selector: Mapping[str, Any], outcomes: Outcomes) -> list[list[Any]]:
    return chosen_plans(selector, outcomes.plans.n_layers)


def _loss(group: Sequence[Any], outcomes: Outcomes) -> FloatArray:
    """Loss change [documents], the mean over a group's plans."""
    return mean_over(outcomes.losses.delta(str(plan.plan) for plan in group).T)


def _named(group: Sequence[Any]) -> str:
    labels = [plan.label for plan in group]
    return labels[0] if len(labels) == 1 else f"mean of {', '.join(labels)}"


_RULES: dict[str, Callable[[Claim, Outcomes, float, Analyst], DecidedClaim]] = {
    "costs_more": _costs_more,
    "retention": _retention,
    "top1_kept": _top1_kept,
    "echoes": _echoes,
    "earlier": _earlier,
}
