"""Edge attribution against exact edge patches and against sums that must hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double_models import double_model
from plain_decoders import run_plain
from tiny_models import hook_count, tiny_pairs

from interpflow.engine.circuits import edge_attribution, sender_states
from interpflow.engine.circuits.edge_attribution import attribute_edges, receiver_gradients
from interpflow.engine.circuits.edge_passes import run_edge_sets
from interpflow.engine.circuits.edges import Edge, EdgeMap, Receiver
from interpflow.engine.circuits.gradients import gradients, tapped_pass
from interpflow.engine.circuits.path_patching import patch_edges
from interpflow.engine.circuits.residual_graph import residual_graph
from interpflow.engine.circuits.sender_states import sender_taps
from interpflow.engine.metrics import logit_diff_metric
from interpflow.engine.sites import Site
from interpflow.errors import UserError

MODELS = ("gpt2", "llama_grouped", "gpt_neox", "gemma2", "glm4", "olmo2", "granite")
N_PAIRS = 2
METRIC = logit_diff_metric([3, 5], [4, 6])


@pytest.mark.parametrize("kind", MODELS)
def test_edges_into_a_receiver_sum_to_its_input(kind):
    """Σ over senders of an edge's score = (donor input − base input) · gradient, exactly: what
    senders contribute adds up to what the receiver reads, norms after attention included."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    scores = attribute_edges(model, base, donor, METRIC)
    graph, layers = residual_graph(model), range(model.n_layers)
    middle = "resid_pre" if graph.edges.parallel else "resid_mid"
    read = [(c, i) for i in layers for c in ("resid_pre", middle)] + [("resid_post", layers[-1])]
    taps = [(c, i) for i in layers for c in ("q", "k", "v", "mlp_out")] + read
    # Asking for q runs our attention: Gemma's own computes its softmax in float32.
    own = tapped_pass(model, torch.tensor(base), taps, graph=True)
    other = tapped_pass(model, torch.tensor(donor), taps)
    total = METRIC(own.logits, torch.arange(N_PAIRS))["logit_diff"].sum()
    slopes = gradients(total, own.states)
    checked = 0
    for where, found in receiver_gradients(graph, own.states, slopes):
        for number, gradient in zip(range(where.start, where.stop), found):
            receiver = graph.edges.receivers[number]
            state = {"mlp": (middle, receiver.layer), "logits": ("resid_post", layers[-1])}.get(
                receiver.kind, ("resid_pre", receiver.layer)
            )
            difference = (other.states[state] - own.states[state]).detach()
            expected = (difference * gradient).sum(dim=(1, 2)).numpy()
            summed = np.nansum(scores.scores[:, number], axis=1)
            tolerance = 1e-5 if kind == "gemma2" else 1e-10
            np.testing.assert_allclose(summed, expected, rtol=tolerance, atol=tolerance)
            assert np.abs(expected).max() > 1e-6, receiver
            checked += 1
    assert checked == len(graph.edges.receivers)
    assert np.isnan(scores.scores).sum() == N_PAIRS * (~graph.edges.exists).sum()
    assert hook_count(model) == sum("forward" in m.__dict__ for m in model.module.modules())


