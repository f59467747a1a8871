"""Block influence, and its rank correlation with damage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from interpflow.errors import UserError
from interpflow.stats.block_influence import block_influence, influence_against_damage
from interpflow.stats.record import NO_VARIATION, TOO_FEW_CLUSTERS
from interpflow.stats.representation import cosine_distance, relative_norm

BEFORE, AFTER = [[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]


def test_known_influence() -> None:
    # methods 6.4: per token, not of all tokens as one vector (.1835034).
    assert block_influence(BEFORE, AFTER) == pytest.approx(0.1464466, abs=1e-7)
    flat = cosine_distance(np.reshape(BEFORE, (1, 4)), np.reshape(AFTER, (1, 4)))[0]
    assert flat == pytest.approx(0.1835034, abs=1e-7)
    assert relative_norm(AFTER, BEFORE).tolist() == pytest.approx([0.0, 0.7071068])


def test_a_block_that_adds_nothing_has_none() -> None:
    states = np.random.default_rng(0).normal(size=(50, 7))
    assert block_influence(states, states) == 0.0
    assert block_influence(states, 3.0 * states) == pytest.approx(0.0, abs=1e-15)
    assert block_influence(states, -states) == pytest.approx(2.0)


def test_tokens_without_length_are_left_out() -> None:
    assert block_influence([[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(1.0)
    assert math.isnan(block_influence([[0.0, 0.0]], [[1.0, 0.0]]))


def test_known_rank_correlation() -> None:
    # methods 6.5: ρ = .9642857, exact p = .0027778.
    distance = (1, 3, 6, 10, 15, 22, 30)
    damage = (0.05, 0.2, 0.15, 0.8, 1.1, 2.0, 2.4)
    found = influence_against_damage(distance, damage)
    assert found.estimate == pytest.approx(0.9642857, abs=1e-7)
    assert found.p_value == pytest.approx(0.0027778, abs=1e-6)
    assert found.test == "spearman_exact"
    assert found.ci_low < found.estimate < found.ci_high <= 1


def test_ties_and_many_blocks_agree_with_scipy() -> None:
    rng = np.random.default_rng(4)
    one = rng.integers(0, 6, 24).astype(float)
    two = one + rng.normal(0, 3, 24)
    found = influence_against_damage(one, two, seed=0)
    rho, p = (float(value) for value in tuple(spearmanr(one, two)))
    assert found.estimate == pytest.approx(rho)
    assert found.p_value == pytest.approx(p, abs=0.02)


def test_what_cannot_be_correlated_is_said() -> None:
    assert TOO_FEW_CLUSTERS in influence_against_damage([1, 2], [1, 2]).flags
    assert NO_VARIATION in influence_against_damage([1, 1, 1], [1, 2, 3]).flags
    dropped = influence_against_damage([1, 2, math.nan, 4], [1, 2, 3, 4])
    assert (dropped.n_units, dropped.n_dropped) == (3, 1)
    assert math.isnan(dropped.ci_low)
    with pytest.raises(UserError, match="do not fit"):
        influence_against_damage([1, 2, 3], [1, 2])
