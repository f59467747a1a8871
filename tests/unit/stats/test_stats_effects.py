"""Four corners, ratios of means, recovery and damage, read-outs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.stats.effects import (
    divergence_recovery,
    mediation_effects,
    patch_effect,
    patch_effect_map,
    total_effect_gate,
)
from interpflow.stats.ratios import fieller_g, ratio_of_means, ratio_of_means_map
from interpflow.stats.readout import expected_count, kl_divergence, log_softmax, logit_difference
from interpflow.stats.record import EMPTY_CELL, TOO_FEW_CLUSTERS, UNDEFINED_RATIO

TE = (2.1, 1.4, 0.2, 3, -0.3, 1.9, 0.9, 2.4)
NIE = (0.7, 0.3, 0.3, 0.8, 0.2, 0.5, 0.1, 0.9)


def _corners(outcome, m0, m1):
    return (
        [outcome(0, m0)] * 2,
        [outcome(1, m1)] * 2,
        [outcome(1, m0)] * 2,
        [outcome(0, m1)] * 2,
    )


@pytest.mark.parametrize(
    ("outcome", "mediators", "expected"),
    [
        (lambda x, m: 0.5 * x + m + 0.25 * x * m, (1, 3), (3.25, 0.75, 2, 2.5, 1.25, 0.5)),
        (lambda x, m: x * m, (0, 1), (1, 0, 0, 1, 1, 1)),
        (lambda x, m: max(x, m), (0, 1), (1, 1, 1, 0, 0, -1)),
        (lambda x, m: x ^ m, (0, 1), (0, 1, 1, -1, -1, -2)),
    ],
    ids=["interaction", "and", "or", "xor"],
)
def test_effects_known_answers(outcome, mediators, expected):
    found = mediation_effects(*_corners(outcome, *mediators))
    got = [
        estimate.estimate
        for estimate in (
            found.te, found.nde, found.nie, found.tnie, found.tnde, found.interaction,
        )
    ]  # fmt: skip
    assert got == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-10, 10)] * 4), min_size=3, max_size=20))
def test_effect_identities_hold(rows):
    found = mediation_effects(*np.array(rows).T)
    te = found.te.estimate
    assert te == pytest.approx(found.nde.estimate + found.tnie.estimate, abs=1e-9)
    assert te == pytest.approx(found.nie.estimate + found.tnde.estimate, abs=1e-9)
    parts = found.nde.estimate + found.nie.estimate + found.interaction.estimate
    assert te == pytest.approx(parts, abs=1e-9)


def test_self_patch_has_no_effect_and_full_patch_carries_all():
    rng = np.random.default_rng(0)
    y0, y1 = rng.normal(size=30), rng.normal(2, 1, 30)
    nothing = mediation_effects(y0, y0, y0, y0)
    assert all(e.estimate == 0 for e in nothing.estimates()[:6])
    assert nothing.proportion_pure.flags == (UNDEFINED_RATIO,)
    everything = mediation_effects(y0, y1, y0, y1)
    assert everything.nie == everything.te.renamed("NIE")
    assert everything.nde.estimate == 0
    assert everything.proportion_pure.estimate == pytest.approx(1)


def test_incomplete_pairs_leave_all_effects():
    y = np.arange(10.0)
    broken = y.copy()
    broken[3] = np.nan
    found = mediation_effects(y, y + 2, y + 1, broken)
    assert {e.n_units for e in found.estimates()} == {9}
    assert {e.n_dropped for e in found.estimates()} == {1}


def test_mean_of_ratios_is_dominated_by_tiny_baselines():
    y0, y1 = np.array([0.01, 0.5, 1]), np.array([0.05, 0.6, 1.1])
    assert np.mean(y1 / y0 - 1) == pytest.approx(1.43333, abs=1e-5)
    assert np.mean(np.log(y1 / y0)) == pytest.approx(0.629023, abs=1e-6)
    assert y1.sum() / y0.sum() - 1 == pytest.approx(0.158940, abs=1e-6)


def test_fieller_known_answer():
    found = ratio_of_means(NIE, TE)
    assert found.estimate == pytest.approx(0.3275862, abs=1e-7)
    assert fieller_g(TE) == pytest.approx(0.4207595, abs=1e-7)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.2366686, 0.5697545), abs=1e-7)
    assert np.mean(np.divide(NIE, TE)) == pytest.approx(0.2996110, abs=1e-7)


def test_ratio_over_no_total_effect_is_undefined():
    rng = np.random.default_rng(0)
    te = rng.normal(size=50)
    te -= te.mean() - 0.05
    found = ratio_of_means(0.3 * te, te)
    assert math.isnan(found.estimate)
    assert found.flags == (UNDEFINED_RATIO,)
    gate = total_effect_gate(te)
    assert not gate.passed
    assert gate.value >= 1
    assert total_effect_gate(te + 3).passed
    assert not total_effect_gate(np.zeros(10)).passed


def test_clustered_ratio_is_wider_and_flags_few_clusters():
    rng = np.random.default_rng(1)
    te = np.repeat(rng.normal(2, 1, 20), 5)
    nie = 0.3 * te + np.repeat(rng.normal(0, 0.4, 20), 5)
    labels = np.repeat(np.arange(20), 5)
    plain, clustered = ratio_of_means(nie, te), ratio_of_means(nie, te, clusters=labels)
    assert clustered.half_width > 1.8 * plain.half_width
    few = ratio_of_means(nie[:30], te[:30], clusters=labels[:30])
    assert TOO_FEW_CLUSTERS in few.flags
    assert ratio_of_means([np.nan], [1.0]).flags == (EMPTY_CELL,)


def test_ratio_map_equals_cell_by_cell_with_missing_entries():
    rng = np.random.default_rng(2)
    te = rng.normal(2, 1, 40)
    cells = rng.normal(size=(40, 3)) + te[:, None] * [0.2, 0.5, 0]
    cells[5, 1] = np.nan
    labels = np.repeat(np.arange(10), 4)
    for clusters in (None, labels):
        found = ratio_of_means_map(cells, te, clusters=clusters)
        for cell in range(3):
            single = ratio_of_means(cells[:, cell], te, clusters=clusters)
            assert found.ratio[cell] == pytest.approx(single.estimate)
            assert found.ci_low[cell] == pytest.approx(single.ci_low)
            assert found.ci_high[cell] == pytest.approx(single.ci_high)
            assert found.n_units[cell] == single.n_units
        assert found.estimate(0, "x").estimate == found.ratio[0]
    with pytest.raises(UserError, match="map of ratios"):
        ratio_of_means_map(cells, te[:5])


def test_fieller_covers_and_mean_of_ratios_does_not_concentrate():
    rng = np.random.default_rng(4)
    repeats, hits = 1000, 0
    naive = np.empty(repeats)
    for index in range(repeats):
        te = rng.normal(1, 1, 60)
        nie = 0.3 * te + rng.normal(0, 0.2, 60)
        found = ratio_of_means(nie, te)
        hits += found.ci_low <= 0.3 <= found.ci_high
        naive[index] = np.mean(nie / te)
    assert 0.93 <= hits / repeats <= 0.97
    assert naive.std() > 0.3


def test_weak_total_effect_is_caught_by_the_gate():
    rng = np.random.default_rng(5)
    stopped = [not total_effect_gate(rng.normal(0.1, 1, 50)).passed for _ in range(500)]
    assert np.mean(stopped) == pytest.approx(0.893, abs=0.05)


def test_recovery_and_damage_of_serial_redundant_and_additive_parts():
    # The clean input has both parts on; part a is patched from the other run.
    gates = {
        "and": (lambda a, b: a * b, (0, 1)),
        "or": (lambda a, b: max(a, b), (1, 0)),
        "add": (lambda a, b: (a + b) / 2, (0.5, 0.5)),
    }
    for gate, (denoise, noise) in gates.values():
        clean, corrupt = [gate(1, 1)] * 3, [gate(0, 0)] * 3
        recovery = patch_effect(clean, corrupt, [gate(1, 0)] * 3, direction="recovery")
        damage = patch_effect(clean, corrupt, [gate(0, 1)] * 3, direction="damage")
        assert (recovery.estimate, damage.estimate) == (denoise, noise)
    with pytest.raises(UserError, match="direction"):
        patch_effect([1], [0], [0], direction="both")  # type: ignore[arg-type]


def test_patch_effect_map_matches_single_cells():
    rng = np.random.default_rng(6)
    clean, corrupt = rng.normal(3, 1, 20), rng.normal(0, 1, 20)
    patched = rng.normal(1, 1, (20, 4))
    for direction in ("recovery", "damage"):
        found = patch_effect_map(clean, corrupt, patched, direction=direction)
        single = patch_effect(clean, corrupt, patched[:, 2], direction=direction)
        assert found.ratio[2] == pytest.approx(single.estimate)


CLEAN, CORRUPT = np.array([3.0, 1, 0]), np.array([1.0, 3, 0])


@pytest.mark.parametrize(
    ("patched", "by_difference", "by_probability", "by_divergence"),
    [([2.0, 2, 0], 0.5, 0.4853558, 0.7818137), ([3.0, 1, 5], 1.0, 0.0042698, -0.2082212)],
)
def test_one_patch_three_metrics(patched, by_difference, by_probability, by_divergence):
    clean, corrupt, done = (
        np.array([float(logit_difference(z, 0, 1))] * 3) for z in (CLEAN, CORRUPT, patched)
    )
    recovery = patch_effect(clean, corrupt, done, direction="recovery")
    assert recovery.estimate == pytest.approx(by_difference, abs=1e-9)
    shares = [np.exp(log_softmax(z))[0] for z in (CLEAN, CORRUPT, patched)]
    probability = (shares[2] - shares[1]) / (shares[0] - shares[1])
    assert probability == pytest.approx(by_probability, abs=1e-7)
    divergence = divergence_recovery(
        [float(kl_divergence(CLEAN, patched))] * 3, [float(kl_divergence(CLEAN, CORRUPT))] * 3
    )
    assert divergence.estimate == pytest.approx(by_divergence, abs=1e-7)


def test_readout_known_answers():
    assert np.exp(log_softmax(CLEAN))[0] == pytest.approx(0.8437947, abs=1e-7)
    assert np.exp(log_softmax(CORRUPT))[0] == pytest.approx(0.1141952, abs=1e-7)
    assert np.exp(log_softmax([2, 2, 0]))[0] == pytest.approx(0.4683105, abs=1e-7)
    assert float(kl_divergence(CLEAN, [2, 2, 0])) == pytest.approx(0.3183772, abs=1e-7)
    assert float(kl_divergence(CLEAN, CORRUPT)) == pytest.approx(1.4591991, abs=1e-7)


def test_expected_count_renormalises_and_reports_captured_mass():
    log_probs = np.log([[0.1, 0.3], [0.2, 0.2]])
    expected, mass = expected_count(log_probs, [2, 6])
    assert expected == pytest.approx([5.0, 4.0])
    assert mass == pytest.approx([0.4, 0.4])