@pytest.mark.parametrize("kind", MODELS)
def test_score_is_the_slope_of_the_exact_edge_patch(kind):
    """Exchanging a sender's contribution by a share e of the way changes the metric by e x score:
    central differences through the exact edge pass, for edges of every kind."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    scores = attribute_edges(model, base, donor, METRIC)
    graph = residual_graph(model)
    rng = np.random.default_rng(1)
    chosen = [Edge(Site("embed"), Receiver("logits"))]
    for kind_of in ("q", "k", "v", "mlp", "logits"):
        own = [e for e in graph.edges.edges() if e.receiver.kind == kind_of]
        chosen += [own[i] for i in rng.choice(len(own), 6, replace=False)]
    masks = np.stack([graph.edges.mask([edge]) for edge in chosen])
    before = [("resid_pre", i) for i in range(model.n_layers)] + [("resid_post", 2), ("q", 0)]
    own, other = (
        tapped_pass(model, torch.tensor(rows), [*sender_taps(model), *before]).states
        for rows in (base, donor)
    )

    def given(share):
        def replacement(senders):
            ends = [
                sender_states.sender_contributions(
                    graph, states, len(graph.edges.senders), slice(None)
                )[list(senders)]
                for states in (own, other)
            ]
            return torch.lerp(*ends, share)

        return replacement

    step, values = 1e-3, []
    for share in (step, -step):
        logits = run_edge_sets(graph, own, given(share), masks)
        pairs = torch.arange(N_PAIRS).repeat(len(chosen))
        found = METRIC(logits.flatten(0, 1), pairs)["logit_diff"]
        values.append(found.reshape(len(chosen), N_PAIRS).numpy())
    slopes = (values[0] - values[1]) / (2 * step)
    expected = np.stack([scores.scores[:, r, s] for r, s in map(graph.edges.index, chosen)])
    assert (np.abs(expected) > 1e-4).mean() > 0.6
    np.testing.assert_allclose(slopes, expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped", "gpt_neox"])
def test_scores_equal_automatic_gradients_of_a_plain_decoder(kind):
    """The plain decoder's own gradient, taken at what one receiver reads of one sender."""
    model = double_model(kind)
    base, donor = tiny_pairs(1)
    scores = attribute_edges(model, base, donor, logit_diff_metric([3], [4])).scores[0]
    edges = EdgeMap.of(model)
    parameters = [p.requires_grad_(False) for p in model.module.parameters()]
    assert parameters
    own = run_plain(kind, model.module, torch.tensor(base[0]))[1]
    other = run_plain(kind, model.module, torch.tensor(donor[0]))[1]
    every = edges.edges()
    cut = {(str(e.receiver), str(e.sender)): own[str(e.sender)].clone().requires_grad_()
           for e in every}  # fmt: skip
    cut_model = run_plain(kind, model.module, torch.tensor(base[0]), cut)[0]
    # Every edge is cut here, so nothing flows on: only edges into the logits have their gradient.
    found = torch.autograd.grad(cut_model[3] - cut_model[4], list(cut.values()), allow_unused=True)
    into_logits = [(e, g) for e, g in zip(every, found) if e.receiver.kind == "logits"]
    rng = np.random.default_rng(2)
    others = [every[i] for i in rng.choice(len(every), 12, replace=False)]
    for edge in others:
        key = (str(edge.receiver), str(edge.sender))
        alone = own[str(edge.sender)].clone().requires_grad_()
        logits = run_plain(kind, model.module, torch.tensor(base[0]), {key: alone})[0]
        slope = torch.autograd.grad(logits[3] - logits[4], alone)[0]
        into_logits.append((edge, slope))
    for edge, slope in into_logits:
        expected = ((other[str(edge.sender)] - own[str(edge.sender)]) * slope).sum().item()
        np.testing.assert_allclose(scores[edges.index(edge)], expected, rtol=1e-5, atol=1e-6)


