"""Max-T over a map: known answer, family-wise error, power, simultaneous coverage."""

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.maxt import max_t
from interpflow.stats.record import DEGENERATE_VARIANCE, EMPTY_CELL

X = np.array(
    [
        [1.2, 0.3, -0.1],
        [0.8, -0.2, 0.2],
        [1.5, 0.4, 0.1],
        [0.9, 0.1, -0.3],
        [1.1, -0.1, 0.4],
        [1.3, 0.2, -0.2],
    ]
)


def _autoregressive(rng, n, cells, rho):
    noise = rng.normal(size=(n, cells))
    for j in range(1, cells):
        noise[:, j] = rho * noise[:, j - 1] + np.sqrt(1 - rho**2) * noise[:, j]
    return noise


def test_known_answer_over_all_flips():
    found = max_t(X, seed=0)
    assert found.exact
    assert found.n_resamples == 64
    assert found.t == pytest.approx((10.75174, 1.233588, 0.154672), abs=1e-5)
    assert found.p_raw == pytest.approx((0.03125, 0.34375, 1))
    assert found.p_single_step == pytest.approx((0.03125, 0.65625, 1))
    assert found.p_step_down == pytest.approx((0.03125, 0.5625, 1))


def test_drawn_flips_approach_the_exact_answer_and_are_reproducible():
    rng = np.random.default_rng(0)
    x = rng.normal(0.25, 1, (14, 5))
    exact = max_t(x, seed=0)
    assert exact.exact
    grown = np.vstack([x, np.full((1, 5), np.nan)])
    drawn = max_t(grown, n_resamples=4999, seed=1)
    assert not drawn.exact
    assert drawn.p_step_down == pytest.approx(exact.p_step_down, abs=0.03)
    assert drawn.p_raw == pytest.approx(exact.p_raw, abs=0.03)
    again = max_t(grown, n_resamples=4999, seed=1)
    assert np.array_equal(again.p_step_down, drawn.p_step_down)
    assert again.critical == drawn.critical


def test_adjusted_p_are_ordered():
    x = np.random.default_rng(3).normal(0.2, 1, (40, 30))
    found = max_t(x, n_resamples=499, seed=0)
    assert np.all(found.p_raw <= found.p_step_down + 1e-12)
    assert np.all(found.p_step_down <= found.p_single_step + 1e-12)
    order = np.argsort(-found.t)
    assert np.all(np.diff(found.p_step_down[order]) >= 0)


def test_flipping_by_cluster_uses_the_cluster_t():
    rng = np.random.default_rng(1)
    effect = rng.normal(0.4, 1, (20, 3))
    clustered = max_t(
        np.repeat(effect, 5, axis=0), clusters=np.repeat(np.arange(20), 5), n_resamples=999, seed=0
    )
    plain = max_t(effect, n_resamples=999, seed=0)
    assert clustered.t == pytest.approx(plain.t)
    assert clustered.p_step_down == pytest.approx(plain.p_step_down)
    assert clustered.ci_low == pytest.approx(plain.ci_low)
    assert clustered.simultaneous_high == pytest.approx(plain.simultaneous_high)
    assert clustered.n_clusters == 20
    naive = max_t(np.repeat(effect, 5, axis=0), n_resamples=999, seed=0)
    assert np.all(naive.t > 2 * clustered.t)


def test_uneven_clusters_match_a_direct_computation():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(9), rng.integers(1, 6, 9))
    x = rng.normal(0.3, 1, (len(labels), 2))
    found = max_t(x, clusters=labels, seed=0)
    total, n = np.array([x[labels == g].sum(0) for g in range(9)]), len(labels)
    sizes = np.bincount(labels)[:, None]
    best = np.zeros(2**9)
    raw = np.zeros(2)
    for code in range(2**9):
        signs = 1 - 2 * ((code >> np.arange(9)) & 1)[:, None]
        mean = (signs * total).sum(0) / n
        error = np.sqrt(((signs * total - sizes * mean) ** 2).sum(0) * 9 / 8) / n
        t = np.abs(mean / error)
        raw += t >= found.t - 1e-10
        best[code] = t.max()
    assert found.p_raw == pytest.approx(raw / 512)
    expected = [(best >= t - 1e-10).mean() for t in found.t]
    assert found.p_single_step == pytest.approx(expected)


