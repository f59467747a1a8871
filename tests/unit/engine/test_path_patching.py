"""Exact edge patches against decoders written out in plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double_models import double_model
from plain_decoders import run_plain
from tiny_models import hook_count, tiny_model, tiny_pairs

from interpflow.engine import Site
from interpflow.engine.circuits.edges import Edge, EdgeMap, Receiver
from interpflow.engine.circuits.path_patching import patch_edge_masks, patch_edges
from interpflow.engine.circuits.residual_graph import residual_graph
from interpflow.engine.metrics import logit_diff_metric
from interpflow.errors import UserError

N_PAIRS = 2
METRIC = logit_diff_metric([3, 5], [4, 6])


def plain_values(kind, model, base, donor, edges, positions=None) -> np.ndarray:
    """The metric of the plain decoder with these edges cut, per pair."""
    found = []
    for pair in range(N_PAIRS):
        ids = [torch.tensor(rows[pair]) for rows in (base, donor)]
        with torch.no_grad():
            own = run_plain(kind, model.module, ids[0])[1]
            other = run_plain(kind, model.module, ids[1])[1]
            cut = {}
            for edge in edges:
                value = other[str(edge.sender)]
                if positions is not None:
                    # Valid for single edges only: elsewhere the sender keeps the base's value.
                    value = own[str(edge.sender)].clone()
                    value[positions[pair]] = other[str(edge.sender)][positions[pair]]
                cut[str(edge.receiver), str(edge.sender)] = value
            logits = run_plain(kind, model.module, ids[0], cut)[0]
        found.append(METRIC(logits[None], torch.tensor([pair]))["logit_diff"].item())
    return np.array(found)


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped", "gpt_neox"])
def test_edges_alone_and_together_equal_a_plain_decoder(kind):
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    whole = run_plain(kind, model.module, torch.tensor(base[0]))[0]
    np.testing.assert_allclose(
        whole.detach().numpy(), model.last_logits([base[0]])[0].numpy(), rtol=1e-6, atol=1e-6
    )
    edges = EdgeMap.of(model).edges()
    rng = np.random.default_rng(0)
    sets = [[edges[i]] for i in rng.choice(len(edges), 24, replace=False)]
    for share in (0.05, 0.5, 0.9):
        sets.append([e for e in edges if rng.random() < share])
    expected = np.stack([plain_values(kind, model, base, donor, chosen) for chosen in sets])
    found = patch_edges(model, base, donor, METRIC, sets, batch_tokens=100)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-6)
    assert (np.abs(found.effects).max(axis=1) > 1e-3).mean() > 0.8
    assert hook_count(model) == sum("forward" in m.__dict__ for m in model.module.modules())


def test_every_kind_of_edge_has_its_own_effect():
    kind = "llama_grouped"
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    head, mlp = Site("head_out", 0, 3), Site("mlp_out", 1)
    receivers = [Receiver("q", 1, 2), Receiver("k", 1, 1), Receiver("v", 2, 0),
                 Receiver("mlp", 0), Receiver("mlp", 2), Receiver("logits")]  # fmt: skip
    sets = [[Edge(head, receiver)] for receiver in receivers] + [[Edge(mlp, Receiver("q", 2, 1))]]
    found = patch_edges(model, base, donor, METRIC, sets).effects
    expected = np.stack([plain_values(kind, model, base, donor, chosen) for chosen in sets])
    unpatched = plain_values(kind, model, base, donor, [])
    np.testing.assert_allclose(found, expected - unpatched, atol=1e-6)
    assert np.abs(found).min(axis=1).max() > 1e-3
    assert len(np.unique(found.round(9), axis=0)) == len(sets)


def test_positions_of_a_sender():
    kind = "gpt2"
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    positions = [[3, 8], [5]]
    sets = [[Edge(Site("embed"), Receiver("v", 0, 1))],
            [Edge(Site("mlp_out", 0), Receiver("k", 2, 1))]]  # fmt: skip
    found = patch_edges(model, base, donor, METRIC, sets, positions=positions)
    expected = [plain_values(kind, model, base, donor, chosen, positions) for chosen in sets]
    np.testing.assert_allclose(found.values, np.stack(expected), atol=1e-10)
    everywhere = patch_edges(model, base, donor, METRIC, sets)
    assert np.abs(found.values - everywhere.values).max() > 1e-4
    with pytest.raises(UserError, match="position 11 lies outside"):
        patch_edges(model, base, donor, METRIC, sets, positions=[[11], [0]])


LAYOUTS = ("gpt2", "llama_grouped", "gpt_neox", "gemma2", "glm4", "opt", "olmo2", "granite",
           "stablelm_parallel", "mixtral", "gpt_oss")  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_no_edge_and_all_edges(kind):
    """No edge patched is the base run; all patched is the donor run, in every layout."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    graph = residual_graph(model)
    nothing = np.zeros_like(graph.edges.exists)
    found = patch_edge_masks(graph, base, donor, METRIC, np.stack([nothing, graph.edges.exists]))
    np.testing.assert_allclose(found.values[0], found.base, atol=1e-6)
    np.testing.assert_allclose(found.values[1], found.donor, atol=1e-6)
    assert np.abs(found.base - found.donor).min() > 1e-2


