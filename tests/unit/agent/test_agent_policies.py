"""Policies on a laboratory with known anomalies: what is found, and what is claimed falsely."""

from __future__ import annotations

from functools import partial

import pytest
from scipy.stats import binom

from interpflow.agent.conduct import run_agent
from interpflow.agent.policies.fixed_sweep import fixed_sweep
from interpflow.agent.policies.random_policy import random_policy
from interpflow.agent.policies.scientist import scientist as whole_scientist
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.agent.work.budget import EXPLORING_SHARE
from tests.unit.agent.fake_laboratory import TOKENS, BoundaryLaboratory, FakeLaboratory, settings

SEEDS = 50
# Its hunt for anomalies, which is what these tests are about.
scientist = partial(whole_scientist, anomalies_only=True)
PLANTS = [
    ("no_op", (b,)) for b in (0, 3, 7)
] + [("swapped", (b, b + 1)) for b in (0, 3, 6)] + [("scaled", (b,)) for b in (1, 5)] + [
    ("duplicated", (b,)) for b in (0, 2, 6)
]  # fmt: skip


def _is_true(claim: AnomalyClaim, plant: str, blocks: tuple[int, ...]) -> bool:
    if plant == "duplicated":  # either copy
        return claim.kind == plant and claim.blocks[0] in (blocks[0], blocks[0] + 1)
    return claim.kind == plant and claim.blocks == blocks


@pytest.mark.parametrize(("plant", "blocks"), PLANTS)
def test_the_scientist_finds_a_planted_anomaly_and_nothing_else(
    plant: str, blocks: tuple[int, ...]
) -> None:
    for seed in range(3):
        outcome = run_agent(settings(), FakeLaboratory(plant, blocks), scientist(), None, seed)
        assert outcome.confirmed
        assert all(_is_true(claim, plant, blocks) for _, claim in outcome.confirmed)
        assert [a for c in outcome.claims for a in c.anomalies] == [c for _, c in outcome.confirmed]
        assert all(claim.strength == "confirmed" for claim in outcome.claims)
        assert outcome.forecast.brier < 0.25


def test_a_weakened_block_is_found_by_the_factor_that_restores_it() -> None:
    lab = FakeLaboratory("scaled", (4,), factor=0.4)
    outcome = run_agent(settings(), lab, scientist(), None, 1)
    ((_, claim),) = outcome.confirmed
    assert claim.kind == "scaled"
    assert claim.blocks == (4,)
    assert claim.factor == pytest.approx(2.5, rel=0.25)


def test_no_claim_about_a_model_as_it_is() -> None:
    for policy in (scientist, random_policy, fixed_sweep):
        for seed in range(5):
            outcome = run_agent(settings(), FakeLaboratory(), policy(), None, seed)
            assert not outcome.confirmed
            assert outcome.document["claims"] == []


@pytest.mark.parametrize("policy", [scientist, random_policy, fixed_sweep])
def test_where_every_claim_is_just_false_few_sessions_confirm_one(policy) -> None:
    """Each session's rate of false claims is at most alpha: so many of 50 are not beyond it."""
    alpha = settings().alpha
    false = n_tests = 0
    for seed in range(SEEDS):
        outcome = run_agent(settings(), BoundaryLaboratory(seed=seed), policy(), None, seed)
        false += bool(outcome.confirmed)
        n_tests += len(outcome.tests)
    assert binom.sf(false - 1, SEEDS, alpha) > 0.05
    assert n_tests > (10 if policy is scientist else 2 * SEEDS)


def test_without_a_level_the_same_tests_would_often_confirm() -> None:
    """The check sees a level that is too high: what keeps the rate down is alpha."""
    false = sum(
        bool(
            run_agent(
                settings(alpha=0.9, method="spending"), BoundaryLaboratory(seed=seed),
                fixed_sweep(), None, seed,
            ).confirmed
        )
        for seed in range(15)
    )  # fmt: skip
    assert false > 5


def test_policies_decide_by_seed_and_observations_only() -> None:
    lab = FakeLaboratory("swapped", (2, 3))
    for policy in (scientist, random_policy, fixed_sweep):
        first, again = (run_agent(settings(), lab, policy(), None, 3).tests for _ in range(2))
        assert first == again


def test_depth_is_halved_where_leaving_out_costs_least() -> None:
    """With tokens for few plans the single blocks of the cheaper half are still reached."""
    lab = FakeLaboratory("no_op", (3,))
    tokens = 10 * 32 * TOKENS
    budget = {"forward_tokens": int(tokens / EXPLORING_SHARE), "confirmatory": 4}
    outcome = run_agent(settings(budget=budget, placebo_share=0), lab, scientist(), None, 1)
    assert 0 < outcome.spent.exploring <= tokens
    assert [str(claim) for _, claim in outcome.confirmed] == ["no_op 3"]
    asked = [text for text, _ in lab.asked]
    assert asked.index("4 5 6 7") < asked.index("0 1 4 5 6 7") < asked.index("0 1 2 4 5 6 7")
    assert "0 1 2 3 5 6 7" not in asked
