"""Accuracy, strata, error size, answer distributions, calibration, paired comparison, wording."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.stats.accuracy import accuracy, baselines, design_weighted_accuracy
from interpflow.stats.calibration import (
    brier_scores,
    calibration,
    calibration_curve,
    expected_calibration_error,
    log_losses,
    proper_scores,
)
from interpflow.stats.error_size import (
    answer_slope,
    confusion,
    error_size,
    kappa,
    mean_answer_by_truth,
)
from interpflow.stats.extraction_reliability import (
    extraction_gate,
    readout_agreement,
    zero_failures_upper,
)
from interpflow.stats.paired import (
    against_constant,
    cochran_q,
    mcnemar_exact,
    mcnemar_mid_p,
    newcombe_paired,
    paired_difference,
    pairwise_differences,
)
from interpflow.stats.record import (
    EMPTY_CELL,
    LOW_CAPTURED_MASS,
    NO_VARIATION,
    READOUT_DISAGREES,
    SHRUNK_TO_POOLED,
    SINGLE_CLASS,
    SMALL_STRATUM,
)
from interpflow.stats.response import (
    bowker,
    information_of_table,
    input_sensitivity,
    jensen_shannon,
    marginal_divergence,
    stuart_maxwell,
    total_variation,
)
from interpflow.stats.strata import stratified_accuracy
from interpflow.stats.template_sensitivity import (
    corrected_spread,
    rank_stability,
    template_sensitivity,
)

TABLE = [[20, 5, 0], [10, 15, 5], [5, 5, 10]]


def test_accuracy_known_answer():
    correct = np.r_[np.ones(40), np.zeros(60)].astype(bool)
    parsed = np.r_[np.ones(85), np.zeros(15)].astype(bool)
    found = accuracy(correct, parsed)
    assert found.strict.estimate == pytest.approx(0.40)
    assert (found.lower_bound, found.upper_bound) == pytest.approx((0.40, 0.55))
    assert found.conditional.estimate == pytest.approx(0.470588, abs=1e-6)
    assert found.conditional.n_dropped == 15
    assert found.parse_rate.estimate == pytest.approx(0.85)


def test_accuracy_of_nothing_and_of_clusters():
    assert accuracy([]).strict.flags == (EMPTY_CELL,)
    rng = np.random.default_rng(0)
    hits = np.repeat(rng.random(30) < 0.5, 10)
    plain, clustered = accuracy(hits), accuracy(hits, clusters=np.repeat(np.arange(30), 10))
    assert clustered.strict.half_width > 2.5 * plain.strict.half_width
    with pytest.raises(UserError, match="shape"):
        accuracy([True], [True, False])


@pytest.mark.parametrize(("n", "half"), [(100, 0.096), (400, 0.049), (1000, 0.031), (2400, 0.020)])
def test_half_width_at_one_half(n, half):
    hits = np.arange(n) < n // 2
    assert accuracy(hits).strict.half_width == pytest.approx(half, abs=2e-3)


def test_design_weights_undo_an_unequal_mix():
    correct = np.r_[np.ones(90), np.zeros(10)]
    cells = np.r_[np.zeros(90), np.ones(10)]
    assert correct.mean() == 0.9
    assert design_weighted_accuracy(correct, cells).estimate == pytest.approx(0.5)
    missing = design_weighted_accuracy(correct, cells, weights={0.0: 1, 7.0: 1})
    assert missing.flags == (EMPTY_CELL,)


def test_baselines():
    truth = np.array([1, 1, 1, 2, 2, 3])
    lengths = np.array([3, 3, 3, 5, 5, 5])
    found = baselines(truth, np.full(6, 1.0), lengths, n_allowed=16)
    assert found.uniform == 1 / 16
    assert found.best_constant == pytest.approx(0.5)
    assert found.best_constant_answer == 1
    assert found.own_marginal == pytest.approx(0.5)
    assert found.length_only == pytest.approx(5 / 6)


def _strata(k, n):
    correct = np.concatenate([np.arange(size) < hits for hits, size in zip(k, n, strict=True)])
    return correct, np.repeat(np.arange(len(k)), n)


def test_strata_known_answers():
    correct, labels = _strata((2, 9, 14, 5, 18), (20, 20, 20, 10, 20))
    found = stratified_accuracy(correct, labels, factor="count")
    assert (found.prior_a, found.prior_b) == pytest.approx((1.6230, 1.4696), abs=1e-3)
    shrunk = [row.shrunk for row in found.strata]
    assert shrunk == pytest.approx((0.1569, 0.4600, 0.6765, 0.5059, 0.8498), abs=1e-3)
    first = found.strata[0]
    assert (first.shrunk_low, first.shrunk_high) == pytest.approx((0.0426, 0.3268), abs=1e-3)
    p = [row.contrast.p_value for row in found.strata]
    assert p == pytest.approx((0.00001, 0.4523, 0.1275, 1.0, 0.00023), abs=1e-4)
    adjusted = [row.contrast.p_adjusted for row in found.strata]
    assert adjusted == pytest.approx((0.00004, 0.5654, 0.2126, 1, 0.00057), abs=1e-4)
    assert found.overall.p_value == pytest.approx(8.88e-6, rel=1e-3)
    assert SMALL_STRATUM in found.strata[3].flags


def test_strata_without_differences_shrink_to_the_pooled_rate():
    correct, labels = _strata((10, 10, 10), (20, 20, 20))
    found = stratified_accuracy(correct, labels, factor="length")
    assert all(SHRUNK_TO_POOLED in row.flags for row in found.strata)
    assert [row.shrunk for row in found.strata] == pytest.approx([0.5] * 3, abs=1e-3)
    everything = stratified_accuracy([True] * 10, [0] * 5 + [1] * 5, factor="length")
    assert everything.overall.flags == (NO_VARIATION,)


def test_strata_with_clusters_use_cluster_errors():
    rng = np.random.default_rng(1)
    list_right = rng.random(60) < 0.5
    correct, lists = np.repeat(list_right, 8), np.repeat(np.arange(60), 8)
    labels = np.repeat(np.arange(60) % 3, 8)
    naive = stratified_accuracy(correct, labels, factor="count")
    clustered = stratified_accuracy(correct, labels, factor="count", clusters=lists)
    assert clustered.overall.test == "cluster_wald"
    assert clustered.overall.p_value > naive.overall.p_value
    for wide, narrow in zip(clustered.strata, naive.strata, strict=True):
        assert wide.contrast.p_value >= narrow.contrast.p_value
        assert wide.contrast.half_width > 2 * narrow.contrast.half_width


def test_error_size_known_answer():
    found = error_size((3, 5, 2, 4, 0), (3, 4, 2, 7, np.nan), seed=0)
    assert found.mae.estimate == pytest.approx(1.0)
    assert found.bias.estimate == pytest.approx(0.5)
    assert found.rmse.estimate == pytest.approx(1.5811388, abs=1e-7)
    assert found.within_one.estimate == pytest.approx(0.75)
    assert found.parse_rate.estimate == pytest.approx(0.8)
    assert found.mae.n_dropped == 1
    truth = np.array([3, 5, 2, 4, 0])
    both = accuracy(truth == (3, 4, 2, 7, -1), [1, 1, 1, 1, 0])
    assert (both.strict.estimate, both.conditional.estimate) == (0.4, 0.5)


def test_best_constant_has_normalised_error_one_and_intervals_hold_the_point():
    truth = np.random.default_rng(2).integers(0, 16, 201)
    found = error_size(truth, np.full(201, np.median(truth)), n_resamples=199, seed=0)
    assert found.normalised_mae == pytest.approx(1.0)
    for estimate in (found.mae, found.rmse, found.bias):
        assert estimate.ci_low <= estimate.estimate <= estimate.ci_high
    assert error_size([1, 2], [np.nan, np.nan], seed=0).mae.flags == (EMPTY_CELL,)


def test_confusion_keeps_out_of_range_and_unparsed():
    found = confusion([0, 1, 2, 2, 1], [0, 5, np.nan, 2, 1.5], maximum=2)
    assert found.column_labels == ("0", "1", "2", "out of range", "unparsed")
    assert found.counts.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 2, 0], [0, 0, 1, 0, 1]]
    assert found.row_shares()[2].tolist() == [0, 0, 0.5, 0, 0.5]
    assert np.isnan(confusion([0], [0], maximum=1).row_shares()[1]).all()
    with pytest.raises(UserError, match="truths"):
        confusion([9], [1], maximum=2)


def test_kappa_known_answers():
    assert kappa(TABLE).estimate == pytest.approx(0.3918919, abs=1e-7)
    assert kappa(TABLE, weights="linear").estimate == pytest.approx(0.4502618, abs=1e-7)
    assert kappa([[50, 0], [0, 0]]).flags == (SINGLE_CLASS,)
    assert kappa([[49, 0], [1, 0]]).estimate == pytest.approx(0)
    assert kappa([[0, 0], [0, 0]]).flags == (EMPTY_CELL,)


def test_kappa_error_agrees_with_statsmodels():
    from statsmodels.stats.inter_rater import cohens_kappa

    for weights, name in (("none", None), ("linear", "linear")):
        found = kappa(TABLE, weights=weights)
        reference = cohens_kappa(np.array(TABLE), wt=name)
        reach = math.atanh(found.ci_high) - math.atanh(found.estimate)
        error = reach * (1 - found.estimate**2) / 1.959964
        assert error == pytest.approx(reference.std_kappa, rel=1e-5)
    assert kappa([[45, 5], [10, 40]]).estimate == pytest.approx(0.7)


def test_slope_of_answers_on_truth():
    truth = np.tile(np.arange(6.0), 10)
    noise = np.random.default_rng(3).normal(size=60)
    perfect = answer_slope(truth, truth + 0 * noise)
    assert perfect.estimate == pytest.approx(1)
    flat = answer_slope(truth, 3 + noise)
    assert flat.ci_low < 0 < flat.ci_high
    assert answer_slope([2, 2, 2], [1, 2, 3]).flags == (NO_VARIATION,)


def test_slope_error_agrees_with_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(4)
    truth, labels = rng.integers(0, 9, 80).astype(float), np.repeat(np.arange(16), 5)
    answers = 0.7 * truth + rng.normal(size=80)
    fit = sm.OLS(answers, sm.add_constant(truth)).fit(
        cov_type="cluster", cov_kwds={"groups": labels}, use_t=True
    )
    found = answer_slope(truth, answers, clusters=labels)
    assert found.ci_low == pytest.approx(fit.conf_int()[1][0], abs=1e-9)
    assert found.p_value == pytest.approx(fit.pvalues[1], rel=1e-6)


def test_mean_answer_by_truth():
    values, means, parsed = mean_answer_by_truth([0, 0, 1], [1, 3, np.nan])
    assert values.tolist() == [0, 1]
    assert means[0] == 2
    assert math.isnan(means[1])
    assert parsed.tolist() == [2, 0]


def test_divergence_known_answers():
    p, q = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5)
    assert float(total_variation(p, q)) == pytest.approx(0.3)
    assert float(jensen_shannon(p, q)) == pytest.approx(0.0664143, abs=1e-7)
    assert float(jensen_shannon(p, q)) / math.log(2) == pytest.approx(0.0958156, abs=1e-7)
    assert float(jensen_shannon((1, 0), (0, 1))) == pytest.approx(math.log(2))
    assert math.isnan(float(jensen_shannon((0, 0), (0, 1))))


def test_jensen_shannon_is_the_square_of_scipy():
    from scipy.spatial.distance import jensenshannon

    p, q = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5)
    assert jensenshannon(p, q) == pytest.approx(0.2577097, abs=1e-7)
    assert float(jensen_shannon(p, q)) == pytest.approx(jensenshannon(p, q) ** 2)


def test_marginal_tests_known_answers():
    stuart, symmetry = stuart_maxwell(TABLE), bowker(TABLE)
    assert stuart.estimate == pytest.approx(5.454545, abs=1e-6)
    assert stuart.p_value == pytest.approx(0.0653974, abs=1e-7)
    assert symmetry.estimate == pytest.approx(6.666667, abs=1e-6)
    assert symmetry.p_value == pytest.approx(0.0833163, abs=1e-7)
    assert bowker([[3, 0], [0, 3]]).flags == (NO_VARIATION,)
    assert stuart_maxwell([[3, 0], [0, 3]]).flags == (NO_VARIATION,)


def test_swap_test_matches_a_direct_simulation_and_finds_a_shifted_marginal():
    truth = np.repeat([0, 0, 0, 1, 1, 1, 2, 2, 2], [20, 5, 0, 10, 15, 5, 5, 5, 10])
    answers = np.repeat([0, 1, 2, 0, 1, 2, 0, 1, 2], [20, 5, 0, 10, 15, 5, 5, 5, 10])
    found = marginal_divergence(truth, answers, categories=range(3), seed=0)
    rng = np.random.default_rng(1)
    null = []
    for _ in range(2000):
        swapped = rng.random(75) < 0.5
        sides = np.where(swapped, answers, truth), np.where(swapped, truth, answers)
        null.append(float(jensen_shannon(*(np.bincount(x, minlength=3) / 75 for x in sides))))
    direct = np.mean(np.array(null) >= found.jsd.estimate - 1e-12)
    assert found.jsd.p_value == pytest.approx(direct, abs=0.025)
    assert found.answer_shares.sum() == pytest.approx(1)
    constant = marginal_divergence(truth, np.zeros(75), categories=range(3), seed=0)
    assert constant.tv.p_adjusted <= 0.001
    assert constant.tv.estimate == pytest.approx(float(np.mean(truth != 0)))


def test_equal_answers_and_other_answers():
    same = marginal_divergence([1, 2, 3], [1, 2, 3], categories=(1, 2, 3), n_resamples=99, seed=0)
    assert same.tv.p_value == 1
    odd = marginal_divergence([1, 2], [np.nan, 77], categories=(1, 2), n_resamples=99, seed=0)
    assert odd.labels[-1] == "other"
    assert odd.answer_shares[-1] == 1
    empty = marginal_divergence([], [], categories=(1,), n_resamples=9, seed=0)
    assert empty.tv.flags == (EMPTY_CELL,)


def test_swap_test_has_its_size_and_the_pooled_shuffle_does_not():
    rng = np.random.default_rng(5)
    swap, pooled, repeats = 0, 0, 200
    for index in range(repeats):
        truth = rng.integers(0, 5, 100)
        answers = np.where(rng.random(100) < 0.6, truth, rng.integers(0, 5, 100))
        found = marginal_divergence(
            truth, answers, categories=range(5), n_resamples=199, seed=index
        )
        swap += found.jsd.p_value <= 0.05
        joined = np.r_[truth, answers]
        null = []
        for _ in range(99):
            rng.shuffle(joined)
            halves = [np.bincount(h, minlength=5) / 100 for h in np.split(joined, 2)]
            null.append(float(jensen_shannon(*halves)))
        pooled += (1 + np.sum(np.array(null) >= found.jsd.estimate)) / 100 <= 0.05
    assert swap / repeats <= 0.10
    assert swap > pooled
    assert pooled / repeats < 0.02


def test_information_known_answers():
    assert information_of_table([[8, 2], [3, 7]]) == pytest.approx(0.1325055, abs=1e-7)
    assert information_of_table(np.eye(5) * 7) == pytest.approx(1.6094379, abs=1e-7)
    assert information_of_table([[10, 0], [0, 10]]) == pytest.approx(math.log(2))
    assert information_of_table([[5, 5], [5, 5]]) == pytest.approx(0)


def test_gate_fails_on_constant_answers_and_passes_on_perfect_ones():
    truth = np.tile(np.arange(5), 20)
    constant = input_sensitivity(truth, np.full(100, 3.0), n_resamples=99, seed=0)
    assert constant.information.estimate == 0
    assert constant.information.p_value == 1
    assert not constant.gate.passed
    perfect = input_sensitivity(truth, truth, n_resamples=199, seed=0)
    assert perfect.information.estimate == pytest.approx(math.log(5))
    assert perfect.share_of_entropy == pytest.approx(1)
    assert perfect.gate.passed
    assert not input_sensitivity([], [], seed=0).gate.passed


def test_gate_sees_through_a_nuisance():
    rng = np.random.default_rng(6)
    length = rng.integers(3, 9, 400)
    truth = (length * rng.uniform(0.3, 0.7, 400)).astype(int)
    answers = (length * rng.uniform(0.3, 0.7, 400)).astype(int)
    naive = input_sensitivity(truth, answers, n_resamples=199, seed=0)
    held = input_sensitivity(truth, answers, strata=length, n_resamples=199, seed=0)
    assert naive.gate.passed
    assert not held.gate.passed


def test_information_bias_of_independent_answers():
    rng = np.random.default_rng(7)
    found = []
    for _ in range(300):
        table = np.zeros((5, 5))
        np.add.at(table, (rng.integers(0, 5, 100), rng.integers(0, 5, 100)), 1)
        found.append(information_of_table(table))
    assert np.mean(found) == pytest.approx(0.087, abs=0.006)


CONFIDENCE = np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.65, 0.6, 0.55, 0.55, 0.5])
CORRECT = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1, 0])


def test_calibration_known_answers():
    assert expected_calibration_error(CONFIDENCE, CORRECT, bins=5) == pytest.approx(0.305)
    assert expected_calibration_error(CONFIDENCE, CORRECT, bins=2) == pytest.approx(0.105)
    found = calibration(CONFIDENCE, CORRECT, bins=5, n_resamples=99, seed=0)
    assert found.brier_binary.estimate == pytest.approx(0.22025, abs=1e-9)
    assert found.signed_gap.estimate == pytest.approx(0.105)
    assert len(calibration_curve(CONFIDENCE, CORRECT, bins=5)) == 5
    assert sum(part.n for part in found.curve) == 10


def test_proper_scores_known_answers():
    p = [[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]]
    assert brier_scores(p, (0, 2)).mean() == pytest.approx(0.44)
    assert log_losses(p, (0, 2)).mean() == pytest.approx(0.7803239, abs=1e-7)
    brier, loss = proper_scores(p, (0, 2))
    assert (brier.estimate, loss.estimate) == pytest.approx((0.44, 0.7803239), abs=1e-7)


@pytest.mark.parametrize(
    ("n", "bins", "mean"),
    [(100, 10, 0.10), (200, 10, 0.071), (1000, 10, 0.031), (200, 15, 0.086)],
)
def test_calibration_error_of_a_calibrated_model_is_not_zero(n, bins, mean):
    confidence = np.random.default_rng(8).uniform(0.5, 1, n)
    right = np.random.default_rng(9).random(n) < confidence
    found = calibration(confidence, right, bins=bins, n_resamples=999, seed=0)
    assert found.ece_null_mean == pytest.approx(mean, abs=0.008)
    assert found.ece.p_value > 0.01


def test_overconfidence_is_found_and_edges_are_flagged():
    rng = np.random.default_rng(10)
    confidence = rng.uniform(0.8, 1, 400)
    found = calibration(
        confidence,
        rng.random(400) < 0.6,
        captured_mass=np.full(400, 0.2),
        n_resamples=199,
        seed=0,
    )
    assert found.ece.p_value == pytest.approx(1 / 200)
    assert found.ece_excess > 0.15
    assert found.signed_gap.ci_low > 0.2
    assert found.ece.flags == (LOW_CAPTURED_MASS,)
    assert calibration([], [], seed=0).ece.flags == (EMPTY_CELL,)
    with pytest.raises(UserError, match="confidences"):
        calibration([1.5], [1], seed=0)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(10, 2, 0.0385742), (0, 0, 1), (5, 0, 0.0625), (6, 0, 0.03125), (15, 5, 0.0413895)],
)
def test_mcnemar_known_answers(b, c, p):
    assert mcnemar_exact(b, c) == pytest.approx(p, abs=1e-7)


def test_mid_p_known_answer():
    assert mcnemar_mid_p(10, 2) == pytest.approx(0.0224609, abs=1e-7)
    assert mcnemar_mid_p(0, 0) == 1
    assert mcnemar_mid_p(4, 4) == pytest.approx(1)


def test_newcombe_known_answers():
    assert newcombe_paired(50, 10, 2, 38) == pytest.approx((0.0112806, 0.1468273), abs=1e-7)
    assert newcombe_paired(60, 0, 0, 40) == pytest.approx((-0.0206, 0.0206), abs=1e-4)
    assert all(math.isnan(limit) for limit in newcombe_paired(0, 0, 0, 0))


def test_newcombe_phi_known_answer():
    from interpflow.stats.paired import _newcombe_phi

    assert _newcombe_phi(50, 10, 2, 38) == pytest.approx(0.7476927, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda cells: sum(cells) > 0))
def test_newcombe_mirrors_and_holds_the_difference(cells):
    a, b, c, d = cells
    low, high = newcombe_paired(a, b, c, d)
    assert low - 1e-12 <= (b - c) / sum(cells) <= high + 1e-12
    assert newcombe_paired(a, c, b, d) == pytest.approx((-high, -low), abs=1e-9)


def test_newcombe_covers_where_wald_does_not():
    rng = np.random.default_rng(11)
    shares, repeats = (0.9, 0.04, 0.02, 0.04), 1000
    newcombe, wald = 0, 0
    for a, b, c, d in rng.multinomial(50, shares, size=repeats):
        low, high = newcombe_paired(a, b, c, d)
        newcombe += low <= 0.02 <= high
        difference = (b - c) / 50
        half = 1.96 * math.sqrt((b + c) / 2500 - difference**2 / 50)
        wald += abs(difference - 0.02) <= half
    assert newcombe / repeats >= 0.95
    assert wald / repeats < 0.90


def test_paired_difference_of_models():
    first = np.repeat([1, 1, 0, 0], [50, 10, 2, 38])
    second = np.repeat([1, 0, 1, 0], [50, 10, 2, 38])
    found = paired_difference(first, second)
    assert found.estimate == pytest.approx(0.08)
    assert found.p_value == pytest.approx(0.0385742, abs=1e-7)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0112806, 0.1468273), abs=1e-7)
    assert paired_difference([], []).flags == (EMPTY_CELL,)
    with pytest.raises(UserError, match="shapes"):
        paired_difference([1], [1, 0])


def test_clustered_difference_flips_clusters():
    rng = np.random.default_rng(12)
    better = np.repeat(rng.random(16) < 0.8, 10)
    labels = np.repeat(np.arange(16), 10)
    found = paired_difference(better, ~better, clusters=labels, seed=0, n_resamples=999)
    assert found.n_clusters == 16
    assert found.p_value > paired_difference(better, ~better).p_value


def test_cochran_known_answer():
    table = [[1, 1, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0]]
    found = cochran_q(table)
    assert found.estimate == pytest.approx(6.4)
    assert found.p_value == pytest.approx(0.0407622, abs=1e-7)
    assert cochran_q([[1, 1], [0, 0]]).flags == (NO_VARIATION,)


def test_pairwise_models_are_adjusted_together():
    rng = np.random.default_rng(13)
    table = np.column_stack([rng.random(200) < p for p in (0.9, 0.5, 0.5)])
    found = pairwise_differences(table, ["a", "b", "c"])
    assert [e.quantity for e in found] == ["a − b", "a − c", "b − c"]
    assert found[0].p_adjusted < 0.001
    assert all(e.p_adjusted >= e.p_value for e in found)
    with pytest.raises(UserError, match="names"):
        pairwise_differences(table, ["a"])


def test_constant_answerer_does_not_beat_the_best_constant():
    truth = np.r_[np.full(60, 3), np.full(40, 5)]
    constant = against_constant(truth == 3, truth)
    assert constant.estimate == 0
    assert constant.p_value == 1
    assert against_constant(np.ones(100, bool), truth).p_value < 1e-6


def test_extraction_gate_needs_enough_hand_labels():
    parse, extractor = extraction_gate(975, 1000, 125, 125)
    assert parse.passed
    assert extractor.passed
    assert extractor.value == pytest.approx(0.9702, abs=1e-4)
    assert not extraction_gate(960, 1000, 124, 124)[0].passed
    assert not extraction_gate(975, 1000, 100, 100)[1].passed
    assert not extraction_gate(0, 0, 0, 0)[0].passed


def test_no_failure_seen_is_no_proof():
    bounds = [zero_failures_upper(n) for n in (50, 100, 300)]
    assert bounds == pytest.approx((0.0582, 0.0295, 0.0099), abs=1e-4)


def test_readouts_that_differ_are_flagged():
    truth = np.tile(np.arange(4.0), 30)
    generated = truth.copy()
    generated[:40] = np.nan
    found = readout_agreement(generated, truth, truth, categories=range(4))
    assert found.disagrees
    assert READOUT_DISAGREES in found.accuracy_difference.flags
    assert found.agreement.estimate == pytest.approx(80 / 120)
    assert found.kappa.estimate < 1
    same = readout_agreement(truth, truth, truth, categories=range(4))
    assert not same.disagrees


def test_template_spread_known_answer():
    found = corrected_spread((0.52, 0.61, 0.47, 0.58, 0.55), 200)
    assert found.range == pytest.approx(0.14)
    assert found.sd == pytest.approx(0.0541295, abs=1e-7)
    assert found.sd_corrected == pytest.approx(0.0412589, abs=1e-7)


def test_range_of_identical_templates_is_not_zero():
    rng = np.random.default_rng(14)
    found = template_sensitivity(rng.random((100, 10)) < 0.5, n_resamples=499, seed=0)
    assert found.range_null_mean == pytest.approx(0.154, abs=0.02)
    assert found.range_null_95 == pytest.approx(0.22, abs=0.03)
    assert found.range.p_value > 0.01
    assert found.mean.n_units == 100


def test_templates_that_matter_are_found():
    rng = np.random.default_rng(15)
    skill = rng.random((300, 1))
    table = skill < np.linspace(0.3, 0.8, 10)
    found = template_sensitivity(table, n_resamples=199, seed=0)
    assert found.range.p_value == pytest.approx(1 / 200)
    assert found.cochran.p_value < 1e-6
    assert found.sd_corrected == pytest.approx(found.sd, rel=0.1)
    with pytest.raises(UserError, match="templates"):
        template_sensitivity(np.ones((5, 1)), seed=0)


def test_rank_stability():
    assert rank_stability([[0.9, 0.8], [0.5, 0.4], [0.1, 0.2]]) == pytest.approx(1)
    assert rank_stability([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]) == pytest.approx(-1)
    assert math.isnan(rank_stability([[0.5, 0.5]]))