def test_zero_and_mean_replacements():
    """Into the logits, replacements only change the last residual: two lines give the answer."""
    model = double_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)
    edge = Edge(Site("head_out", 1, 2), Receiver("logits"))
    kept = [run_plain("gpt2", model.module, torch.tensor(rows))[1][str(edge.sender)].detach()
            for rows in donor]  # fmt: skip
    given = {"zero": torch.zeros_like(kept[0]), "mean": torch.cat(kept).mean(dim=0)}
    for replacement, value in given.items():
        found = patch_edges(model, base, donor, METRIC, [[edge]], replacement=replacement)
        for pair in range(N_PAIRS):
            cut = {(str(edge.receiver), str(edge.sender)): value.expand_as(kept[0])}
            logits = run_plain("gpt2", model.module, torch.tensor(base[pair]), cut)[0]
            expected = METRIC(logits[None], torch.tensor([pair]))["logit_diff"].item()
            np.testing.assert_allclose(found.values[0, pair], expected, atol=1e-10)


def test_the_map_of_edges():
    small = EdgeMap(n_layers=12, n_heads=12, n_kv_heads=12, parallel=False)
    assert small.n_edges == 32_491  # GPT-2 small, as ACDC and EAP count them
    grouped = EdgeMap(n_layers=2, n_heads=4, n_kv_heads=2, parallel=True)
    assert len(grouped.senders) == 1 + 2 * 5
    assert len(grouped.receivers) == 2 * (4 + 2 + 2 + 1) + 1
    assert Edge(Site("head_out", 0, 1), Receiver("mlp", 0)) not in grouped.edges()
    assert Edge(Site("head_out", 0, 1), Receiver("mlp", 1)) in grouped.edges()
    for edge in grouped.edges():
        assert grouped.edge(*grouped.index(edge)) == edge
    mask = grouped.mask(grouped.edges())
    np.testing.assert_array_equal(mask, grouped.exists)
    assert str(Edge(Site("embed"), Receiver("k", 1, 0))) == "embed->k.L1.H0"


def test_models_whose_blocks_are_not_ours_are_refused_by_name():
    model = tiny_model("bloom")
    base, donor = tiny_pairs(N_PAIRS)
    with pytest.raises(UserError, match="edges of this model cannot be told apart"):
        patch_edges(model, base, donor, METRIC, [[Edge(Site("embed"), Receiver("logits"))]])


def test_edges_that_do_not_exist_are_refused():
    model = double_model("llama_grouped")
    base, donor = tiny_pairs(N_PAIRS)
    for edge in (Edge(Site("mlp_out", 1), Receiver("q", 1, 0)),
                 Edge(Site("embed"), Receiver("k", 0, 2)),
                 Edge(Site("resid_post", 0), Receiver("logits"))):  # fmt: skip
        with pytest.raises(UserError, match="there is no edge"):
            patch_edges(model, base, donor, METRIC, [[edge]])
    with pytest.raises(UserError, match="no receiver"):
        Receiver("z", 0, 1)
