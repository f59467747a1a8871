"""Edge patching and edge attribution against the edges that are known to carry the answer."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from planted_runs import MAKERS, planted

from interpflow.engine import load
from interpflow.engine.circuits.edge_attribution import attribute_edges
from interpflow.engine.circuits.edges import Edge, EdgeMap
from interpflow.engine.circuits.path_patching import patch_edges
from interpflow.engine.metrics import logit_diff_metric
from interpflow.errors import UserError
from interpflow.models.planted import TASKS, Task, TruthScore, roles_of_edges, score_against_truth
from interpflow.models.planted.plan import N_KV_HEADS
from interpflow.stats.site_ranking import rank_sites

BOTH = pytest.mark.parametrize("name", MAKERS)
N_PAIRS = 3
# Steps of the integrated gradients; an even number has no point halfway.
STEPS = 4
# What the softmax of attention saturates: the key that head 2.3 finds by, and what is in it.
SATURATED = {
    "gpt2": {"embed->v.L0.H2", "head_out.L0.H2->k.L2.H3"},
    "llama": {"embed->v.L0.H0", "head_out.L0.H2->k.L2.H0"},
}


def edge_map(name: str) -> EdgeMap:
    return EdgeMap.of(load(planted(name, "induction").module))


@cache
def effects(
    name: str,
    task: Task,
    method: str,
    *,
    connected: bool = True,
    direction: str = "denoise",
    steps: int = STEPS,
) -> tuple[tuple[Edge, ...], np.ndarray]:
    """Edges and their effects [pair, edge]: "exact", or attributed along a path."""
    model = planted(name, task)
    engine, pairs = load(model.module), model.make_pairs(N_PAIRS, seed=7)
    metric = logit_diff_metric([p.answers[0] for p in pairs], [p.answers[1] for p in pairs])
    base, donor = [p.corrupted for p in pairs], [p.clean for p in pairs]
    if direction == "noise":
        base, donor = donor, base
    donor = donor if connected else base
    edges = EdgeMap.of(engine).edges()
    if method == "exact":
        found = patch_edges(engine, base, donor, metric, [[edge] for edge in edges])
        return edges, found.effects.T
    scores = attribute_edges(engine, base, donor, metric, path=method, steps=steps)
    where = np.argwhere(scores.edges.exists)
    return edges, scores.scores[:, where[:, 0], where[:, 1]]


def scored(name: str, task: Task, method: str, **how: bool | str) -> TruthScore:
    edges, values = effects(name, task, method, **how)  # type: ignore[arg-type]
    return score_against_truth(values, roles_of_edges(planted(name, task).edge_truth, edges))


def unseen(name: str, method: str, steps: int = STEPS) -> set[str]:
    """Needed edges of the induction circuit whose attribution is as good as 0."""
    edges, values = effects(name, "induction", method, steps=steps)
    roles = roles_of_edges(planted(name, "induction").edge_truth, edges)
    mean = np.abs(values.mean(axis=0))
    return {str(e) for e, r, m in zip(edges, roles, mean) if r == "needed" and m < 1e-4}


@pytest.mark.parametrize("task", TASKS)
@BOTH
def test_truth_names_every_edge_once(name: str, task: Task) -> None:
    model, edges = planted(name, task), edge_map(name)
    assert [str(edge) for edge in model.edge_truth] == [str(edge) for edge in edges.edges()]
    dead = {(site.component, site.layer, site.head) for site in model.truth if site.role == "dead"}
    needed = {
        (site.component, site.layer, site.head) for site in model.truth if site.role == "needed"
    }
    for planted_edge, edge in zip(model.edge_truth, edges.edges()):
        sender = (edge.sender.component, edge.sender.layer, edge.sender.head)
        fed = [
            (part.component, part.layer, part.head)
            for part in edges.senders
            if edge.receiver in edges.receivers_of(part)
        ]
        is_dead = sender in dead or (bool(fed) and all(part in dead for part in fed))
        assert (planted_edge.role == "dead") == is_dead
        if planted_edge.role == "needed":
            assert sender in needed or edge.sender.component == "embed"
            assert not fed or any(part in needed for part in fed)
    n_needed = sum(edge.role == "needed" for edge in model.edge_truth)
    assert n_needed == (6 if task == "redundant" else 4)


@pytest.mark.parametrize("task", TASKS)
@BOTH
def test_exact_patches_find_every_needed_edge_and_no_other(name: str, task: Task) -> None:
    score = scored(name, task, "exact")
    assert (score.auroc.estimate, score.auprc.estimate, score.tpr.estimate) == (1.0, 1.0, 1.0)
    assert score.auprc.base_rate < 0.01
    assert score.weakest_needed > 5
    assert score.strongest_irrelevant < 1e-5
    assert score.n_dead > 400
    assert score.n_dead_effects == 0


@pytest.mark.parametrize("method", ["base", "inputs"])
@BOTH
def test_attribution_finds_every_edge_of_a_mechanism_with_slopes(name: str, method: str) -> None:
    score = scored(name, "counting", method)
    assert (score.auroc.estimate, score.auprc.estimate) == (1.0, 1.0)
    assert score.weakest_needed > 0.1
    assert score.strongest_irrelevant < 1e-4
    assert score.n_dead_effects == 0


@pytest.mark.parametrize("method", ["base", "inputs"])
@BOTH
def test_attribution_misses_edges_behind_a_saturated_softmax(name: str, method: str) -> None:
    """Hard attention has no slope at either prompt, nor anywhere between them but where the two
    keys tie: half of the induction circuit is invisible to gradients, and exact patches see it."""
    edges, values = effects(name, "induction", method)
    score = scored(name, "induction", method)
    assert score.n_dead_effects == 0
    assert unseen(name, method) == SATURATED[name]
    roles = roles_of_edges(planted(name, "induction").edge_truth, edges)
    order = np.argsort(-np.abs(values.mean(axis=0)), kind="stable")
    assert {roles[i] for i in order[:2]} == {"needed"}
    assert 0.5 < score.auprc.estimate < 1
    assert scored(name, "induction", "exact").weakest_needed > 10


@BOTH
def test_a_step_at_the_tie_of_two_keys_sees_behind_the_softmax(name: str) -> None:
    """An odd number of midpoints has one halfway: luck of the design, not of the method."""
    assert unseen(name, "inputs", steps=STEPS + 1) == set()


@pytest.mark.parametrize("method", ["exact", "base"])
@BOTH
def test_disconnected_or_shuffled_effects_find_nothing(name: str, method: str) -> None:
    score = scored(name, "counting", method, connected=False)
    assert score.auroc.estimate == 0.5
    assert score.auprc.estimate == score.auprc.base_rate
    edges, values = effects(name, "counting", method)
    roles = roles_of_edges(planted(name, "counting").edge_truth, edges)
    shuffled = np.random.default_rng(0).permutation(values, axis=1)
    score = score_against_truth(shuffled, roles)
    assert score.auprc.estimate < 0.1
    assert score.auroc.estimate < 0.9


def test_redundant_edges_are_missed_by_noising() -> None:
    score = scored("llama", "redundant", "exact", direction="noise")
    assert score.weakest_needed < 1e-5
    assert score.auroc.estimate < 1
    assert score.n_dead_effects == 0


def test_the_ranking_of_edges_has_an_interval_over_pairs() -> None:
    edges, values = effects("llama", "induction", "base")
    roles = roles_of_edges(planted("llama", "induction").edge_truth, edges)
    labels = [role == "needed" for role in roles]
    found = rank_sites(values, labels, measure="auprc", n_resamples=200, seed=0)
    assert found.score.estimate == scored("llama", "induction", "base").auprc.estimate
    assert found.score.n_positive == 4
    assert found.score.n_sites == len(edges)


def test_unknown_edges_are_refused() -> None:
    truth = planted("llama", "induction").edge_truth
    assert max(int(e.receiver.split("H")[1]) for e in truth if e.receiver[0] == "k") < N_KV_HEADS
    with pytest.raises(UserError, match=r"nothing is known of embed->k\.L0\.H5"):
        roles_of_edges(truth, ["embed->k.L0.H5"])
