"""The engine's sweeps find what was planted, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from planted_runs import MAKERS, planted, swept

from interpflow.engine import Site, load, sweep
from interpflow.models.planted import (
    Role,
    Task,
    TruthScore,
    effects_at_span,
    roles_of,
    score_against_truth,
    score_directions,
)
from interpflow.models.planted.plan import N_HEADS, N_LAYERS
from interpflow.models.planted.vocabulary import ANSWER_POSITION

BOTH = pytest.mark.parametrize("name", MAKERS)
DIRECTIONS = ("denoise", "noise")
N_PAIRS = 6


def found(
    name: str, task: Task, *, heads_only: bool = False, connected: bool = True
) -> dict[str, TruthScore]:
    """Scores of heads and MLPs over all positions; of heads alone at the answer."""
    model = planted(name, task)
    pairs = model.make_pairs(N_PAIRS, seed=7)
    sites = None
    if heads_only:
        sites = [Site("head_out", i, h) for i in range(N_LAYERS) for h in range(N_HEADS)]
    effects, roles = {}, ()
    for direction in DIRECTIONS:
        options = {"positions": [ANSWER_POSITION]} if heads_only else {}
        chosen, effects[direction] = swept(
            model, pairs, direction, sites=sites, connected=connected, **options
        )
        roles = roles_of(model.truth, chosen, at="answer" if heads_only else None)
    return score_directions(effects, roles)


@pytest.mark.parametrize("task", ["induction", "counting"])
@BOTH
def test_sweeps_over_positions_rank_every_needed_part_first(name: str, task: Task) -> None:
    for score in found(name, task).values():
        assert score.auroc.estimate == 1.0
        assert score.auprc.estimate == 1.0
        assert score.auprc.base_rate == 3 / (N_LAYERS * (N_HEADS + 1))
        assert score.tpr.estimate == 1.0
        assert score.weakest_needed > 0.5
        assert score.strongest_irrelevant < 1e-5
        assert score.n_dead > 20
        assert score.n_dead_effects == 0


@pytest.mark.parametrize("task", ["induction", "counting"])
@BOTH
def test_sweeps_at_the_answer_find_the_one_head_that_acts_there(name: str, task: Task) -> None:
    for score in found(name, task, heads_only=True).values():
        assert (score.auroc.estimate, score.auprc.estimate) == (1.0, 1.0)
        assert score.auprc.n_positive == 1
        assert score.weakest_needed > 10
        assert score.n_dead_effects == 0


@BOTH
def test_sweeps_that_reach_nothing_find_nothing(name: str) -> None:
    for score in found(name, "induction", connected=False).values():
        assert score.auroc.estimate == 0.5
        assert score.auprc.estimate == score.auprc.base_rate
        assert score.weakest_needed == 0.0


@BOTH
def test_redundant_heads_are_seen_by_denoising_and_missed_by_noising(name: str) -> None:
    scores = found(name, "redundant")
    for score in scores.values():
        assert score.n_dead_effects == 0
    assert (scores["denoise"].auroc.estimate, scores["denoise"].auprc.estimate) == (1.0, 1.0)
    noise = scores["noise"]
    assert noise.weakest_needed < 1e-5
    # Two of four needed parts are found, the other two are lost among the 32 without effect.
    assert noise.auroc.estimate == pytest.approx(0.75, abs=0.25)
    assert noise.auroc.estimate < 1
    assert noise.auprc.estimate < 0.75


@pytest.mark.parametrize("task", ["induction", "redundant", "counting"])
@BOTH
def test_parts_act_where_they_should_and_nowhere_else(name: str, task: Task) -> None:
    model = planted(name, task)
    pairs = model.make_pairs(N_PAIRS, seed=8)
    sites = [Site(s.component, s.layer, s.head) for s in model.truth if s.role == "needed"]
    spans = [s.acts_at for s in model.truth if s.role == "needed"]
    _, effects = swept(model, pairs, "denoise", sites=sites)
    for index, acts_at in enumerate(spans):
        assert (effects_at_span(effects, pairs, acts_at[0])[:, index] > 0.5).all()
        for row, pair in enumerate(pairs):
            elsewhere = np.delete(effects[row, index], list(pair.spans[acts_at[0]]))
            assert np.abs(elsewhere).max() < 1e-5


@BOTH
def test_pairs_go_into_the_public_sweep_as_they_are(name: str) -> None:
    model = planted(name, "induction")
    pairs = [pair.as_mapping() for pair in model.make_pairs(N_PAIRS, seed=7)]
    # The gates ask that keys and values at the last position matter: here they do not.
    found = sweep(load(model.module), pairs, "head_out", "answer", check="audit")
    sites = [Site("head_out", i, h) for i in range(N_LAYERS) for h in range(N_HEADS)]
    effects = found.effects["logit_diff"].reshape(N_PAIRS, len(sites))
    score = score_against_truth(effects, roles_of(model.truth, sites, at="answer"))
    assert (score.auroc.estimate, score.n_dead_effects) == (1.0, 0)


def test_a_wrong_truth_is_noticed() -> None:
    model = planted("llama", "induction")
    pairs = model.make_pairs(N_PAIRS, seed=7)
    sites, effects = swept(model, pairs, "denoise", positions=[ANSWER_POSITION])
    roles: list[Role] = list(roles_of(model.truth, sites))
    twin, real = (sites.index(Site("head_out", 2, head)) for head in (7, 3))
    roles[twin], roles[real] = "needed", "dead"
    score = score_against_truth(effects, roles)
    assert score.auroc.estimate < 0.9
    assert score.n_dead_effects == N_PAIRS
