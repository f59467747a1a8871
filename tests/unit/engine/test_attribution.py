"""Attribution patching against exact patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from double_models import double_model
from tiny_models import hook_count, tiny_model, tiny_pairs

from interpflow.engine import Site
from interpflow.engine.circuits.attribution import StateScores, attribute_states, between
from interpflow.engine.circuits.gradients import gradients, tapped_pass
from interpflow.engine.circuits.patch_sets import PatchCell, joint_effects, patch_sets
from interpflow.engine.metrics import combine_metrics, logit_diff_metric, probability_metric
from interpflow.engine.passes.forward import run_forward
from interpflow.engine.passes.recorder import Edit
from interpflow.errors import UserError

MODELS = ("gpt2", "llama_grouped", "gpt_neox", "gemma2", "glm4", "granite")
ALL = ("embed", "resid_pre", "q", "k", "v", "pattern", "head_out", "attn_out", "resid_mid",
       "mlp_act", "mlp_out", "resid_post")  # fmt: skip
N_PAIRS = 3
METRIC = logit_diff_metric([3, 5, 7], [4, 6, 8])


def usable(model, components=ALL):
    found = []
    for component in components:
        try:
            model.check_site(Site(component))
        except UserError:
            continue
        found.append(component)
    return tuple(found)


def metric_of(logits: torch.Tensor) -> np.ndarray:
    return METRIC(logits, torch.arange(N_PAIRS))["logit_diff"].detach().numpy()


@pytest.mark.parametrize("kind", MODELS)
def test_estimate_is_the_slope_of_the_exact_effect(kind):
    """Moving a state a share e of the way changes the metric by e x estimate, up to e²: the error
    falls fourfold when e is halved."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    components = usable(model)
    assert {"q", "k", "v", "pattern", "head_out", "mlp_act"} <= set(components)
    scores = attribute_states(model, base, donor, METRIC, components=components)
    ids, donor_ids = torch.tensor(base), torch.tensor(donor)
    for component in components:
        layer = 0 if component == "embed" else 1
        state = (component, layer)
        # Asking for q runs our attention: Gemma's own computes its softmax in float32.
        runs = [tapped_pass(model, rows, [state, ("q", 0)]) for rows in (ids, donor_ids)]
        ends = [run.states[state] for run in runs]
        estimate = scores.estimates[component][:, layer].reshape(N_PAIRS, -1).sum(axis=1)
        assert np.abs(estimate).max() > 1e-3, component
        errors = []
        for share in (2e-3, 1e-3):
            change = {state: between(*ends, share)}
            moved = tapped_pass(model, ids, [("q", 0)], changes=change).logits
            errors.append(np.abs(metric_of(moved) - scores.base - share * estimate))
        assert (errors[1] < 0.3 * errors[0] + 1e-10).all(), component


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped"])
def test_estimate_of_each_position_and_head(kind):
    """Central differences of single patches, place by place, agree with the estimates."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    components = ("k", "head_out", "resid_mid", "mlp_act")
    scores = attribute_states(model, base, donor, METRIC, components=components)
    cells, estimates = scores.cells()
    rng = np.random.default_rng(0)
    large = np.abs(estimates).max(axis=1) > 1e-3
    for number in rng.choice(np.flatnonzero(large), 24, replace=False):
        cell, step = cells[number], 1e-4
        ends = [
            tapped_pass(model, torch.tensor(rows), [cell.state]).states[cell.state]
            for rows in (base, donor)
        ]
        values = []
        for share in (step, -step):

            def change(state, share=share, ends=ends, cell=cell):
                edited = state.clone()
                place = (slice(None), cell.position)
                unit = cell.site.head if cell.neuron is None else cell.neuron
                place += () if unit is None else (unit,)
                edited[place] = torch.lerp(ends[0][place], ends[1][place], share)
                return edited

            run = tapped_pass(model, torch.tensor(base), changes={cell.state: change})
            values.append(metric_of(run.logits))
        slope = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(
            slope, estimates[number], rtol=1e-4, atol=1e-7, err_msg=str(cell)
        )


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped"])
def test_integrated_gradients_are_complete(kind):
    """Estimates along the inputs sum, over the embedding's positions, to the whole effect; those
    along a state to the exact effect of patching it whole; midpoints err by 1 / steps²."""
    model = double_model(kind)
    base, donor = tiny_pairs(N_PAIRS)

    def misses(component: str, path: str, steps: int) -> np.ndarray:
        found = attribute_states(
            model, base, donor, METRIC, components=[component], path=path, steps=steps
        )
        own = found.estimates[component]
        sums = own.reshape(N_PAIRS, own.shape[1], -1).sum(axis=-1)
        cells = [[PatchCell(Site(component, layer))] for layer in range(own.shape[1])]
        exact = patch_sets(model, base, donor, METRIC, cells)
        if component == "embed":
            np.testing.assert_allclose(exact.values[0], found.donor)
        return np.abs(sums - exact.effects.T).max()

    for component, path in (("embed", "inputs"), ("v", "states"), ("mlp_out", "states")):
        plain, coarse, fine = (misses(component, path, steps) for steps in (1, 4, 16))
        assert fine < 0.15 * coarse < 0.15 * plain, (component, plain, coarse, fine)


def test_rows_do_not_see_each_other():
    model = tiny_model("llama_grouped")
    base, donor = tiny_pairs(N_PAIRS)
    short_base, short_donor = tiny_pairs(1, length=7, seed=5)
    metric = logit_diff_metric([3, 5, 7, 9], [4, 6, 8, 10])
    components = ("v", "resid_post", "mlp_act")
    settings = {"components": components, "path": "inputs", "steps": 2}
    whole = attribute_states(
        model, [*base, *short_base], [*donor, *short_donor], metric, **settings
    )
    alone = attribute_states(model, [base[1]], [donor[1]], logit_diff_metric([5], [6]), **settings)
    small = attribute_states(
        model, short_base, short_donor, logit_diff_metric([9], [10]), **settings
    )
    for component in components:
        found = whole.estimates[component]
        np.testing.assert_allclose(found[1], alone.estimates[component][0], atol=1e-12)
        np.testing.assert_allclose(found[3][..., :7], small.estimates[component][0], atol=1e-12)
        assert np.isnan(found[3][..., 7:]).all()
        assert not np.isnan(found[:3]).any()


def test_positions_before_the_first_difference_get_exactly_zero():
    model = tiny_model("gpt2")
    base, donor = tiny_pairs(1)
    first = next(i for i, (b, d) in enumerate(zip(base[0], donor[0])) if b != d)
    found = attribute_states(model, base, donor, logit_diff_metric([3], [4])).estimates[
        "resid_post"
    ]
    assert (found[..., :first] == 0).all()
    assert np.abs(found[..., first]).max() > 1e-4


def test_weights_get_no_gradients_and_nothing_stays_attached():
    model = tiny_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)
    before = [(p.requires_grad, p.grad) for p in model.module.parameters()]
    assert any(asks for asks, _ in before)
    implementation = model.module.config._attn_implementation
    attribute_states(model, base, donor, METRIC, components=("q", "resid_post"))
    with pytest.raises(ZeroDivisionError):
        tapped_pass(model, torch.tensor(base), changes={("q", 1): lambda state: state / (1 // 0)})
    assert [(p.requires_grad, p.grad) for p in model.module.parameters()] == before
    assert hook_count(model) == 0
    assert model.module.config._attn_implementation == implementation


def test_a_metric_without_gradient_and_unknown_names_are_refused():
    model = tiny_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)

    def likeliest(logits, _pairs):
        return {"likeliest": logits.argmax(dim=-1).double()}

    with pytest.raises(UserError, match="no gradient"):
        attribute_states(model, base, donor, likeliest)

    def endless(logits, _pairs):  # its slope at 0 is infinite
        return {"root": (logits[:, 3] - logits[:, 3].detach()).abs().sqrt()}

    with pytest.raises(UserError, match="NaN or infinite"):
        attribute_states(model, base, donor, endless)
    two = combine_metrics(METRIC, probability_metric([3, 5, 7]))
    with pytest.raises(UserError, match="name the value"):
        attribute_states(model, base, donor, two)
    named = attribute_states(model, base, donor, two, name="logit_diff")
    np.testing.assert_allclose(named.base, attribute_states(model, base, donor, METRIC).base)
    with pytest.raises(UserError, match="component 'residual'"):
        attribute_states(model, base, donor, METRIC, components=["residual"])
    with pytest.raises(UserError, match="pair 0 have 11 and 10"):
        attribute_states(model, base, [row[:-1] for row in donor], METRIC)
    with pytest.raises(UserError, match="resid_mid cannot be used"):
        attribute_states(tiny_model("gpt_neox"), base, donor, METRIC, components=["resid_mid"])


def edited(model, prompts, edits, capture=()):
    """Metric [pair] and captured states of one pass of the engine's own patching."""
    ids = torch.tensor(prompts)
    result = run_forward(model.module, model.architecture, ids, edits=edits, capture=capture)
    return metric_of(result.logits[:, -1]), result.states


