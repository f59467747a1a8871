"""What each intervention writes, against states worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_model, tiny_pairs
from torch import Tensor

from interpflow.engine import (
    AddDirection,
    Interpolate,
    Intervention,
    MeanAblation,
    Noise,
    Patch,
    ResampleAblation,
    Scale,
    Site,
    ZeroAblation,
    alignment,
    embedding_sd,
    mean_state,
)
from interpflow.engine.model import Model
from interpflow.errors import UserError

SITE = Site("resid_post", 1)


def after(model: Model, ids: list[list[int]], done: list[Intervention], site: Site) -> Tensor:
    return model.run(ids, done, [site])[1][site]


def test_each_writes_its_formula_and_nothing_else() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs()
    x = model.capture(base, SITE)[SITE]
    other = model.capture(donor, SITE)[SITE]
    direction = torch.randn(32, dtype=torch.float64)
    places = [[4], [9, 2], []]
    expected = {
        ZeroAblation(SITE, places): torch.zeros_like(x),
        Scale(SITE, places, factor=-1.5): -1.5 * x,
        AddDirection(SITE, places, direction=direction, scale=2.0): x + 2 * direction,
        MeanAblation(SITE, places, mean=direction): direction.expand_as(x),
        Patch(SITE, places, other): other,
        Interpolate(SITE, places, other, alpha=0.25): 0.75 * x + 0.25 * other,
        Patch(SITE, places, donor=donor): other,
    }
    touched = torch.zeros(3, 11, dtype=torch.bool)
    touched[0, 4] = touched[1, 9] = touched[1, 2] = True
    for one, values in expected.items():
        found = after(model, base, [one], SITE)
        assert torch.allclose(found[touched], values[touched], atol=1e-14, rtol=0), type(one)
        assert torch.equal(found[~touched], x[~touched]), type(one)
        logits = model.patch(base, [one])
        assert torch.equal(logits[2], model.last_logits(base)[2])
        assert not torch.equal(logits[0], model.last_logits(base)[0])


def test_order_is_that_of_the_list_and_of_the_forward() -> None:
    model = tiny_model("gpt2")
    base, _ = tiny_pairs(1)
    x = model.capture(base, SITE)[SITE]
    one = torch.ones(32, dtype=torch.float64)
    double, add = Scale(SITE, -1, factor=2.0), AddDirection(SITE, -1, direction=one)
    assert torch.allclose(after(model, base, [double, add], SITE)[:, -1], 2 * x[:, -1] + 1)
    assert torch.allclose(after(model, base, [add, double], SITE)[:, -1], 2 * x[:, -1] + 2)
    # Sites act in the order of the forward, however they are listed: what a later one adds to is
    # what an earlier one has left.
    first = ZeroAblation(Site("attn_out", 1), -1)
    for order in ([first, add], [add, first]):
        late = after(model, base, order, SITE)[:, -1]
        assert torch.allclose(late, after(model, base, [first], SITE)[:, -1] + 1, atol=1e-12)
    # What is written in the middle of a block holds, whatever is done to what it is the sum of.
    middle = Site("resid_mid", 1)
    done = [Patch(middle, -1, 5 * x), AddDirection(Site("attn_out", 1), -1, direction=one),
            Scale(Site("resid_pre", 1), -1, factor=3.0)]  # fmt: skip
    assert torch.allclose(after(model, base, done, middle)[:, -1], 5 * x[:, -1], atol=1e-12)
    # The embedding is the input of block 0: the list decides.
    embed, resid = Site("embed"), Site("resid_pre", 0)
    e = model.capture(base, embed)[embed]
    chain = [Scale(resid, factor=3.0), AddDirection(embed, direction=one)]
    assert torch.allclose(after(model, base, chain, embed), 3 * e + 1)


def test_what_would_be_thrown_away_is_refused() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs(1)
    add = AddDirection(SITE, 3, direction=torch.ones(32))
    with pytest.raises(UserError, match="ZeroAblation overwrites what AddDirection did"):
        model.patch(base, [add, ZeroAblation(SITE, [2, 3])])
    kept = [add, ZeroAblation(SITE, [2]), ZeroAblation(SITE, [4], neurons=[1])]
    model.patch(base, [*kept, ZeroAblation(SITE, [4], neurons=[2])])
    with pytest.raises(UserError, match="changed twice"):
        model.patch(base, [*kept, ZeroAblation(SITE, [4], neurons=[0, 1])])


@pytest.mark.parametrize("name", ["llama_grouped", "gpt2"])
def test_heads_and_neurons_are_chosen(name: str) -> None:
    model = tiny_model(name)
    base, _ = tiny_pairs(2)
    whole, neurons = Site("head_out", 1), Site("mlp_act", 2)
    x, act = model.capture(base, [whole, neurons]).values()
    width = model.head_dim
    found = after(model, base, [ZeroAblation(whole, -1, heads=[0, 3])], whole)
    heads = found.unflatten(2, (4, width))
    assert not heads[:, -1, [0, 3]].any()
    assert torch.equal(heads[:, -1, [1, 2]], x.unflatten(2, (4, width))[:, -1, [1, 2]])
    assert torch.equal(heads[:, :-1].flatten(2), x[:, :-1])
    # The same by one site per head.
    one_by_one = [ZeroAblation(Site("head_out", 1, h), -1) for h in (0, 3)]
    assert torch.equal(after(model, base, one_by_one, whole), found)
    chosen = [5, 40]
    found = after(model, base, [Scale(neurons, factor=2.0, neurons=chosen)], neurons)
    expected = act.clone()
    expected[..., chosen] *= 2
    assert torch.equal(found, expected)
    before = model.capture(base, Site("mlp_out", 2))[Site("mlp_out", 2)]
    moved = after(model, base, [ZeroAblation(neurons, neurons=chosen)], Site("mlp_out", 2))
    weight = model.architecture.blocks[2].mlp_projection.weight.detach()
    rows = weight[chosen] if name == "gpt2" else weight[:, chosen].T
    assert torch.allclose(moved, before - act[..., chosen] @ rows, atol=1e-12)


def test_attention_can_be_cut_edge_by_edge() -> None:
    model = tiny_model("llama_grouped")
    base, _ = tiny_pairs(2)
    pattern, out, v = Site("pattern", 1), Site("head_out", 1), Site("v", 1)
    weights, z, values = model.capture(base, [pattern, out, v]).values()
    cut = ZeroAblation(pattern, [10], heads=[1], neurons=[2, 6])
    states = model.run(base, [cut], [pattern, out])[1]
    expected = weights.clone()
    expected[:, 10, 1, [2, 6]] = 0
    assert torch.equal(states[pattern], expected)
    lost = torch.einsum("bk,bkd->bd", weights[:, 10, 1, [2, 6]], values[:, [2, 6], :16])
    found = z[:, 10].unflatten(1, (4, 16))[:, 1] - states[out][:, 10].unflatten(1, (4, 16))[:, 1]
    assert torch.allclose(found, lost, atol=1e-12)
    # One head's site says the same.
    alone = ZeroAblation(Site("pattern", 1, 1), [10], neurons=[2, 6])
    assert torch.equal(model.patch(base, [cut]), model.patch(base, [alone]))
    assert not torch.equal(model.patch(base, [cut]), model.last_logits(base))


def test_keys_and_values_of_a_group_reach_its_query_heads() -> None:
    """Grouped heads: two query heads read each head of keys and values."""
    model = tiny_model("llama_grouped")
    base, donor = tiny_pairs(2)
    sites = [Site(c, 1) for c in ("q", "k", "v", "pattern", "head_out")]
    old, new = model.capture(base, sites), model.capture(donor, sites)
    q, k, v, pattern, z = sites
    heads = {s: (lambda t: t.unflatten(2, (-1, 16)).transpose(1, 2)) for s in (q, k, v, z)}
    patched = model.run(base, [Patch(Site("v", 1, 1), "all", new[v][..., 16:])], sites)[1]
    assert torch.equal(patched[pattern], old[pattern])
    expected = old[pattern].transpose(1, 2)[:, 2:] @ heads[v](new[v])[:, 1:]
    assert torch.allclose(heads[z](patched[z])[:, 2:], expected, atol=1e-12)
    assert torch.allclose(heads[z](patched[z])[:, :2], heads[z](old[z])[:, :2], atol=1e-12)
    patched = model.run(base, [Patch(Site("k", 1, 0), "all", new[k][..., :16])], sites)[1]
    scores = heads[q](old[q])[:, :2] @ heads[k](new[k])[:, :1].transpose(2, 3) / 4
    visible = torch.ones(11, 11).tril().bool()
    expected = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    assert torch.allclose(patched[pattern].transpose(1, 2)[:, :2], expected, atol=1e-12)
    assert torch.equal(patched[pattern][:, :, 2:], old[pattern][:, :, 2:])


def test_a_donor_may_be_elsewhere() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs(2)
    other = model.capture(donor, SITE)[SITE]
    shifted = torch.full_like(other, float("nan"))
    shifted[0, [7, 9]], shifted[1, [3, 8]] = other[0, [2, 5]], other[1, [4, 10]]
    places = [[7, 9], [3, 8]]
    by_hand = model.patch(base, [Patch(SITE, places, shifted)])
    moved = Patch(SITE, places, donor=donor, donor_positions=[[2, 5], [4, 10]])
    assert torch.equal(model.patch(base, [moved]), by_hand)
    one = Patch(SITE, -1, donor=donor[0], donor_positions="answer")  # one donor for all
    assert torch.equal(after(model, base, [one], SITE)[1, -1], other[0, -1])
    with pytest.raises(UserError, match="2 positions get the states of 1 donor"):
        model.patch(base, [Patch(SITE, places, donor=donor, donor_positions=[[2], [4, 10]])])


def test_unequal_prompts_need_an_alignment() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs(2)
    donor = [[*row[:4], 7, 8, *row[5:]] for row in base]  # two tokens for the fifth
    with pytest.raises(UserError, match="the donor has 12 tokens, the prompt 11"):
        model.patch(base, [Patch(SITE, donor=donor)])
    tables = [alignment.from_edit(mine, theirs) for mine, theirs in zip(base, donor)]
    other = model.capture(donor, SITE)[SITE]
    states = after(model, base, [Patch(SITE, donor=donor, alignment=tables)], SITE)
    assert torch.equal(states, other[:, [0, 1, 2, 3, 5, *range(6, 12)]])
    only = Patch(SITE, [4], donor=donor, alignment=tables)
    assert torch.equal(after(model, base, [only], SITE)[:, 4], other[:, 5])
    shorter = [[*row[:4], *row[5:]] for row in base]
    tables = [alignment.from_edit(mine, theirs) for mine, theirs in zip(base, shorter)]
    with pytest.raises(UserError, match="nothing in the donor stands for position 4"):
        model.patch(base, [Patch(SITE, [4], donor=shorter, alignment=tables)])
    assert model.patch(base, [Patch(SITE, donor=shorter, alignment=tables)]).isfinite().all()
    with pytest.raises(UserError, match="1 alignments for 2 prompts"):
        model.patch(base, [Patch(SITE, donor=donor, alignment=tables[:1])])


def test_resampling_draws_whole_prompts() -> None:
    model = tiny_model("llama")
    base, pool = tiny_pairs(6)
    states = model.capture(pool, SITE)[SITE]
    one = ResampleAblation(SITE, donor=pool, seed=4)
    found = after(model, base, [one], SITE)
    drawn = [next(i for i in range(6) if torch.equal(states[i], row)) for row in found]
    assert len(set(drawn)) > 1
    assert torch.equal(after(model, base, [one], SITE), found)
    # A prompt's draw does not depend on the prompts after it; the values may be given.
    assert torch.equal(after(model, base[:2], [one], SITE), found[:2])
    given = ResampleAblation(SITE, "all", states, seed=4)
    assert torch.equal(after(model, base, [given], SITE), found)
    other = ResampleAblation(SITE, donor=pool, seed=5)
    assert not torch.equal(after(model, base, [other], SITE), found)


def test_means_agree_with_the_plain_average() -> None:
    model = tiny_model("gpt2")
    rows = [row[: 11 - i] for i, row in enumerate(tiny_pairs(4)[0])]
    states = [model.capture(row, SITE)[SITE][0] for row in rows]
    found = mean_state(model, rows, SITE, batch_tokens=11)
    assert torch.allclose(found, torch.cat(states).mean(dim=0), atol=1e-14)
    last = mean_state(model, rows, SITE, "answer")
    assert torch.allclose(last, torch.stack([s[-1] for s in states]).mean(dim=0), atol=1e-14)
    each = mean_state(model, rows, SITE, per_position=True)
    assert each.shape == (11, 32)
    assert torch.allclose(each[9], torch.stack([s[9] for s in states[:2]]).mean(dim=0))
    some = mean_state(model, rows, SITE, [[0], [1], [0], []], per_position=True)
    assert some[2:].isnan().all()
    where = MeanAblation(SITE, [1, 9], mean=each)
    written = after(model, rows[:2], [where], SITE)
    assert torch.allclose(written[:, [1, 9]], each[[1, 9]].expand(2, 2, 32))
    with pytest.raises(UserError, match="no mean for some of the positions"):
        model.patch(rows[:1], [MeanAblation(SITE, 5, mean=some)])
    with pytest.raises(UserError, match="no position is chosen"):
        mean_state(model, rows, SITE, [[], [], [], []])
    with pytest.raises(UserError, match="patterns of different prompts"):
        mean_state(model, rows, Site("pattern", 1, 0))


def test_noise_is_the_same_at_every_site_and_in_every_batch() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs(3)
    embed = Site("embed")
    clean = model.capture(base, [embed, SITE])
    drawn = {s: after(model, base, [Noise(s, sd=0.5, seed=7)], s) - clean[s] for s in clean}
    assert torch.allclose(drawn[embed], drawn[SITE], atol=1e-12)
    alone = after(model, [base[0][:6]], [Noise(embed, sd=0.5, seed=7)], embed)
    assert torch.allclose(alone[0] - clean[embed][0, :6], drawn[embed][0, :6], atol=1e-12)
    other = after(model, base, [Noise(embed, sd=0.5, seed=8)], embed) - clean[embed]
    assert not torch.allclose(other, drawn[embed], atol=0.1)
    assert drawn[embed].std().item() == pytest.approx(0.5, rel=0.1)
    assert drawn[embed].flatten(0, 1).unique(dim=0).shape[0] == 33


def test_the_spread_of_embeddings() -> None:
    model = tiny_model("llama")
    rows = [[3, 4, 5], [6, 7], [8]]
    table = model.module.get_input_embeddings().weight.detach()
    expected = float(np.std(table[[3, 4, 5, 6, 7, 8]].numpy(), ddof=1))
    assert embedding_sd(model, rows, batch_tokens=3) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UserError, match="no position is chosen"):
        embedding_sd(model, rows, [[], [], []])


def test_the_ends_of_an_interpolation() -> None:
    model = tiny_model("llama")
    base, donor = tiny_pairs(2)
    patch = model.patch(base, [Patch(SITE, donor=donor)])
    ends = [model.patch(base, [Interpolate(SITE, donor=donor, alpha=a)]) for a in (0.0, 1.0)]
    assert torch.equal(ends[0], model.last_logits(base))
    assert torch.allclose(ends[1], patch, atol=1e-12)


def test_positions_have_names() -> None:
    model = tiny_model("llama")
    rows = [row[: 11 - 3 * i] for i, row in enumerate(tiny_pairs(2)[0])]
    for positions, expected in (
        ("answer", [[10], [7]]),
        ("prompt", [list(range(11)), list(range(8))]),
        ("generated", [[], []]),
        (2, [[2], [2]]),
        (-2, [[9], [6]]),
        ([1, 3], [[1, 3], [1, 3]]),
        (range(2, 4), [[2, 3], [2, 3]]),
        ([range(2, 4), [5]], [[2, 3], [5]]),
    ):
        states = after(model, rows, [ZeroAblation(SITE, positions)], SITE)
        zeros = [row.nonzero()[:, 0].tolist() for row in (states == 0).all(dim=-1)]
        assert zeros == expected, positions
        if any(expected):
            captured = model.capture(rows, SITE, positions=positions)[SITE]
            clean = model.capture(rows, SITE)[SITE]
            for row, places in enumerate(expected):
                assert torch.equal(captured[row, : len(places)], clean[row, places])
                assert captured[row, len(places) :].isnan().all()


@pytest.mark.parametrize(
    ("one", "match"),
    [
        (lambda: ZeroAblation(SITE, "everywhere"), "there are no positions 'everywhere'"),
        (lambda: ZeroAblation(SITE, 11), "position 11 lies outside its row of 11 tokens"),
        (lambda: ZeroAblation(SITE, -12), "position -12 lies outside"),
        (lambda: ZeroAblation(SITE, [[0]]), "1 rows of positions for 2 rows"),
        (lambda: ZeroAblation(Site("resid_post", 3)), r"no site resid_post\.L3"),
        (lambda: ZeroAblation(Site("k", 0, 2)), r"no site k\.L0\.H2"),
        (lambda: ZeroAblation(Site("q", 0), heads=[4]), "there is no head 4"),
        (lambda: ZeroAblation(SITE, neurons=[32]), "there is no feature 32"),
        (lambda: ZeroAblation(SITE, heads=[0]), "has no heads to choose from"),
        (lambda: ZeroAblation(Site("q", 0), heads=[0], neurons=[0]), "both named"),
        (lambda: Noise(Site("pattern", 0), sd=1.0), "keys that a query cannot see"),
        (lambda: Patch(SITE), "either values or a donor"),
        (lambda: Patch(SITE, "all", torch.zeros(1), alignment=[]), "without a donor"),
        (lambda: Patch(SITE, donor=[[1]], donor_positions=0, alignment=[]), "either donor pos"),
        (lambda: Patch(SITE, "all", torch.zeros(2, 11, 31)), r"expected \[2, 11, 32\]"),
        (lambda: Patch(SITE, "all", torch.full((2, 11, 32), float("nan"))), "no value for"),
        (lambda: Patch(SITE, 9, torch.zeros(2, 5, 32)), "no values for position 9"),
        (lambda: Patch(Site("pattern", 0), "all", torch.zeros(2, 11, 44)), "expected"),
        (lambda: Patch(SITE, donor=[[1] * 11] * 3), "3 donors for 2 prompts"),
        (lambda: AddDirection(SITE, direction=torch.ones(8)), "for states of width 32"),
        (lambda: MeanAblation(SITE, mean=torch.ones(8)), "for states of width 32"),
    ],
)
def test_mistakes_are_named(one, match: str) -> None:
    model = tiny_model("llama_grouped")
    base, _ = tiny_pairs(2)
    with pytest.raises(UserError, match=match):
        model.patch(base, [one()])
