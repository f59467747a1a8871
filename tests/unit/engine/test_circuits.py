"""Circuits, their growth, and the check of attributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double_models import double_model
from plain_decoders import run_plain
from tiny_models import tiny_pairs

from interpflow.engine import Site
from interpflow.engine.circuits.attribution import attribute_states
from interpflow.engine.circuits.attribution_check import Verification, verify_edges, verify_states
from interpflow.engine.circuits.circuit import (
    CircuitValues,
    evaluate_edge_circuits,
    evaluate_node_circuits,
    top_edges,
    top_nodes,
)
from interpflow.engine.circuits.edge_attribution import attribute_edges
from interpflow.engine.circuits.edges import Edge, EdgeMap, Receiver
from interpflow.engine.circuits.growth import grow, grow_edge_circuit, grow_node_circuit
from interpflow.engine.circuits.patch_sets import PatchCell
from interpflow.engine.metrics import logit_diff_metric
from interpflow.errors import UserError
from interpflow.stats.faithfulness import MIB_FRACTIONS, faithfulness_curve

N_PAIRS = 2
METRIC = logit_diff_metric([3, 5], [4, 6])


def value(logits: torch.Tensor, pair: int) -> float:
    return METRIC(logits[None], torch.tensor([pair]))["logit_diff"].item()


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped", "gpt_neox"])
def test_edge_circuits_equal_a_plain_decoder(kind):
    """In the plain decoder every edge outside the circuit reads the corrupted run's sender."""
    model = double_model(kind)
    clean, corrupted = tiny_pairs(N_PAIRS)
    edges = EdgeMap.of(model)
    rng = np.random.default_rng(3)
    kept = [e for e in edges.edges() if rng.random() < 0.6]
    found = evaluate_edge_circuits(model, clean, corrupted, METRIC, [kept, edges.edges(), ()])
    for pair in range(N_PAIRS):
        with torch.no_grad():
            other = run_plain(kind, model.module, torch.tensor(corrupted[pair]))[1]
            cut = {(str(e.receiver), str(e.sender)): other[str(e.sender)]
                   for e in set(edges.edges()) - set(kept)}  # fmt: skip
            logits = run_plain(kind, model.module, torch.tensor(clean[pair]), cut)[0]
        np.testing.assert_allclose(found.circuit[pair, 0], value(logits, pair), atol=1e-6)
    np.testing.assert_allclose(found.circuit[:, 1], found.full, atol=1e-6)
    np.testing.assert_allclose(found.circuit[:, 2], found.empty)
    np.testing.assert_allclose(found.empty, found.corrupted, atol=1e-6)
    assert np.abs(found.circuit[:, 0] - found.full).min() > 1e-3
    assert np.abs(found.circuit[:, 0] - found.empty).min() > 1e-3
    clean_run = [value(x, i) for i, x in enumerate(model.last_logits(clean))]
    np.testing.assert_allclose(found.full, clean_run, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped", "gpt_neox", "gemma2"])
def test_node_circuits(kind):
    """Full is clean, empty is corrupted; where no norm follows attention, a node circuit is the
    edge circuit of all edges that leave its nodes."""
    model = double_model(kind)
    clean, corrupted = tiny_pairs(N_PAIRS)
    edges = EdgeMap.of(model)
    rng = np.random.default_rng(4)
    kept = [Site("embed"), *(s for s in edges.senders[1:] if rng.random() < 0.6)]
    found = evaluate_node_circuits(
        model, clean, corrupted, METRIC, [edges.senders, (), kept, kept[1:]]
    )
    np.testing.assert_allclose(found.circuit[:, 0], found.full, atol=1e-6)
    np.testing.assert_allclose(found.circuit[:, 1], found.corrupted, atol=1e-6)
    np.testing.assert_allclose(found.empty, found.corrupted, atol=1e-6)
    # Without the embedding nothing of the clean prompt arrives.
    np.testing.assert_allclose(found.circuit[:, 3], found.corrupted, atol=1e-6)
    assert np.abs(found.circuit[:, 2] - found.full).min() > 1e-3
    if kind == "gemma2":
        return
    leaving = [e for e in edges.edges() if e.sender in kept]
    by_edges = evaluate_edge_circuits(model, clean, corrupted, METRIC, [leaving])
    np.testing.assert_allclose(by_edges.circuit[:, 0], found.circuit[:, 2], atol=1e-6)


def test_replacements_of_circuits():
    model = double_model("gpt2")
    clean, corrupted = tiny_pairs(N_PAIRS)
    for replacement in ("zero", "mean"):
        edges = evaluate_edge_circuits(
            model, clean, corrupted, METRIC, [EdgeMap.of(model).edges()], replacement=replacement
        )
        np.testing.assert_allclose(edges.circuit[:, 0], edges.full, atol=1e-10)
        nodes = evaluate_node_circuits(
            model, clean, corrupted, METRIC, [()], replacement=replacement
        )
        np.testing.assert_allclose(nodes.empty, edges.empty, atol=1e-10)
        assert np.abs(edges.empty - edges.corrupted).max() > 1e-3
    with pytest.raises(UserError, match="no replacement"):
        evaluate_node_circuits(model, clean, corrupted, METRIC, [()], replacement="noise")


def test_faithfulness_curve_of_attributed_edges():
    """The best edges by EAP-IG restore more than random ones; the curve ends at 1."""
    model = double_model("llama_grouped")
    clean, corrupted = tiny_pairs(N_PAIRS)
    scores = attribute_edges(model, corrupted, clean, METRIC, path="inputs", steps=4)
    edges = scores.edges
    worth = scores.mean if scores.donor.mean() > scores.base.mean() else -scores.mean
    masks = top_edges(edges, worth)
    found = evaluate_edge_circuits(model, clean, corrupted, METRIC, masks)
    curve = faithfulness_curve(found.circuit, found.full, found.empty, seed=0, n_resamples=50)
    assert curve.values.shape == (len(MIB_FRACTIONS),)
    np.testing.assert_allclose(curve.per_pair[:, -1], 1.0)
    rng = np.random.default_rng(5)
    chance = top_edges(edges, rng.standard_normal(worth.shape))
    other = evaluate_edge_circuits(model, clean, corrupted, METRIC, chance)
    sign = np.sign(found.full - found.empty).mean()
    assert sign * (found.circuit[:, -2] - other.circuit[:, -2]).mean() > 0


def test_top_edges():
    edges = EdgeMap(n_layers=2, n_heads=2, n_kv_heads=1, parallel=False)
    scores = np.where(edges.exists, 0.0, np.nan)
    direct, inner = (
        Edge(Site("embed"), Receiver("logits")),
        Edge(Site("embed"), Receiver("k", 1, 0)),
    )
    outer = Edge(Site("head_out", 1, 1), Receiver("logits"))
    scores[edges.index(direct)], scores[edges.index(inner)] = 1.0, -3.0
    scores[edges.index(outer)] = 2.0
    share = [1 / edges.n_edges, 2 / edges.n_edges]
    by_value = top_edges(edges, scores, share)
    assert set(edges.edges(by_value[1])) == {direct, outer}
    by_size = top_edges(edges, scores, share, by="size")
    assert edges.edges(by_size[0]) == (inner,)
    # The largest edge leads nowhere before its head is read: the outer one comes first.
    connected = top_edges(edges, scores, share, by="size", connected=True)
    assert edges.edges(connected[0]) == (outer,)
    assert set(edges.edges(connected[1])) == {outer, inner}
    whole = top_edges(edges, scores, [0.0, 1.0], connected=True)
    assert not whole[0].any()
    np.testing.assert_array_equal(whole[1], edges.exists)
    with pytest.raises(UserError, match="rank by"):
        top_edges(edges, scores, by="rank")
    nodes = top_nodes({Site("mlp_out", 0): 1.0, Site("head_out", 0, 1): -2.0}, [0.0, 0.5, 1.0])
    assert nodes[:2] == [{Site("embed")}, {Site("embed"), Site("mlp_out", 0)}]
    assert len(nodes[2]) == 3


def test_greedy_growth_finds_pairs_that_only_work_together():
    """Values as given by a table: a and b alone give 1 and 0.5, b and c together 5."""
    table = {"": 0.0, "a": 1.0, "b": 0.5, "c": 0.0, "ab": 1.2, "ac": 1.1, "bc": 5.0, "abc": 6.0}
    asked = []

    def evaluate(circuits):
        asked.extend(circuits)
        values = [table["".join(sorted(kept))] for kept in circuits]
        return CircuitValues(np.array([values]), np.array([6.0]), np.array([0.0]), np.array([0.0]))

    grown = grow(evaluate, list("abc"), budget=3)
    assert grown.order == ("a", "b", "c")
    np.testing.assert_allclose(grown.values, [[0.0, 1.0, 1.2, 6.0]])
    np.testing.assert_allclose(grown.gains, [[1.0, 0.2, 4.8]])
    assert frozenset("ac") in asked  # every round asks for every candidate that is left
    assert grow(evaluate, list("abc"), budget=1, start="b").order == ("c",)
    table["a"] = 9.0
    assert grow(evaluate, list("abc"), budget=1, aim="full").order == ("a",)
    table["b"] = 5.9
    assert grow(evaluate, list("abc"), budget=1, aim="full").order == ("b",)
    with pytest.raises(UserError, match="budget of 4"):
        grow(evaluate, list("abc"), budget=4)


def test_growth_on_a_model():
    model = double_model("gpt2")
    clean, corrupted = tiny_pairs(N_PAIRS)
    candidates = [Site("mlp_out", layer) for layer in range(3)] + [Site("head_out", 0, 1)]
    grown = grow_node_circuit(model, clean, corrupted, METRIC, candidates, budget=2)
    singles = evaluate_node_circuits(
        model, clean, corrupted, METRIC, [[Site("embed"), c] for c in candidates]
    ).circuit
    best = int(singles.mean(axis=0).argmax())
    assert grown.order[0] == candidates[best]
    np.testing.assert_allclose(grown.values[:, 1], singles[:, best])
    edges = [Edge(Site("embed"), Receiver("mlp", 0)), Edge(Site("mlp_out", 0), Receiver("logits")),
             Edge(Site("mlp_out", 1), Receiver("logits"))]  # fmt: skip
    by_edge = grow_edge_circuit(model, clean, corrupted, METRIC, edges, budget=3)
    assert set(by_edge.order) == set(edges)
    both = evaluate_edge_circuits(model, clean, corrupted, METRIC, [edges])
    np.testing.assert_allclose(by_edge.values[:, -1], both.circuit[:, 0])


def test_verification_of_states_and_edges():
    model = double_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)
    states = attribute_states(model, base, donor, METRIC, components=("head_out", "mlp_out"))
    edges = attribute_edges(model, base, donor, METRIC)
    for check, scores in ((verify_states, states), (verify_edges, edges)):
        found = check(scores, model, base, donor, METRIC, k=10, n_random=15, seed=0)
        summary = found.summary()
        assert (summary.n_top, summary.n_random) == (10, 15)
        rest = np.abs(found.estimates[~found.is_top].mean(axis=1))
        assert np.abs(found.estimates[found.is_top].mean(axis=1)).min() >= rest.max()
        assert summary.pearson > 0.5
        assert summary.sign_agreement > 0.6
        again = check(scores, model, base, donor, METRIC, k=10, n_random=15, seed=0)
        assert again.items == found.items
        assert len(found.to_rows()) == 25
    # A donor near the base leaves nothing for higher orders: estimates are exact.
    near = check_near(model, base)
    assert near.pearson > 0.9999