def edit_of(site, state, places):
    rows = torch.arange(N_PAIRS).repeat_interleave(len(places))
    at = torch.tensor(list(places) * N_PAIRS)
    return Edit(site, rows, at, state[rows, at])


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_patched_sets_equal_patches_by_the_recorder(kind):
    model = tiny_model(kind)
    base, donor = tiny_pairs(N_PAIRS)
    sites = [Site("head_out", 1, 2), Site("mlp_out", 2), Site("resid_mid", 0), Site("resid_pre")]
    states = edited(model, donor, (), sites)[1]
    sets, expected = [], []
    for chosen in ([0], [1], [2], [3], [0, 1], [0, 1, 2]):
        for places, position in ((range(len(base[0])), None), ([5], 5)):
            edits = [edit_of(sites[i], states[sites[i]], places) for i in chosen]
            expected.append(edited(model, base, edits)[0])
            sets.append([PatchCell(sites[i], position) for i in chosen])
    found = patch_sets(model, base, donor, METRIC, sets, batch_tokens=100)
    assert np.abs(found.effects).min(axis=1).max() > 1e-2
    np.testing.assert_allclose(found.values, np.stack(expected), atol=1e-6)
    embedded = patch_sets(model, base, donor, METRIC, [[PatchCell(Site("embed"))]])
    np.testing.assert_allclose(embedded.values[0], found.values[6])


