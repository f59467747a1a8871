"""Random actions of the same kinds: what is found by chance at the same budget."""

from __future__ import annotations

import numpy as np

from interpflow.agent.policies.fixed_sweep import PROBABILITY, all_claims
from interpflow.agent.policies.policy import Course, CoursePolicy
from interpflow.agent.policies.steps import decide_claim
from interpflow.agent.work.session import View
from interpflow.config.identity import derived_seed


def random_policy() -> CoursePolicy:
    """The policy: claims of any kind in random order; the budget ends it."""
    return CoursePolicy("random", _course)


def _course(view: View) -> Course:
    claims = list(all_claims(view.description["n_layers"]))
    draw = np.random.default_rng(derived_seed(view.seed, "random policy"))
    kinds = sorted({claim.kind for claim in claims})
    while claims:
        # A kind first: of scales there are many more than of swaps.
        kind = kinds[int(draw.integers(len(kinds)))]
        some = [claim for claim in claims if claim.kind == kind]
        if some:
            claim = some[int(draw.integers(len(some)))]
            claims.remove(claim)
            yield from decide_claim(view, claim, PROBABILITY)
