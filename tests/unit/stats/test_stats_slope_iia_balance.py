"""Running-count slope, equivalence, interchange accuracy, balance, attribution audit, power."""

import math

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats import power
from interpflow.stats.attribution_audit import audit_attribution, audit_cells
from interpflow.stats.balance import balance_table, standardized_mean_difference
from interpflow.stats.equivalence import mean_equivalence
from interpflow.stats.iia import against_placebo, interchange_accuracy
from interpflow.stats.record import DEGENERATE_VARIANCE, EMPTY_CELL, NO_VARIATION
from interpflow.stats.slope import (
    shifted_accuracy,
    slope_contrast,
    slope_equivalence,
    slope_map,
    slope_through_origin,
    slope_verdict,
)

DOSE = np.array([2, -2, 1, -1, 2, -1.0])
RESPONSE = np.array([1.8, -2.1, 0.7, -1.2, 2.2, -0.6])


def _standard_error(estimate, df):
    from scipy.stats import t

    return estimate.half_width / t.ppf(0.975, df)


def test_slope_known_answer():
    found = slope_through_origin(DOSE, RESPONSE)
    assert found.estimate == pytest.approx(0.98, abs=1e-9)
    hc1 = _standard_error(found, 5)
    assert hc1 == pytest.approx(0.0603280, abs=1e-7)
    assert hc1 * math.sqrt(5 / 6) == pytest.approx(0.0550717, abs=1e-7)


def test_rows_without_dose_carry_no_information():
    found = slope_through_origin([*DOSE, 0, 0], [*RESPONSE, 5, -5])
    assert found == slope_through_origin(DOSE, RESPONSE)
    assert slope_through_origin([0, 0], [1, 2]).flags == (NO_VARIATION,)
    assert not slope_equivalence([0, 0], [1, 2]).equivalent


def test_slope_map_equals_cell_by_cell():
    rng = np.random.default_rng(0)
    dose = rng.choice([-2.0, -1, 0, 1, 2], 60)
    response = dose[:, None] * [1, 0.5, 0] + rng.normal(size=(60, 3))
    response[4, 1] = np.nan
    labels = np.repeat(np.arange(12), 5)
    for clusters in (None, labels):
        found = slope_map(dose, response, clusters=clusters)
        for cell in range(3):
            single = slope_through_origin(dose, response[:, cell], clusters=clusters)
            assert found.slope[cell] == pytest.approx(single.estimate)
            assert found.ci_low[cell] == pytest.approx(single.ci_low)
            assert found.n_units[cell] == single.n_units
    with pytest.raises(UserError, match="slope map"):
        slope_map(dose[:3], response)


def _toy_lists(rng, n_pairs, n_words, share_running, hold_word):
    """Doses and responses of a counter that sums recurrently, in parallel, or a mixture.

    The recurrent part passes on the running count stored at word k; the parallel part adds up
    each word's own membership at the end, of which the patch replaces only word k's.
    """
    base, source = rng.integers(0, 2, (2, n_pairs, n_words))
    k = rng.integers(2, 8, n_pairs)
    rows = np.arange(n_pairs)
    if hold_word:
        source[rows, k] = base[rows, k]
    counts = base.cumsum(1)[rows, k], source.cumsum(1)[rows, k]
    dose = (counts[1] - counts[0]).astype(float)
    item = (source[rows, k] - base[rows, k]).astype(float)
    answers = base.sum(1).astype(float)
    return dose, share_running * dose + (1 - share_running) * item, answers


@pytest.mark.parametrize(("share", "slope"), [(1.0, 1.0), (0.0, 0.0), (0.6, 0.6)])
def test_toy_counters_have_the_slope_of_their_route(share, slope):
    rng = np.random.default_rng(1)
    dose, response, base = _toy_lists(rng, 400, 10, share, hold_word=True)
    found = slope_through_origin(dose, response)
    assert found.estimate == pytest.approx(slope, abs=1e-12)
    if share != 0.6:
        accuracy = shifted_accuracy(base + response, base, dose)
        assert accuracy.estimate == share


def test_slope_is_confounded_when_word_k_is_not_held_equal():
    rng = np.random.default_rng(2)
    dose, response, _ = _toy_lists(rng, 20000, 10, 0.0, hold_word=False)
    assert slope_through_origin(dose, response).estimate == pytest.approx(0.18, abs=0.01)


def test_verdicts():
    rng = np.random.default_rng(3)
    dose = rng.choice([-3.0, -2, -1, 1, 2, 3], 400)

    def verdict(slope, noise=0.5, n=400):
        return slope_verdict(dose[:n], slope * dose[:n] + rng.normal(0, noise, n))

    assert verdict(1.0) == "sole route"
    assert verdict(0.5) == "present"
    assert verdict(0.0) == "absent"
    assert verdict(0.0, noise=20, n=20) == "undetermined"