def check_near(model, base):
    """Effects of moving the embedding by a thousandth: first order is all there is."""
    with torch.no_grad():
        table = model.module.get_input_embeddings().weight
        table[49] = table[1] + 1e-3 * (table[2] - table[1])
    rows = [[1 if t == 49 else t for t in row] for row in base]
    rows = [[1, *row[1:]] for row in rows]
    moved = [[49, *row[1:]] for row in rows]
    scores = attribute_edges(model, rows, moved, METRIC)
    return verify_edges(scores, model, rows, moved, METRIC, k=20, n_random=10, seed=1).summary()


def test_summary_of_known_numbers():
    exact = np.array([[4.0], [-1.0], [3.0], [0.0]])
    estimates = np.array([[5.0], [2.0], [1.0], [0.5]])
    found = Verification(
        ("a", "b", "c", "d"), np.array([True, True, False, False]), estimates, exact
    )
    summary = found.summary()
    assert summary.max_abs_error == 3.0
    assert summary.median_abs_error == 1.5
    assert summary.sign_agreement == 0.5
    assert summary.missed_share == 0.5  # c belongs to the two largest, d does not
    assert summary.spearman == pytest.approx(0.4)
    audit = found.audit(smallest_effect=2.0)
    assert (audit.n_large, audit.n_missed) == (2, 1)
    assert found.to_rows()[2] == {
        "item": "c", "sample": "random", "estimate": 1.0, "exact": 3.0, "error": -2.0,
    }  # fmt: skip


def test_sites_and_masks_outside_are_refused():
    model = double_model("gpt2")
    clean, corrupted = tiny_pairs(N_PAIRS)
    with pytest.raises(UserError, match="not among the nodes"):
        evaluate_node_circuits(model, clean, corrupted, METRIC, [[Site("resid_post", 0)]])
    found = evaluate_node_circuits(
        model, clean, corrupted, METRIC, [()], nodes=[Site("resid_post", 2)]
    )
    np.testing.assert_allclose(found.circuit[:, 0], found.corrupted)
    with pytest.raises(UserError, match="do not fit"):
        evaluate_edge_circuits(model, clean, corrupted, METRIC, np.ones((1, 3, 3), dtype=bool))
    assert PatchCell(Site("embed")).sort_key < PatchCell(Site("mlp_out", 0)).sort_key
