"""Shift of representations, attention lift, neuron maps and observational mediation."""

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.attention_lift import attention_lift, log_lift_contrast
from interpflow.stats.paired_map import paired_t_map
from interpflow.stats.representation import (
    cka_estimate,
    cosine_distance,
    debiased_cka,
    relative_norm,
)
from interpflow.stats.shift_mediation import shift_mediation

X = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [2, 1]], dtype=float)
Y = np.array([[1, 0.5], [0, 1], [-1, 0], [0.2, -1], [1.5, 1]])


def test_cosine_distance_is_exactly_zero_for_equal_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 37)).astype(np.float32)
    assert np.all(cosine_distance(rows, rows.copy()) == 0)
    assert np.all(relative_norm(rows, rows.copy()) == 0)
    one, two = np.array([[1.0, 0], [2, 0], [1, 0]]), np.array([[0, 3.0], [5, 0], [-1, 0]])
    assert cosine_distance(one, two) == pytest.approx([1, 0, 2])
    assert relative_norm(one, two) == pytest.approx([np.sqrt(10) / 3, 0.6, 2])
    assert np.isnan(cosine_distance([[0.0, 0]], [[1.0, 0]])).all()
    assert np.isnan(relative_norm([[1.0, 0]], [[0.0, 0]])).all()


def test_debiased_cka_known_answer_and_invariance() -> None:
    assert debiased_cka(X, Y) == pytest.approx(0.9813749, abs=1e-7)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert debiased_cka(X, 3 * X @ turn + 7) == pytest.approx(1, abs=1e-12)
    with pytest.raises(UserError):
        debiased_cka(X, Y[:4])
    with pytest.raises(UserError):
        debiased_cka(X[:3], Y[:3])


def test_cka_of_unrelated_features_is_near_zero() -> None:
    rng = np.random.default_rng(1)
    found = [debiased_cka(rng.normal(size=(50, 500)), rng.normal(size=(50, 500))) for _ in range(9)]
    assert abs(np.mean(found)) < 0.03


def test_cka_interval_covers_the_population_value() -> None:
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(6, 6))

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, 6))
        return x, x @ mix * 0.5 + rng.normal(size=(n, 6))

    truth = debiased_cka(*sample(3000))
    hits = 0
    for seed in range(100):
        found = cka_estimate(*sample(80), n_subsamples=100, seed=seed)
        hits += found.ci_low <= truth <= found.ci_high
    assert hits >= 88
    assert cka_estimate(X, Y, seed=0).flags == ("TOO_FEW_CLUSTERS",)


def test_lift_known_answers() -> None:
    lifts = [
        attention_lift(f, size, 1.0, seen)
        for f, size, seen in ((0.18, 3, 20), (0.08, 2, 19), (0.09, 3, 20), (0.075, 2, 19))
    ]
    assert np.array(lifts) == pytest.approx([1.2, 0.76, 0.6, 0.7125])
    assert log_lift_contrast(*lifts) == pytest.approx(0.6286087, abs=1e-7)
    assert np.isnan(attention_lift(0.0, 0, 1.0, 20))
    assert np.isnan(log_lift_contrast(0.0, 1.0, 1.0, 1.0))


def test_constant_attention_has_lift_exactly_one() -> None:
    rng = np.random.default_rng(3)
    for _ in range(500):
        seen = int(rng.integers(2, 400))
        each = np.float64(np.float32(1 / (seen + 1)))
        part = int(rng.integers(1, seen + 1))
        lift = attention_lift(np.full(part, each).sum(), part, np.full(seen, each).sum(), seen)
        assert lift == 1.0


def test_paired_map_agrees_with_single_t_tests_and_finds_the_planted_cell() -> None:
    from scipy import stats

    data = np.random.default_rng(4).normal(size=(40, 300))
    data[:, 17] += 1.5
    data[:, 20] = 0.25
    found = paired_t_map(data)
    reference = np.asarray(stats.ttest_1samp(np.delete(data, 20, axis=1), 0))[1]
    assert np.delete(found.p_value, 20) == pytest.approx(reference)
    assert np.flatnonzero(found.p_adjusted < 0.05).tolist() == [17]
    assert found.degenerate[20]
    assert np.isnan([found.p_value[20], found.ci_low[20]]).all()
    broken = data.copy()
    broken[3, 5] = np.nan
    assert (paired_t_map(broken).n_units, paired_t_map(broken).n_dropped) == (39, 1)


def test_paired_map_is_clustered() -> None:
    data = np.random.default_rng(5).normal(size=(20, 10))
    twice = np.repeat(data, 2, axis=0)
    found = paired_t_map(twice, clusters=np.repeat(np.arange(20), 2))
    assert found.t == pytest.approx(paired_t_map(data).t)
    assert found.n_clusters == 20


def planted(rng: np.random.Generator, b: float, correlation: float = 0.0) -> tuple:
    """a = .5; 200 prompts with a clean row and three perturbed ones."""
    prompts = np.repeat(np.arange(200), 4)
    treated = np.tile([0.0, 1, 1, 1], 200)
    errors = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=800) * 0.5
    shift = 0.5 * treated + errors[:, 0] + rng.normal(size=200)[prompts]
    outcome = -0.2 * treated - b * shift + errors[:, 1] + rng.normal(size=200)[prompts]
    return treated, shift, outcome, prompts


def test_shift_mediation_recovers_the_planted_product() -> None:
    rng = np.random.default_rng(6)
    found = [shift_mediation(*planted(rng, 0.4), n_resamples=199, seed=i) for i in range(30)]
    indirect = [one.indirect for one in found]
    assert np.mean([one.estimate for one in indirect]) == pytest.approx(-0.2, abs=0.01)
    assert sum(one.ci_low <= -0.2 <= one.ci_high for one in indirect) >= 25
    assert np.mean([one.direct.estimate for one in found]) == pytest.approx(-0.2, abs=0.02)
    for one in found:
        assert one.total.estimate == pytest.approx(one.indirect.estimate + one.direct.estimate)


def test_a_common_cause_looks_like_mediation_and_the_sensitivity_says_how_much_it_takes() -> None:
    rng = np.random.default_rng(7)
    found = shift_mediation(*planted(rng, 0.0, correlation=-0.4), n_resamples=199, seed=0)
    assert found.indirect.ci_high < -0.1  # nothing is mediated
    assert found.zero_correlation.estimate == pytest.approx(-0.4, abs=0.07)
    assert "OBSERVATIONAL" in found.indirect.flags
    corrected = shift_mediation(
        *planted(rng, 0.0, correlation=-0.4), correlations=(-0.4,), n_resamples=199, seed=0
    )
    assert corrected.sensitivity[0].estimate == pytest.approx(0, abs=0.06)
