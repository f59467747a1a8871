"""Which anomalies are planted, and what is true of a model that has one."""

from __future__ import annotations

import random
from collections.abc import Sequence

from interpflow.agent.claims import AnomalyClaim
from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import Plant
from interpflow.plans.anomalies import Anomaly

# A block too weak, then one too strong, and so on.
SCALE_FACTORS = (0.3, 2.5)


def drawn_anomalies(
    plants: Sequence[Plant], places: int, n_layers: int, seed: int
) -> list[Anomaly]:
    """Each kind of anomaly at `places` different places, or at all there are.

    Places are inner blocks (all, where a model has fewer than four), one drawn from each of
    `places` ranges of about equal length; swapped blocks are neighbours.
    """
    inner = list(range(1, n_layers - 1)) if n_layers >= 4 else list(range(n_layers))
    found: list[Anomaly] = []
    for kind in dict.fromkeys(plants):
        firsts = inner[:-1] if kind == "swapped" else inner
        n_places = min(places, len(firsts))
        draw = random.Random(derived_seed(seed, "places", kind))
        for place in range(n_places):
            low, high = (len(firsts) * each // n_places for each in (place, place + 1))
            first = draw.choice(firsts[low:high])
            blocks = (first, first + 1) if kind == "swapped" else (first,)
            factor = SCALE_FACTORS[place % len(SCALE_FACTORS)] if kind == "scaled" else 1.0
            found.append(Anomaly(kind, blocks, factor))
    return found


def is_true(claim: AnomalyClaim, anomaly: Anomaly | None) -> bool:
    """Whether a claim about a model is true of it.

    A claim says how the model was altered, its test only what follows from that. True are: of a
    no-op, that this block is one; of swapped blocks, that these two are; of a scaled block, that
    this one is, with a factor that makes a weak block stronger or a strong one weaker; of a
    duplicated block b, that b is, or b + 1, the other copy, since skipping either gives the model
    back. Everything else is false, even where its test is confirmed: that scaling one of two
    swapped blocks lowers the loss does not make it a scaled one. Of an unaltered model (None) every
    claim is false.
    """
    if anomaly is None or claim.kind != anomaly.kind:
        return False
    if anomaly.kind == "duplicated":
        return claim.blocks[0] in (anomaly.blocks[0], anomaly.blocks[0] + 1)
    if anomaly.kind == "scaled":
        stronger = claim.factor is not None and claim.factor > 1
        return claim.blocks == anomaly.blocks and stronger == (anomaly.factor < 1)
    return set(claim.blocks) == set(anomaly.blocks)