def test_constant_and_empty_cells_are_flagged():
    x = np.column_stack([X[:, 0], np.full(6, 0.5), np.zeros(6), np.full(6, np.nan)])
    found = max_t(x, seed=0)
    assert found.degenerate.tolist() == [False, True, True, True]
    assert found.t[1:].tolist() == [0, 0, 0]
    assert found.p_step_down[1] == 1
    assert found.p_step_down[0] == pytest.approx(0.03125)
    assert np.isnan(found.ci_low[1])
    assert np.isnan(found.p_raw[3])
    assert found.estimate(1, "x").flags == (DEGENERATE_VARIANCE,)
    assert found.estimate(3, "x").flags == (EMPTY_CELL,)
    assert found.estimate(0, "x", family="map").p_adjusted == pytest.approx(0.03125)


def test_misfitting_values_are_refused():
    with pytest.raises(UserError, match="units, cells"):
        max_t([1.0, 2.0], seed=0)
    with pytest.raises(UserError, match="two units"):
        max_t([[1.0, 2.0]], seed=0)


def test_family_wise_error_is_held_and_unadjusted_p_fail():
    rng = np.random.default_rng(8)
    repeats, adjusted, unadjusted = 300, 0, 0
    for index in range(repeats):
        found = max_t(_autoregressive(rng, 24, 60, 0.7), n_resamples=199, seed=index)
        adjusted += found.p_step_down.min() <= 0.05
        unadjusted += found.p_raw.min() <= 0.05
    assert adjusted / repeats <= 0.095
    assert unadjusted / repeats > 0.6


def test_planted_cells_are_found():
    rng = np.random.default_rng(9)
    x = _autoregressive(rng, 60, 100, 0.8)
    x[:, :5] += 1.0
    found = max_t(x, n_resamples=499, seed=0)
    assert np.all(found.p_step_down[:5] <= 0.05)
    assert np.mean(found.p_step_down[5:] <= 0.05) <= 0.02


def test_simultaneous_intervals_cover_all_cells_together():
    rng = np.random.default_rng(10)
    truth = np.linspace(-1, 1, 60)
    together, pointwise, repeats = 0, 0, 300
    for index in range(repeats):
        x = truth + _autoregressive(rng, 30, 60, 0.7)
        found = max_t(x, n_resamples=199, seed=index)
        together += np.all((found.simultaneous_low <= truth) & (truth <= found.simultaneous_high))
        pointwise += np.all((found.ci_low <= truth) & (truth <= found.ci_high))
    assert 0.90 <= together / repeats <= 0.985
    assert pointwise / repeats < 0.6


def test_skewed_effects_need_the_placebo_contrast():
    rng = np.random.default_rng(12)
    raw, contrast, repeats = 0, 0, 300
    for index in range(repeats):
        real, placebo = rng.exponential(size=(2, 30, 100)) - 1
        raw += max_t(real, n_resamples=199, seed=index).p_step_down.min() <= 0.05
        contrast += max_t(real - placebo, n_resamples=199, seed=index).p_step_down.min() <= 0.05
    assert contrast / repeats <= 0.095
    assert raw > contrast


def test_the_best_cell_must_be_estimated_on_other_data():
    rng = np.random.default_rng(13)
    chosen, fresh = [], []
    for _ in range(60):
        discover, confirm = rng.normal(size=(2, 50, 1000))
        means = discover.mean(axis=0)
        best = int(np.argmax(means))
        chosen.append(means[best])
        fresh.append(confirm[:, best].mean())
    assert np.mean(chosen) == pytest.approx(0.458, abs=0.02)
    assert np.mean(fresh) == pytest.approx(0, abs=0.06)
