"""The fixed sweep: skips, swaps and scales are tested block after block, without a look before."""

from __future__ import annotations

from collections.abc import Iterator

from interpflow.agent.policies.policy import Course, CoursePolicy
from interpflow.agent.policies.steps import decide_claim
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.agent.work.session import View

FACTORS = (0.5, 2.0)
# It knows nothing: the chance that it states is that of a rare thing.
PROBABILITY = 0.1


def fixed_sweep() -> CoursePolicy:
    """The policy; the budget ends it."""
    return CoursePolicy("fixed_sweep", _course)


def all_claims(n_layers: int) -> Iterator[AnomalyClaim]:
    """Every claim, block after block, and of a block every kind: skipped (nothing changes, or the
    loss falls), exchanged with the next, scaled down and up. A budget that does not reach all
    blocks so still tests every kind of anomaly: the baseline is fair to each."""
    for block in range(n_layers):
        yield AnomalyClaim("no_op", (block,))
        yield AnomalyClaim("duplicated", (block,))
        if block + 1 < n_layers:
            yield AnomalyClaim("swapped", (block, block + 1))
        for factor in FACTORS:
            yield AnomalyClaim("scaled", (block,), factor)


def _course(view: View) -> Course:
    for claim in all_claims(view.description["n_layers"]):
        yield from decide_claim(view, claim, PROBABILITY)