def test_wide_interval_around_zero_is_no_passed_control():
    rng = np.random.default_rng(4)
    dose = rng.choice([-1.0, 1.0], 12)
    found = slope_equivalence(dose, rng.normal(0, 3, 12))
    assert found.estimate.ci_low < 0 < found.estimate.ci_high
    assert not found.equivalent
    assert found.estimate.ci_level == pytest.approx(0.9)


def test_slope_error_grows_with_clusters():
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(30), 6)
    dose = np.repeat(rng.choice([-2.0, -1, 1, 2], 30), 6)
    response = dose + np.repeat(rng.normal(size=30), 6)
    plain = slope_through_origin(dose, response)
    clustered = slope_through_origin(dose, response, clusters=labels)
    assert clustered.half_width > 2 * plain.half_width


def test_slope_contrast_is_the_difference_of_slopes():
    rng = np.random.default_rng(6)
    dose = rng.choice([-2.0, -1, 1, 2], 50)
    real, placebo = dose * 0.7 + rng.normal(size=50), rng.normal(size=50)
    contrast = slope_contrast(dose, real, placebo)
    expected = (
        slope_through_origin(dose, real).estimate - slope_through_origin(dose, placebo).estimate
    )
    assert contrast.mean() == pytest.approx(expected)
    both = slope_contrast(dose, np.column_stack([real, real]), np.column_stack([placebo, real]))
    assert both.mean(axis=0) == pytest.approx([expected, 0])


def test_shifted_accuracy_counts_unparsed_as_wrong():
    found = shifted_accuracy([4, np.nan, 2, 9], [3, 3, 3, np.nan], [1, 1, 0, 1])
    assert found.estimate == 0.5
    assert (found.n_units, found.n_dropped) == (2, 1)


def test_tost_known_answer():
    clean = np.array([0.82, 0.75, 0.9, 0.66, 0.71, 0.88, 0.79, 0.93])
    changed = np.array([0.80, 0.77, 0.88, 0.67, 0.70, 0.89, 0.77, 0.92])
    found = mean_equivalence(changed - clean, low=-0.03, high=0.03)
    assert found.estimate.estimate == pytest.approx(-0.005, abs=1e-12)
    assert found.estimate.p_value == pytest.approx(0.0015602, abs=1e-7)
    limits = (found.estimate.ci_low, found.estimate.ci_high)
    assert limits == pytest.approx((-0.01574, 0.00574), abs=5e-6)
    assert found.equivalent


def test_tost_of_identical_arrays_claims_nothing():
    found = mean_equivalence(np.zeros(8))
    assert DEGENERATE_VARIANCE in found.estimate.flags
    assert not found.equivalent
    with pytest.raises(UserError, match="bounds"):
        mean_equivalence([1.0, 2.0], low=1, high=0)


BASE, PREDICTED = (3, 5, 2, 4, 6, 3), (5, 5, 4, 1, 6, 2)


def test_interchange_accuracy_known_answer():
    found = interchange_accuracy((5, 5, 4, 2, 6, 3), PREDICTED, BASE)
    assert found.all_pairs.estimate == pytest.approx(4 / 6)
    assert found.non_trivial.estimate == pytest.approx(2 / 4)
    assert found.trivial_share == pytest.approx(1 / 3)
    assert found.no_op.estimate == pytest.approx(1 / 3)


def test_patch_that_does_nothing_scores_zero_where_it_matters():
    found = interchange_accuracy(BASE, PREDICTED, BASE)
    assert found.all_pairs.estimate == pytest.approx(1 / 3)
    assert found.non_trivial.estimate == 0
    trivial = interchange_accuracy(BASE, BASE, BASE)
    assert trivial.non_trivial.flags == (EMPTY_CELL,)


def test_interchange_accuracy_conditions_and_counts_unparsed():
    found = interchange_accuracy(
        (5, 5, np.nan, 1, 6, 3), PREDICTED, BASE, both_right=[1, 1, 0, 1, 1, 0]
    )
    assert found.non_trivial.estimate == pytest.approx(2 / 4)
    assert found.when_right is not None
    assert found.when_right.estimate == 1


def test_real_donor_against_placebo_on_the_same_pairs():
    n = 40
    base, predicted = np.zeros(n), np.ones(n)
    real = np.r_[np.ones(20), np.zeros(20)]
    found = against_placebo(real, np.zeros(n), predicted, base)
    assert found.estimate == pytest.approx(0.5)
    assert found.p_value < 1e-4
    none = against_placebo(real, real, predicted, base)
    assert none.p_value == 1


def test_balance_known_answer_and_limits():
    assert standardized_mean_difference((5, 6, 7, 6, 5), (5, 6, 6, 6, 5)) == pytest.approx(
        0.2828427, abs=1e-7
    )
    assert standardized_mean_difference([1, 1], [1, 1]) == 0
    assert standardized_mean_difference([2, 2], [1, 1]) == math.inf
    rows = balance_table(
        {"length": (5, 6, 7, 6, 5), "zipf": [1, 2, 3], "none": [np.nan]},
        {"length": (5, 6, 6, 6, 5), "zipf": [1, 2, 3], "none": [1.0]},
    )
    assert [row.passed for row in rows] == [False, True, False]