def test_integrated_scores_along_the_inputs():
    """Edges into the logits: sender difference times the last residual's gradient, averaged over
    runs from embeddings between base and donor."""
    model = double_model("llama_grouped")
    base, donor = tiny_pairs(N_PAIRS)
    ids, last, steps = torch.tensor(base), ("resid_post", 2), 4
    plain = attribute_edges(model, base, donor, METRIC)
    found = attribute_edges(model, base, donor, METRIC, path="inputs", steps=steps)
    own, other = (
        tapped_pass(model, torch.tensor(rows), [("embed", 0), ("mlp_out", 1)]).states
        for rows in (base, donor)
    )
    slope = 0
    for share in (0.125, 0.375, 0.625, 0.875):
        embedded = torch.lerp(own["embed", 0], other["embed", 0], share)
        change = {("embed", 0): lambda _state, embedded=embedded: embedded}
        run = tapped_pass(model, ids, [last], changes=change, graph=True)
        total = METRIC(run.logits, torch.arange(N_PAIRS))["logit_diff"].sum()
        slope = slope + gradients(total, run.states)[last] / steps
    expected = ((other["mlp_out", 1] - own["mlp_out", 1]) * slope).sum(dim=(1, 2)).numpy()
    place = found.edges.index(Edge(Site("mlp_out", 1), Receiver("logits")))
    np.testing.assert_allclose(found.scores[:, *place], expected, rtol=1e-6)
    assert np.abs(plain.scores[:, *place] - expected).max() > 1e-4
    np.testing.assert_allclose(found.base, plain.base)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_integrated_scores_along_a_state_are_complete(kind):
    """The last block's MLP is read by the logits alone: its edge's integrated score is the exact
    effect of that edge, up to the square of the step. So is the sum over the last block's heads."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    found = attribute_edges(model, base, donor, METRIC, path="states", steps=8)
    graph = found.edges
    logits = Receiver("logits")
    groups = [[Edge(Site("mlp_out", 2), logits)]]
    if kind == "gpt_neox":  # else the last block's MLP reads its heads
        groups.append([Edge(Site("head_out", 2, head), logits) for head in range(4)])
    exact = patch_edges(model, base, donor, METRIC, groups).effects
    summed = [sum(found.scores[:, *graph.index(edge)] for edge in group) for group in groups]
    np.testing.assert_allclose(np.stack(summed), exact, rtol=1e-2, atol=2e-3)
    plain = attribute_edges(model, base, donor, METRIC)
    rough = [sum(plain.scores[:, *graph.index(edge)] for edge in group) for group in groups]
    assert np.abs(np.stack(rough) - exact).max() > 5 * np.abs(np.stack(summed) - exact).max()
    assert np.isnan(found.scores).sum() == N_PAIRS * (~graph.exists).sum()


def test_blocks_of_positions_receivers_and_pairs_change_nothing(monkeypatch):
    model = double_model("gemma2")
    base, donor = tiny_pairs(3)
    metric = logit_diff_metric([3, 5, 7], [4, 6, 8])
    whole = attribute_edges(model, base, donor, metric)
    monkeypatch.setattr(sender_states, "SENDER_BYTES", 3 * 16 * 32 * 8)
    monkeypatch.setattr(edge_attribution, "RECEIVER_BYTES", 3 * 11 * 32 * 8)
    parts = attribute_edges(model, base, donor, metric, batch_tokens=11)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-6, atol=1e-6)


def test_scores_are_blind_without_gradients(monkeypatch):
    """With the receivers' gradients cut off every score is zero: the checks above would fail."""
    model = double_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)

    def cut_off(*arguments, **settings):
        for where, found in receiver_gradients(*arguments, **settings):
            yield where, torch.zeros_like(found)

    monkeypatch.setattr(edge_attribution, "receiver_gradients", cut_off)
    scores = attribute_edges(model, base, donor, METRIC)
    assert np.nanmax(np.abs(scores.scores)) == 0
    edge = Edge(Site("head_out", 2, 1), Receiver("logits"))
    assert np.abs(patch_edges(model, base, donor, METRIC, [[edge]]).effects).min() > 1e-3


def test_what_is_refused():
    model = double_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)
    with pytest.raises(UserError, match="no path 'weights'"):
        attribute_edges(model, base, donor, METRIC, path="weights")
    with pytest.raises(UserError, match="no gradient"):
        attribute_edges(
            model, base, donor, lambda logits, _pairs: {"top": logits.argmax(-1).double()}
        )
    with pytest.raises(UserError, match="NaN or infinite"):
        attribute_edges(
            model, base, donor, lambda logits, _pairs: {"nan": logits[:, 0] * torch.nan}
        )
    with pytest.raises(UserError, match="tokens"):
        attribute_edges(model, base, [row[1:] for row in donor], METRIC)
