"""The fixed sweep: every skip, swap and scale is tested in one order, without a look before."""

from __future__ import annotations

from collections.abc import Iterator

from interpflow.agent.claims import AnomalyClaim
from interpflow.agent.policies.policy import Course, CoursePolicy
from interpflow.agent.policies.steps import decide_claim
from interpflow.agent.session import View

FACTORS = (0.5, 2.0)
# It knows nothing: the chance that it states is that of a rare thing.
PROBABILITY = 0.1


def fixed_sweep() -> CoursePolicy:
    """The policy; the budget ends it."""
    return CoursePolicy("fixed_sweep", _course)


def all_claims(n_layers: int) -> Iterator[AnomalyClaim]:
    """Every claim of a kind, blocks from first to last, one kind after the other."""
    for block in range(n_layers):
        yield AnomalyClaim("no_op", (block,))
    for block in range(n_layers):
        yield AnomalyClaim("duplicated", (block,))
    for block in range(n_layers - 1):
        yield AnomalyClaim("swapped", (block, block + 1))
    for block in range(n_layers):
        for factor in FACTORS:
            yield AnomalyClaim("scaled", (block,), factor)


def _course(view: View) -> Course:
    for claim in all_claims(view.description["n_layers"]):
        yield from decide_claim(view, claim, PROBABILITY)