def _path(base, source, steps):
    """Average gradient of tanh at the midpoints of the path, times its length."""
    at = base + (np.arange(steps) + 0.5) / steps * (source - base)
    return float((source - base) * np.mean(1 - np.tanh(at) ** 2))


@pytest.mark.parametrize(
    ("base", "source", "true", "first_order", "integrated"),
    [
        (0.0, 2.0, 0.9640276, 2.0, 0.9642538),
        (3.0, 0.0, -0.9950548, -0.0295981, -0.9951276),
        (0.5, 0.6, 0.0749324, 0.0786448, None),
    ],
)
def test_first_order_attribution_misses_saturated_units(
    base, source, true, first_order, integrated
):
    assert np.tanh(source) - np.tanh(base) == pytest.approx(true, abs=1e-7)
    assert (source - base) * (1 - np.tanh(base) ** 2) == pytest.approx(first_order, abs=1e-7)
    if integrated is not None:
        assert _path(base, source, 10) == pytest.approx(integrated, abs=1e-6)
    audit = audit_attribution(
        [first_order], [true], [abs(first_order) > 0.05], smallest_effect=0.05
    )
    assert audit.n_missed == (1 if base == 3.0 else 0)
    assert audit.worst_error == pytest.approx(abs(true - first_order), abs=1e-6)


def test_audit_passes_a_faithful_screen_only():
    rng = np.random.default_rng(7)
    exact = rng.normal(size=200)
    rough = exact + rng.normal(0, 0.1, 200)
    good = audit_attribution(rough, exact, np.abs(rough) > 0.3, smallest_effect=0.8)
    assert good.passed
    assert good.false_negative_rate == 0
    bad = audit_attribution(rng.permutation(rough), exact, np.abs(rough) > 0.3, smallest_effect=0.8)
    assert not bad.passed
    missing = audit_attribution([np.nan, 1.0], [1.0, 1.0], [True, True], smallest_effect=0.1)
    assert not missing.passed


def test_audit_cells_hold_the_top_and_a_random_share():
    scores = np.arange(1000.0)
    cells = audit_cells(scores, seed=0)
    assert set(range(980, 1000)) <= set(cells.tolist())
    assert 60 <= len(cells) <= 70
    assert np.array_equal(cells, audit_cells(scores, seed=0))


@pytest.mark.parametrize(
    ("effect", "sd", "tests", "n"),
    [
        (0.05, 0.3, 1, 283), (0.05, 0.3, 32, 578), (0.05, 0.3, 640, 827),
        (0.1, 0.3, 1, 71), (0.1, 0.3, 32, 145), (0.1, 0.3, 640, 207),
        (0.2, 0.5, 1, 50), (0.2, 0.5, 32, 101), (0.2, 0.5, 640, 144),
    ],
)  # fmt: skip
def test_pairs_needed_for_a_map(effect, sd, tests, n):
    assert power.units_for_mean(effect, sd, n_tests=tests) == pytest.approx(n, abs=1)


@pytest.mark.parametrize(
    ("delta", "psi", "n"),
    [(0.03, 0.2, 1742), (0.05, 0.2, 626), (0.05, 0.3, 940), (0.1, 0.3, 234)],
)
def test_items_for_mcnemar(delta, psi, n):
    assert power.items_for_paired_difference(delta, psi) == pytest.approx(n, abs=1)
    assert power.detectable_paired_difference(psi, n) == pytest.approx(delta, rel=2e-3)


def test_other_planned_sizes():
    assert [power.items_for_proportion(p, 0.1) for p in (0.2, 0.3, 0.5)] == [86, 24, 7]
    assert power.pairs_for_slope(0.3, 1.0, 4.0) == 22
    assert power.units_for_equivalence(0.03, 0.1) == pytest.approx(952, abs=1)
    assert power.units_for_equivalence(0.05, 0.1) == 343
    assert power.design_effect(10, 0.3) == pytest.approx(3.7)
    assert power.design_effect(4, 0.5) == pytest.approx(2.5)
    assert power.power_of_mean(0.4, 1, 50) == pytest.approx(0.7918, abs=0.02)


def test_detectable_effects_invert_the_sizes():
    assert power.detectable_mean(0.3, 283) == pytest.approx(0.05, rel=1e-2)
    assert power.detectable_slope(1.0, 4.0, 22) == pytest.approx(0.3, rel=2e-2)
    assert math.isnan(power.detectable_mean(1, 1))
    assert math.isnan(power.detectable_slope(1, 0, 100))
    assert math.isnan(power.detectable_paired_difference(0.01, 50))
    assert power.detectable_mean(1, 100, n_tests=640) > power.detectable_mean(1, 100)
