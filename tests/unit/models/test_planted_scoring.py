from __future__ import annotations

import numpy as np
import pytest
from planted_runs import planted, swept

from interpflow.engine import Site
from interpflow.errors import UserError
from interpflow.models.planted import (
    Role,
    effects_at_span,
    null_calibration,
    roles_of,
    score_against_truth,
    score_directions,
)
from interpflow.models.planted.pairs import make_pairs
from interpflow.models.planted.truth import PlantedSite
from interpflow.models.planted.vocabulary import ANSWER_POSITION, PROMPT_LENGTH
from interpflow.stats.permutation import sign_flip

ROLES: tuple[Role, ...] = ("needed", "irrelevant", "dead", "needed")


def test_the_largest_mean_over_positions_counts() -> None:
    effects = np.zeros((2, 4, 3))
    effects[:, 0, 1] = [3, 5]  # mean 4
    effects[:, 1, 2] = [6, -6]  # mean 0: large, but of no direction
    effects[:, 3, 0] = -1
    score = score_against_truth(effects, ROLES)
    np.testing.assert_array_equal(score.site_scores, [4, 0, 0, 1])
    assert (score.auroc.estimate, score.auprc.estimate, score.tpr.estimate) == (1, 1, 1)
    assert score.auprc.base_rate == 0.5
    assert (score.weakest_needed, score.strongest_irrelevant) == (1, 0)
    assert (score.n_dead, score.n_dead_effects) == (1, 0)


def test_known_ranking_with_a_mistake_and_a_dead_effect() -> None:
    effects = np.array([[4.0, 3.0, 1e-12, 2.0]])
    score = score_against_truth(effects, ROLES)
    assert score.auroc.estimate == pytest.approx(3 / 4)
    assert score.auprc.estimate == pytest.approx((1 + 2 / 3) / 2)
    assert score.n_dead_effects == 1


def test_dead_effects_are_counted_even_where_they_cancel() -> None:
    effects = np.zeros((2, 4, 1))
    effects[:, 2, 0] = [1, -1]
    assert score_against_truth(effects, ROLES).n_dead_effects == 2


def test_a_part_that_acts_elsewhere_is_irrelevant_at_the_answer() -> None:
    truth = (
        PlantedSite("head_out", 0, 1, "needed", "previous token", ("successors",)),
        PlantedSite("head_out", 1, 0, "needed", "induction", ("answer",)),
        PlantedSite("mlp_out", 1, None, "dead", ""),
    )
    assert roles_of(truth, truth[::-1]) == ("dead", "needed", "needed")
    assert roles_of(truth, truth[::-1], at="answer") == ("dead", "needed", "irrelevant")


def test_constant_scores_say_nothing() -> None:
    score = score_against_truth(np.full((5, 4, 2), 0.3), ROLES)
    assert score.auroc.estimate == 0.5
    assert score.auprc.estimate == score.auprc.base_rate == 0.5


def test_directions_are_scored_apart() -> None:
    shown, hidden = np.array([[1.0, 0, 0, 1]]), np.array([[1.0, 0, 0, 0]])
    scores = score_directions({"denoise": shown, "noise": hidden}, ROLES)
    assert [score.auroc.estimate for score in scores.values()] == [1, 0.75]


def test_spans_line_up_what_moves() -> None:
    pairs = make_pairs("redundant", 20, seed=0)
    effects = np.zeros((20, 2, PROMPT_LENGTH))
    for row, pair in enumerate(pairs):
        effects[row, 1, list(pair.spans["successors"])] = 1
    assert np.abs(effects.mean(axis=0)).max() < 0.5
    np.testing.assert_array_equal(effects_at_span(effects, pairs, "successors"), [[0, 1]] * 20)


def test_null_sites_of_real_effects_give_uniform_p() -> None:
    """Real effects of a head that matters, far from 0, but a coin says which prompt is clean."""
    model = planted("llama", "induction")
    pairs = model.make_pairs(60, seed=9)
    sides = [
        swept(model, pairs, d, sites=[Site("head_out", 2, 3)], positions=[ANSWER_POSITION])[1]
        for d in ("denoise", "noise")
    ]
    forward, backward = (side[:, 0, 0] for side in sides)
    assert (forward > 5).all()
    assert (backward < -5).all()
    settings = {"n_tests": 300, "pairs_per_test": 18, "seed": 11}
    null = null_calibration(forward, backward, **settings)
    assert null.ks_p_value > 0.05
    assert 0.02 < null.rejected < 0.09
    # Without the coin the effects are all of one sign: the same test must say so.
    real = null_calibration(forward, forward, **settings)
    assert real.ks_p_value < 1e-10
    assert real.rejected == 1.0


def test_effects_of_exactly_zero_are_no_evidence() -> None:
    assert sign_flip(np.zeros(12), seed=0).p_value == 1.0


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UserError, match="do not fit 4 sites"):
        score_against_truth(np.zeros((2, 3, 1)), ROLES)
    with pytest.raises(UserError, match="NaN"):
        score_against_truth(np.full((2, 4, 1), np.nan), ROLES)
    pairs = make_pairs("counting", 2, seed=0)
    with pytest.raises(UserError, match="no span 'successors'"):
        effects_at_span(np.zeros((2, 1, PROMPT_LENGTH)), pairs, "successors")
    with pytest.raises(UserError, match="do not fit 2 pairs"):
        effects_at_span(np.zeros((3, 1, PROMPT_LENGTH)), pairs, "answer")
    with pytest.raises(UserError, match="9 pairs a test"):
        null_calibration(np.ones(5), np.ones(5), n_tests=1, pairs_per_test=9, seed=0)
