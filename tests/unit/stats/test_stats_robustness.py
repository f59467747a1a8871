"""Paired contrasts, flips, dose–response and reward differences against known answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from interpflow.errors import UserError
from interpflow.stats.clustered_regression import adjusted_mean
from interpflow.stats.clustered_share import mean_share
from interpflow.stats.conditional_logit import conditional_logit
from interpflow.stats.flips import expected_worst, flips, worst_case
from interpflow.stats.intervals import wilson
from interpflow.stats.paired_contrasts import cell_means, paired_contrasts
from interpflow.stats.population_models import gee_slope, random_intercept
from interpflow.stats.record import (
    ABOVE_LARGEST_DOSE,
    DEGENERATE_VARIANCE,
    NO_VARIATION,
    SEPARATION,
    TOO_FEW_CLUSTERS,
)
from interpflow.stats.signed_ranks import (
    hedges_factor,
    hodges_lehmann,
    rank_biserial,
    standardized_mean,
    wilcoxon_p,
)
from interpflow.stats.trend import decreasing_fit, dose_curve, dose_of_loss, page_trend

# methods.md 4.7
REWARDS = (-0.4, -0.1, 0, -0.3, 0.2, -0.6, -0.2, 0.1, -0.5, -0.3)


def test_one_contrast_by_hand() -> None:
    # methods.md 4.1
    clean = np.array([1, 1, 0, 1])
    draws = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1]])
    units, cells = np.repeat(np.arange(4), 3), np.zeros(12, dtype=int)
    means = cell_means(draws.ravel(), units, cells, 4, 1)
    (found,) = paired_contrasts(means - clean[:, None], seed=0)
    assert_allclose(found.estimate, -0.25)
    assert_allclose((found.ci_low, found.ci_high), (-0.7578, 0.2578), atol=5e-5)
    assert found.p_value == found.p_adjusted == 0.5
    assert found.n_units == 4


def test_missing_answers_leave_their_condition_only() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.3, 1, (60, 3))
    values[:7, 1] = np.nan
    found = paired_contrasts(values, clusters=np.arange(60) // 2, seed=3, n_resamples=199)
    assert [record.n_dropped for record in found] == [0, 7, 0]
    assert [record.n_clusters for record in found] == [30, 27, 30]
    assert_allclose(found[1].estimate, np.nanmean(values[:, 1]))


def test_a_condition_that_breaks_every_prompt_is_significant() -> None:
    values = np.column_stack([np.full(20, -1.0), np.zeros(20)])
    broken, null = paired_contrasts(values, seed=0, n_resamples=999)
    assert broken.p_adjusted == 2 * broken.p_value == 0.002
    assert (null.estimate, null.p_value) == (0, 1)
    assert DEGENERATE_VARIANCE in null.flags


def test_too_few_units_are_undefined() -> None:
    (found,) = paired_contrasts([[0.5]], seed=0)
    assert not found.defined
    assert TOO_FEW_CLUSTERS in found.flags
    with pytest.raises(UserError, match="units, k"):
        paired_contrasts([0.5], seed=0)


def _planted(rng: np.random.Generator, costs: np.ndarray, n_families: int) -> np.ndarray:
    """Differences of accuracies with planted costs: the three prompts of a family are lost
    together as often as each by itself."""
    family = rng.random((n_families, len(costs))).repeat(3, axis=0)
    own = rng.random((3 * n_families, len(costs)))
    together = rng.random((n_families, 1)).repeat(3, axis=0) < 0.5
    lost = np.where(together, family, own) < costs / 0.85
    clean = rng.random((3 * n_families, 1)) < 0.85
    return (clean & ~lost).astype(float) - clean


def test_planted_costs_are_covered_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(5)
    costs, runs, n_families = np.array([0.02, 0.15, 0.3]), 1000, 100
    families = np.repeat(np.arange(n_families), 3)
    covered, naive = np.zeros(3), np.zeros(3)
    for run in range(runs):
        data = _planted(rng, costs, n_families)
        for clusters, hits in ((families, covered), (None, naive)):
            found = paired_contrasts(data, clusters=clusters, seed=run, n_resamples=99)
            hits += [r.ci_low <= -c <= r.ci_high for r, c in zip(found, costs, strict=True)]
    # Of the rarest loss there are about 6 in 300 prompts: too skewed for the nominal rate.
    assert np.all((covered[1:] / runs > 0.93) & (covered[1:] / runs < 0.97)), covered / runs
    assert covered[0] / runs > 0.8
    # Families taken for independent prompts: what clustering is for.
    assert np.all(naive[1:] / runs < 0.92), naive / runs


def test_without_a_cost_the_family_errs_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(7)
    wrong = 0
    for run in range(300):
        noise = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=(50, 8))
        found = paired_contrasts(noise, seed=run, n_resamples=199)
        wrong += min(record.p_adjusted for record in found) <= 0.05
    assert wrong / 300 < 0.09


def test_flip_rates_by_hand() -> None:
    clean = np.array([1, 1, 1, 0, 0, np.nan])
    variants = np.array([[1, 0], [0, 0], [1, np.nan], [0, 1], [0, 0], [1, 1]])
    found = flips(clean, variants)
    assert_allclose(found.to_wrong.estimate, (0.5 + 1 + 0) / 3)
    assert_allclose(found.to_right.estimate, 0.25)
    assert_allclose(found.net.estimate, (-0.5 - 1 + 0 + 0.5 + 0) / 5)
    same = flips(clean[:5], np.repeat(clean[:5, None], 3, axis=1))
    assert (same.to_wrong.estimate, same.to_right.estimate, same.net.estimate) == (0, 0, 0)


def test_shares_stay_between_0_and_1() -> None:
    nearly = np.ones(300)
    nearly[0] = 0
    alone = mean_share(nearly)
    assert_allclose((alone.ci_low, alone.ci_high), wilson(299, 300))
    paired = mean_share(nearly, clusters=np.arange(300) // 2)
    assert 0.9 < paired.ci_low < alone.ci_low < paired.ci_high < 1
    halves = mean_share(np.where(nearly == 0, 0.5, 1))
    assert halves.ci_low < halves.estimate < halves.ci_high == 1
    assert mean_share([1.0, np.nan]).n_dropped == 1


def test_expected_worst_by_hand() -> None:
    found = expected_worst([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, np.nan, 0]], 2)
    # Two of three, one wrong: two of the three pairs contain it.
    assert_allclose(found, [2 / 3, 1, 0, 1])
    assert np.isnan(expected_worst([[1, np.nan, 0]], 3)[0])


def test_worst_case_tells_fragile_prompts_from_independent_breaks() -> None:
    rng = np.random.default_rng(2)
    clean = np.ones(400)
    independent = (rng.random((400, 5)) > 0.1).astype(float)
    fragile = np.repeat((rng.random((400, 1)) > 0.1).astype(float), 5, axis=1)
    free = worst_case(clean, independent, seed=0, n_resamples=999)
    same = worst_case(clean, fragile, seed=0, n_resamples=999)
    assert_allclose(free.independent.estimate, 1 - 0.9**5, atol=0.05)
    assert free.excess.ci_low < 0 < free.excess.ci_high
    assert same.excess.ci_high < -0.1
    assert_allclose(same.broken.estimate, 1 - fragile[:, 0].mean())
    never = worst_case(clean, np.ones((400, 5)), seed=0, n_resamples=99)
    assert never.broken.estimate == 0
    assert math.isnan(never.excess.ci_low)


DOSES = np.array([0, 0.05, 0.1, 0.2, 0.4])


def _fragile_answers(
    rng: np.random.Generator, n: int, slope: float, doses: np.ndarray = DOSES
) -> np.ndarray:
    ability = rng.normal(1, 2, n)
    chance = 1 / (1 + np.exp(-(ability[:, None] + slope * doses)))
    return (rng.random((n, len(doses))) < chance).astype(float)


def test_conditional_slope_agrees_with_statsmodels() -> None:
    from statsmodels.discrete.conditional_models import ConditionalLogit

    y = _fragile_answers(np.random.default_rng(0), 120, -4)
    groups = np.repeat(np.arange(120), len(DOSES))
    x = np.tile(DOSES, 120)
    found = conditional_logit(y.ravel(), x, groups)
    varied = (y.sum(axis=1) > 0) & (y.sum(axis=1) < len(DOSES))
    assert (found.n_informative, found.n_constant) == (varied.sum(), (~varied).sum())
    keep = np.repeat(varied, len(DOSES))
    model = ConditionalLogit(y.ravel()[keep], x[keep, None], groups=groups[keep])
    fit = model.fit(disp=False, method="newton")
    assert_allclose(found.slope.estimate, fit.params[0], rtol=1e-5)
    half = (found.slope.ci_high - found.slope.ci_low) / 2 / 1.959964
    assert_allclose(half, fit.bse[0], rtol=1e-3)
    # The unit of the dose only rescales the slope.
    scaled = conditional_logit(y.ravel(), 1000 + 7 * x, groups).slope
    assert_allclose(scaled.estimate * 7, found.slope.estimate, rtol=1e-6)


def test_conditional_slope_is_recovered_and_covered() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(150), len(DOSES))
    slopes, covered = [], 0
    for _ in range(300):
        y = _fragile_answers(rng, 150, -4)
        record = conditional_logit(y.ravel(), np.tile(DOSES, 150), groups, clusters=groups).slope
        slopes.append(record.estimate)
        covered += record.ci_low <= -4 <= record.ci_high
    assert abs(np.mean(slopes) + 4) < 0.2
    assert 0.92 <= covered / 300 <= 0.98


def test_separated_doses_are_flagged() -> None:
    y = np.tile([1, 1, 0, 0], 20)
    found = conditional_logit(y, np.tile([0, 1, 2, 3], 20), np.repeat(np.arange(20), 4))
    assert found.separated
    assert SEPARATION in found.slope.flags
    constant = conditional_logit(np.ones(8), np.tile([0, 1], 4), np.repeat(np.arange(4), 2))
    assert NO_VARIATION in constant.slope.flags
    assert constant.n_constant == 4


def test_population_slope_is_attenuated() -> None:
    y = _fragile_answers(np.random.default_rng(4), 400, -4)
    groups = np.repeat(np.arange(400), len(DOSES))
    within = conditional_logit(y.ravel(), np.tile(DOSES, 400), groups).slope
    across = gee_slope(y.ravel(), np.tile(DOSES, 400), groups)
    assert 0.5 < across.estimate / within.estimate < 0.8
    assert across.ci_high < 0
    assert NO_VARIATION in gee_slope(np.ones(10), np.arange(10), np.arange(10)).flags


def test_isotonic_fit_by_hand() -> None:
    # methods.md 4.2
    fit = decreasing_fit([0.80, 0.82, 0.74, 0.76, 0.60], np.ones(5))
    assert_allclose(fit, [0.81, 0.81, 0.75, 0.75, 0.60])
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(50, 6)), rng.uniform(0.5, 2, (50, 6))
    from scipy.optimize import isotonic_regression

    for row, weight, fitted in zip(values, weights, decreasing_fit(values, weights), strict=True):
        assert_allclose(fitted, isotonic_regression(row, weights=weight, increasing=False).x)


def test_dose_of_loss_is_interpolated_and_may_be_out_of_reach() -> None:
    found = dose_of_loss([0, 1, 2, 3], [[0.9, 0.9, 0.8, 0.7], [0.9, 0.89, 0.88, 0.88]], 0.05)
    assert_allclose(found, [1.5, np.inf])
    rng = np.random.default_rng(0)
    flat = (rng.random((200, 3)) < 0.9).astype(float)
    flat[:, 1:] = flat[:, :1]
    curve = dose_curve(flat, [0, 1, 2], drop=0.05, seed=0, n_resamples=199)
    assert ABOVE_LARGEST_DOSE in curve.threshold.flags
    assert not curve.threshold.defined
    with pytest.raises(UserError, match="increasing"):
        dose_curve(flat, [0, 2, 1], drop=0.05, seed=0)


def test_a_dose_at_which_all_are_right_has_no_limits() -> None:
    outcomes = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, np.nan]] * 20)
    clean, edited = dose_curve(outcomes, [0, 1], drop=0.05, seed=0, n_resamples=99).points
    assert (clean.estimate, clean.flags) == (1.0, (DEGENERATE_VARIANCE,))
    assert math.isnan(clean.ci_low)
    assert math.isnan(clean.ci_high)
    assert edited.ci_low < 0.5 < edited.ci_high
    assert (edited.n_units, edited.n_dropped) == (40, 20)


def test_dose_of_loss_is_covered() -> None:
    doses, drop = np.array([0, 1.0, 2.0, 3.0]), 0.05
    truth = 0.9 - 0.06 * doses
    rng = np.random.default_rng(8)
    covered = 0
    for run in range(200):
        y = (rng.random((300, 4)) < truth).astype(float)
        threshold = dose_curve(y, doses, drop=drop, seed=run, n_resamples=199).threshold
        high = math.inf if math.isnan(threshold.ci_high) else threshold.ci_high
        covered += threshold.ci_low <= drop / 0.06 <= high
    assert covered / 200 >= 0.9


def test_page_trend_by_hand_and_against_scipy() -> None:
    from scipy.stats import page_trend_test

    # methods.md 4.2; its p is that of ranks without ties.
    fall = [[0.9, 0.8, 0.85, 0.6], [0.7, 0.7, 0.5, 0.4], [0.95, 0.9, 0.7, 0.75],
            [0.6, 0.5, 0.55, 0.3], [0.8, 0.75, 0.6, 0.5]]  # fmt: skip
    found = page_trend(fall)
    assert found.estimate == 146.5
    assert found.p_value < page_trend_test(-np.array(fall), method="exact").pvalue < 0.001
    untied = np.random.default_rng(0).normal(size=(6, 4)) - np.arange(4)
    theirs = page_trend_test(-untied, method="exact")
    ours = page_trend(untied)
    assert ours.estimate == theirs.statistic
    assert_allclose(ours.p_value, theirs.pvalue, rtol=1e-9)
    many = np.random.default_rng(1).normal(size=(40, 8))
    assert_allclose(
        page_trend(many).p_value, page_trend_test(-many, method="asymptotic").pvalue, atol=0.01
    )


def test_page_trend_keeps_its_size_with_binary_answers() -> None:
    rng = np.random.default_rng(9)
    p_values = [page_trend(rng.random((80, 4)) < 0.8).p_value for _ in range(300)]
    assert np.mean(np.array(p_values) <= 0.05) < 0.085
    assert page_trend(np.ones((10, 4))).p_value == 1


def test_reward_differences_by_hand() -> None:
    from scipy.stats import wilcoxon

    assert_allclose(wilcoxon_p(REWARDS), 0.046875)
    assert_allclose(wilcoxon_p(REWARDS, pratt=False), 0.0390625)
    assert_allclose(hodges_lehmann(REWARDS), -0.2)
    assert_allclose(standardized_mean(REWARDS, hedges=False), -0.8072943, atol=1e-7)
    assert_allclose(rank_biserial(REWARDS), -0.7777778, atol=1e-7)
    assert_allclose(hedges_factor(10), 0.9142857, atol=1e-7)
    many = np.random.default_rng(0).normal(0.1, 1, 500).round(1)
    theirs: Any = wilcoxon(many, zero_method="pratt", correction=False, method="asymptotic")
    assert_allclose(wilcoxon_p(many), theirs[1], rtol=1e-6)
    assert wilcoxon_p([0, 0]) == 1
    assert math.isnan(rank_biserial([0, 0]))


def test_mean_adjusted_for_length() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    longer = rng.integers(-3, 8, 200).astype(float)
    change = -0.2 + 0.1 * longer + rng.normal(0, 0.3, 200)
    clusters = np.arange(200) // 4
    mean, slope = adjusted_mean(change, longer, clusters=clusters)
    fit = sm.OLS(change, sm.add_constant(longer)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    assert_allclose((mean.estimate, slope.estimate), fit.params)
    # statsmodels also multiplies the variance by (n − 1)/(n − 2).
    assert_allclose(mean.half_width, np.diff(fit.conf_int()[0])[0] / 2, rtol=5e-3)
    assert mean.ci_low < -0.2 < mean.ci_high
    assert np.mean(change) > 0
    plain, missing = adjusted_mean(change, np.zeros(200))
    assert_allclose(plain.estimate, change.mean())
    assert NO_VARIATION in missing.flags


def test_random_intercept_agrees_with_paired_means_when_complete() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(0, 2, (80, 1))
    scores = level + rng.normal(0, 0.5, (80, 3)) + np.array([0, -0.5, 0.3])
    names, found = random_intercept(
        scores.ravel(), np.tile(["clean", "a", "b"], 80), np.repeat(np.arange(80), 3),
        baseline="clean",
    )  # fmt: skip
    assert names == ("a", "b")
    paired = (scores[:, 1:] - scores[:, :1]).mean(axis=0)
    assert_allclose([record.estimate for record in found], paired, atol=1e-4)
    assert found[0].ci_high < 0 < found[1].ci_low