def test_zero_and_mean_replacements():
    model = tiny_model("llama_grouped")
    base, donor = tiny_pairs(N_PAIRS)
    site = Site("attn_out", 1)
    state = edited(model, donor, (), [site])[1][site]
    for replacement, value in (("zero", torch.zeros_like(state)), ("mean", state.mean(dim=(0, 1)))):
        edit = edit_of(site, value.expand_as(state), range(len(base[0])))
        found = patch_sets(model, base, donor, METRIC, [[PatchCell(site)]], replacement=replacement)
        np.testing.assert_allclose(found.values[0], edited(model, base, [edit])[0], atol=1e-10)
    with pytest.raises(UserError, match="no mean"):
        patch_sets(
            model, base, donor, METRIC, [[PatchCell(Site("pattern", 0))]], replacement="mean"
        )


def test_joint_effect_differs_from_the_sum_of_singles():
    """Two blocks in a row: patching both is not the sum of patching each; a set of one is."""
    model = tiny_model("gpt2")
    base, donor = tiny_pairs(N_PAIRS)
    both = [PatchCell(Site("mlp_out", 0)), PatchCell(Site("attn_out", 1))]
    joint, sums = joint_effects(model, base, donor, METRIC, [both, both[:1]])
    single = patch_sets(model, base, donor, METRIC, [[c] for c in both]).effects
    np.testing.assert_allclose(sums[0], single.sum(axis=0))
    np.testing.assert_allclose(joint[1], single[0])
    assert np.abs(joint[0] - sums[0]).max() > 1e-3


def test_cells_that_do_not_exist_are_refused():
    model = tiny_model("llama_grouped")
    base, donor = tiny_pairs(N_PAIRS)
    for cell in (PatchCell(Site("k", 0, 2)), PatchCell(Site("attn_out", 0), neuron=0),
                 PatchCell(Site("mlp_out", 3)), PatchCell(Site("mlp_act", 0), neuron=48),
                 PatchCell(Site("q", 0, 1), 11)):  # fmt: skip
        with pytest.raises(UserError):
            patch_sets(model, base, donor, METRIC, [[cell]])


def test_cells_of_scores():
    values = np.arange(2 * 1 * 3 * 4, dtype=float).reshape(2, 1, 3, 4)
    scores = StateScores({"head_out": values}, np.zeros(2), np.zeros(2), "base", 0)
    cells, found = scores.cells()
    assert cells[5] == PatchCell(Site("head_out", 0, 1), 1)
    assert str(cells[5]) == "head_out.L0.H1.P1"
    np.testing.assert_array_equal(found[5], values[:, 0, 1, 1])
    cells, found = scores.cells(by_position=False)
    assert cells[2] == PatchCell(Site("head_out", 0, 2))
    np.testing.assert_array_equal(found[2], values[:, 0, 2].sum(axis=-1))


def test_gradient_of_a_state_the_metric_ignores_is_zero():
    model = tiny_model("gpt2")
    run = tapped_pass(model, torch.tensor([[1, 2, 3]]), [("embed", 0), ("resid_post", 2)],
                      graph=True)  # fmt: skip
    found = gradients(run.logits[0, 3], run.states)
    assert (found["resid_post", 2][:, :-1] == 0).all()
    assert found["embed", 0].abs().min() > 0
