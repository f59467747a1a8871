"""Known answers and coverage of intervals for proportions and means."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from interpflow.errors import UserError
from interpflow.stats.bootstrap import bca, bootstrap_t_mean
from interpflow.stats.intervals import (
    mean_interval,
    proportion,
    two_way_mean,
    two_way_variance,
    upper_bound,
    wilson,
)
from interpflow.stats.record import DEGENERATE_VARIANCE, EMPTY_CELL, TOO_FEW_CLUSTERS
from interpflow.stats.units import codes_of, complete_units, mean_covariance

CLUSTERED = [1, 1, 1, 0, 0, 1, 0, 1, 0]
CLUSTERS = ["a", "a", "a", "b", "b", "c", "c", "c", "c"]


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (79, 500, 0.12865, 0.19256),
        (133, 1000, 0.11335, 0.15546),
        (0, 20, 0.0, 0.16113),
        (20, 20, 0.83887, 1.0),
        (32, 50, 0.50141, 0.75861),
    ],
)
def test_wilson_known_answers(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-6)


def test_wilson_without_trials_is_undefined():
    assert all(math.isnan(limit) for limit in wilson(0, 0))
    assert proportion(0, 0).flags == (EMPTY_CELL,)


def test_wilson_agrees_with_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for k, n in [(3, 17), (99, 100), (1, 1000)]:
        assert wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


def _coverage(n, p, interval):
    k = np.arange(n + 1)
    limits = np.array([interval(int(x), n) for x in k])
    covered = (limits[:, 0] <= p) & (p <= limits[:, 1])
    return float(binom.pmf(k, n, p)[covered].sum())


def _wald(k, n):
    half = 1.959964 * math.sqrt(k / n * (1 - k / n) / n)
    return k / n - half, k / n + half


@pytest.mark.parametrize(
    ("n", "p", "expected"),
    [
        (20, 0.1, 0.957),
        (50, 0.05, 0.962),
        (30, 0.1, 0.974),
        (100, 0.158, 0.945),
        (200, 0.5, 0.944),
        (60, 0.95, 0.970),
    ],
)
def test_wilson_coverage_by_enumeration(n, p, expected):
    assert _coverage(n, p, wilson) == pytest.approx(expected, abs=1e-3)


def test_wald_interval_undercovers():
    assert _coverage(20, 0.1, _wald) == pytest.approx(0.876, abs=1e-3)
    assert _coverage(50, 0.05, _wald) == pytest.approx(0.920, abs=1e-3)


def test_clustered_mean_known_answer_is_printed_flagged_without_claim():
    found = mean_interval(CLUSTERED, clusters=CLUSTERS)
    assert found.estimate == pytest.approx(0.555556, abs=1e-6)
    assert (found.ci_low, found.ci_high) == pytest.approx((-0.469, 1.580), abs=1e-3)
    assert found.flags == (TOO_FEW_CLUSTERS,)
    assert math.isnan(found.p_value)
    _, cov = mean_covariance(complete_units(CLUSTERED, clusters=CLUSTERS))
    assert math.sqrt(cov[0, 0]) == pytest.approx(0.2381148, abs=1e-7)
    assert math.sqrt(cov[0, 0] * 2 / 3) == pytest.approx(0.1944199, abs=1e-7)


def test_naive_error_of_clustered_data_is_smaller():
    _, cov = mean_covariance(complete_units(CLUSTERED))
    assert math.sqrt(cov[0, 0]) == pytest.approx(0.1756821, abs=1e-7)


def test_cluster_sandwich_agrees_with_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), rng.integers(2, 9, 12))
    y = rng.normal(size=len(groups)) + rng.normal(size=12)[groups]
    fit = sm.OLS(y, np.ones(len(y))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}, use_t=True
    )
    found = mean_interval(y, clusters=groups)
    low, high = fit.conf_int()[0]
    # statsmodels multiplies by (n − 1)/(n − k), which is 1 for a mean.
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=1e-9)
    assert found.p_value == pytest.approx(fit.pvalues[0], abs=1e-9)


def test_two_way_known_answer():
    y = np.array([[1, 0, 0.5], [0.2, -0.4, 0.1], [0.6, 0.3, 0.9], [0, -0.2, 0.4]])
    rows, columns = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    assert y.mean() == pytest.approx(0.2833333, abs=1e-7)
    assert math.sqrt(two_way_variance(y.ravel(), rows, columns)) == pytest.approx(
        0.1620185, abs=1e-7
    )
    by_prompt = two_way_variance(y.ravel(), rows, np.zeros(12))
    assert by_prompt == pytest.approx(0.0184028, abs=1e-7)
    found = two_way_mean(y.ravel(), rows, columns)
    assert found.n_units == 4
    assert found.n_clusters == 3
    assert TOO_FEW_CLUSTERS in found.flags


def test_two_way_variance_never_falls_below_one_way():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(10, 10))
    rows, columns = np.repeat(np.arange(10), 10), np.tile(np.arange(10), 10)
    residual = y - y.mean()
    by_row = (residual.sum(axis=1) ** 2).sum() / 1e4
    assert two_way_variance(y.ravel(), rows, columns) >= by_row - 1e-15


def test_one_cluster_is_undefined_and_flagged():
    found = mean_interval([1, 0, 1], clusters=["a"] * 3)
    assert found.flags == (TOO_FEW_CLUSTERS,)
    assert math.isnan(found.ci_low)


def test_equal_values_get_wilson_on_clusters():
    found = mean_interval([1] * 30, clusters=np.repeat(np.arange(10), 3), is_proportion=True)
    assert DEGENERATE_VARIANCE in found.flags
    assert (found.ci_low, found.ci_high) == pytest.approx(wilson(10, 10))
    plain = mean_interval([0.3] * 30)
    assert DEGENERATE_VARIANCE in plain.flags
    assert math.isnan(plain.ci_low)
    assert math.isnan(plain.p_value)


def test_dropped_rows_are_counted_and_empty_is_flagged():
    found = mean_interval([1.0, np.nan, 2.0, np.inf, 3.0])
    assert (found.n_units, found.n_dropped, found.estimate) == (3, 2, 2.0)
    assert mean_interval([np.nan]).flags == (EMPTY_CELL,)


def test_misfitting_labels_are_refused():
    with pytest.raises(UserError, match="labels have shape"):
        mean_interval([1.0, 2.0], clusters=["a"])
    with pytest.raises(UserError, match="lengths"):
        complete_units([1.0], [1.0, 2.0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_clusters_of_one_row_change_nothing(values):
    plain = mean_interval(values)
    single = mean_interval(values, clusters=np.arange(len(values)))
    assert single.ci_low == pytest.approx(plain.ci_low, nan_ok=True)
    assert single.n_clusters == len(values)


def _clustered_sample(rng, groups, size, icc, mean):
    weight = (1 - icc) / icc
    rates = rng.beta(mean * weight, (1 - mean) * weight, groups)
    return rng.random((groups, size)) < rates[:, None]


def test_cluster_t_covers_and_the_naive_interval_does_not():
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(20), 8)
    cluster_hits, naive_hits, repeats = 0, 0, 1000
    for _ in range(repeats):
        y = _clustered_sample(rng, 20, 8, 0.3, 0.6).ravel().astype(float)
        found, naive = mean_interval(y, clusters=labels), mean_interval(y)
        cluster_hits += found.ci_low <= 0.6 <= found.ci_high
        naive_hits += naive.ci_low <= 0.6 <= naive.ci_high
    assert 0.925 <= cluster_hits / repeats <= 0.97
    assert naive_hits / repeats < 0.80


def test_bootstrap_t_covers_a_skewed_mean_better_than_percentile():
    rng = np.random.default_rng(5)
    truth, repeats = math.exp(0.5), 300
    t_hits, percentile_hits = 0, 0
    for index in range(repeats):
        x = rng.lognormal(size=20)
        found = bootstrap_t_mean(x, n_resamples=499, seed=index)
        t_hits += found.ci_low <= truth <= found.ci_high
        means = rng.choice(x, (499, 20)).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        percentile_hits += low <= truth <= high
    assert t_hits / repeats >= 0.88
    assert percentile_hits / repeats <= 0.90
    assert t_hits > percentile_hits


def test_bootstrap_t_resamples_clusters_whole():
    rng = np.random.default_rng(2)
    effect = rng.normal(size=30)
    y, labels = np.repeat(effect, 10), np.repeat(np.arange(30), 10)
    clustered = bootstrap_t_mean(y, clusters=labels, n_resamples=999, seed=1)
    naive = bootstrap_t_mean(y, n_resamples=999, seed=1)
    assert clustered.half_width > 2.5 * naive.half_width
    assert clustered.n_clusters == 30


def test_bootstrap_of_constant_data_is_flagged_not_zero_width():
    found = bootstrap_t_mean([2.0] * 25, n_resamples=99, seed=0)
    assert DEGENERATE_VARIANCE in found.flags
    assert math.isnan(found.ci_low)
    constant = bca(np.mean, [2.0] * 25, n_resamples=99, seed=0)
    assert DEGENERATE_VARIANCE in constant.flags


def test_bca_agrees_with_scipy_and_is_reproducible():
    from scipy.stats import bootstrap

    x = np.random.default_rng(3).lognormal(size=40)
    found = bca(np.mean, x, n_resamples=4000, seed=1)
    reference = bootstrap((x,), np.mean, n_resamples=4000, rng=np.random.default_rng(7))
    low, high = reference.confidence_interval
    assert found.ci_low == pytest.approx(low, abs=0.05)
    assert found.ci_high == pytest.approx(high, abs=0.08)
    assert bca(np.mean, x, n_resamples=200, seed=1) == bca(np.mean, x, n_resamples=200, seed=1)


def test_codes_accept_text_and_count_levels():
    codes, n = codes_of(["b", "a", "b"], 3)
    assert codes.tolist() == [1, 0, 1]
    assert n == 2


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_units_of_measurement_do_not_matter(scale):
    x = np.random.default_rng(6).normal(1, 1, 30)
    plain, scaled = mean_interval(x), mean_interval(x * scale)
    assert scaled.ci_low == pytest.approx(plain.ci_low * scale, rel=1e-9)
    assert scaled.p_value == pytest.approx(plain.p_value, rel=1e-6)
    boot = bootstrap_t_mean(x * scale, n_resamples=199, seed=0)
    assert boot.ci_low == pytest.approx(
        bootstrap_t_mean(x, n_resamples=199, seed=0).ci_low * scale, rel=1e-9
    )
    equal = mean_interval(np.full(30, 0.1 * scale))
    assert DEGENERATE_VARIANCE in equal.flags


@pytest.mark.parametrize(
    ("successes", "n", "bound"),
    [(0, 10, 0.2589), (0, 20, 0.1391), (0, 59, 0.0495), (1, 50, 0.0914)],
)
def test_upper_bound_known_answers(successes, n, bound):
    found = upper_bound(successes, n)
    assert (found.estimate, found.ci_low) == (successes / n, 0.0)
    assert found.ci_high == pytest.approx(bound, abs=5e-5)


def test_upper_bound_at_the_ends():
    assert upper_bound(7, 7).ci_high == 1.0
    assert not upper_bound(0, 0).defined
