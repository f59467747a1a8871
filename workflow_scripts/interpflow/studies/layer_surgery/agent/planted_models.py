"""Which anomalies are planted where, and what is true of a model that has one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import Plant
from interpflow.plans.anomalies import Anomaly
from interpflow.plans.layer_plan import LayerPlan, Step
from interpflow.plans.requests import named_plan
from interpflow.studies.layer_surgery.agent.text_laboratory import TextRuns

# A block too weak, then one too strong, and so on.
SCALE_FACTORS = (0.3, 2.5)
# An anomaly is planted where it costs at least this many smallest effects.
FELT = 2.0

Truth = Literal["planted", "present", "false"]


def drawn_anomalies(
    plants: Sequence[Plant],
    places: int,
    n_layers: int,
    seed: int,
    sizes: Callable[[Sequence[Anomaly]], Sequence[float]],
    least: float,
) -> tuple[list[Anomaly], dict[str, int]]:
    """Each kind of anomaly at up to `places` different blocks, and by kind the number of places
    that were wanting.

    sizes: what anomalies would cost, nats per token. A model that does not feel an anomaly cannot
    show it, so that it is planted only where it costs at least `least`: one place is drawn from
    each of `places` ranges of such places, from first to last. Swapped blocks are neighbours.
    """
    found: list[Anomaly] = []
    wanting: dict[str, int] = {}
    for kind in dict.fromkeys(plants):
        draw = random.Random(derived_seed(seed, "places", kind))
        factors = SCALE_FACTORS if kind == "scaled" else (1.0,)
        candidates = {factor: _candidates(kind, n_layers, factor) for factor in factors}
        felt = {
            factor: [each for each, size in zip(some, sizes(some)) if size >= least]
            for factor, some in candidates.items()
        }
        chosen: list[Anomaly] = []
        for place in range(places):
            some = felt[factors[place % len(factors)]]
            low, high = (len(some) * each // places for each in (place, place + 1))
            taken = {each.blocks for each in chosen}
            free = [each for each in some[low:high] if each.blocks not in taken]
            free = free or [each for each in some if each.blocks not in taken]
            if free:
                chosen.append(draw.choice(free))
        if len(chosen) < places:
            wanting[kind] = places - len(chosen)
        found += chosen
    return found, wanting


def anomaly_sizes(runs: TextRuns, anomalies: Sequence[Anomaly]) -> list[float]:
    """What anomalies would cost the model, nats per token over its exploration pool, by plans on
    the model as it is (of a scaled block near enough: see `Anomaly.plan`)."""
    n_layers = runs.model.n_layers
    plans = [each.plan(n_layers) or _scaled(each, n_layers) for each in anomalies]
    means = runs.means(plans, runs.explore)
    return [means[str(plan)] for plan in plans]


def is_planted(claim: AnomalyClaim, anomaly: Anomaly | None) -> bool:
    """Whether a claim names what was planted: of a no-op this block; of swapped blocks these two;
    of a scaled block this one, with a factor that makes a weak block stronger or a strong one
    weaker; of a duplicated block b either copy, b or b + 1, since skipping either gives the model
    back."""
    if anomaly is None or claim.kind != anomaly.kind:
        return False
    if anomaly.kind == "duplicated":
        return claim.blocks[0] in (anomaly.blocks[0], anomaly.blocks[0] + 1)
    if anomaly.kind == "scaled":
        stronger = claim.factor is not None and claim.factor > 1
        return claim.blocks == anomaly.blocks and stronger == (anomaly.factor < 1)
    return set(claim.blocks) == set(anomaly.blocks)


@dataclass
class Truths:
    """What is true of a model with an anomaly (None: of the model as it is).

    A claim says how the model is made, its test only what follows from that. It is true if it
    names what was planted ("planted"), or if it holds without anything planted ("present"): a block
    is superfluous if leaving it out of this very model changes the loss over all documents by less
    than the smallest effect; blocks are swapped, scaled or duplicated already in the model as it is
    if the claim's own change lowers its loss over all documents by more than that. Every other
    claim is false, even where its test is confirmed: that scaling one of two swapped blocks lowers
    the loss does not make it a scaled one.
    """

    anomaly: Anomaly | None
    altered: TextRuns
    unaltered: TextRuns
    smallest_effect: float
    means: dict[str, float] = field(default_factory=dict)
    present: dict[str, float] = field(default_factory=dict)

    def of(self, claim: AnomalyClaim) -> Truth:
        """What decides, the mean over all documents, is kept in `means` by claim; in `present` too
        where the claim holds."""
        truth = self._of(claim)
        if truth == "present":
            self.present[str(claim)] = self.means[str(claim)]
        return truth

    def _of(self, claim: AnomalyClaim) -> Truth:
        if is_planted(claim, self.anomaly):
            return "planted"
        if claim.kind == "no_op":
            change = self.means[str(claim)] = self._mean(claim, self.altered)
            return "present" if abs(change) < self.smallest_effect else "false"
        original = self._in_unaltered(claim)
        if original is None:
            return "false"
        change = self.means[str(claim)] = self._mean(original, self.unaltered)
        return "present" if change < -self.smallest_effect else "false"

    def _mean(self, claim: AnomalyClaim, runs: TextRuns) -> float:
        named = named_plan(claim.plan, runs.model.n_layers, runs.model.n_heads)
        units = (*runs.explore, *runs.confirm)
        return runs.means([named.plan], units)[str(named.plan)]

    def _in_unaltered(self, claim: AnomalyClaim) -> AnomalyClaim | None:
        """The claim with the blocks as they were counted before one was put in twice; None where
        both are copies of one."""
        blocks = claim.blocks
        if self.anomaly is not None and self.anomaly.kind == "duplicated":
            again = self.anomaly.blocks[0] + 1
            blocks = tuple(block - (block >= again) for block in blocks)
        if len(set(blocks)) < len(blocks):
            return None
        return AnomalyClaim(claim.kind, blocks, claim.factor)


def _candidates(kind: Plant, n_layers: int, factor: float) -> list[Anomaly]:
    if kind == "swapped":
        return [Anomaly(kind, (block, block + 1)) for block in range(n_layers - 1)]
    return [Anomaly(kind, (block,), factor) for block in range(n_layers)]


def _scaled(anomaly: Anomaly, n_layers: int) -> LayerPlan:
    block = anomaly.blocks[0]
    steps = [Step((each,), factor=anomaly.factor if each == block else 1.0)
             for each in range(n_layers)]  # fmt: skip
    return LayerPlan(tuple(steps))
