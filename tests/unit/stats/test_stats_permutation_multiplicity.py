"""Sign flips, permutation p-values and adjusted p-values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from interpflow.errors import UserError
from interpflow.stats.multiplicity import adjust, bh, by, holm
from interpflow.stats.permutation import permutation_p, sign_flip, smallest_sign_flip_p
from interpflow.stats.record import NO_VARIATION, Estimate

PS = (0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216)


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ((1, 2, 3), 0.25),
        (range(1, 7), 0.03125),
        ((0.3, -0.1, 0.4, 0.2, 0.5, 0.1, 0.6, -0.2), 0.0859375),
    ],
)
def test_exact_sign_flip_known_answers(values, p):
    found = sign_flip(list(values), seed=0)
    assert found.p_value == pytest.approx(p, abs=1e-12)
    assert found.test == "sign_flip_exact"


def test_drawn_sign_flip_never_reaches_zero():
    found = sign_flip(np.arange(1, 31), n_resamples=999, seed=0)
    assert found.p_value == pytest.approx(0.001)
    assert found.n_resamples == 999


def test_floor_of_the_sign_flip_test():
    assert smallest_sign_flip_p(5) == 0.0625
    assert sign_flip([1, 2, 3, 4, 5], seed=0).p_value == 0.0625


def test_one_sided_alternatives_mirror():
    d = [0.5, 0.2, 0.9, -0.1, 0.4, 0.3]
    greater = sign_flip(d, alternative="greater", seed=0).p_value
    less = sign_flip(np.negative(d), alternative="less", seed=0).p_value
    assert greater == less < 0.05


def test_all_zero_differences_give_p_one():
    found = sign_flip([0.0] * 10, seed=0)
    assert found.p_value == 1.0
    assert NO_VARIATION in found.flags


def test_clusters_flip_together():
    effect = np.random.default_rng(0).normal(0.5, 1, 8)
    labels = np.repeat(np.arange(8), 20)
    clustered = sign_flip(np.repeat(effect, 20), clusters=labels, seed=0)
    assert clustered.p_value == sign_flip(effect, seed=0).p_value
    naive = sign_flip(np.repeat(effect, 20), n_resamples=999, seed=0)
    assert naive.p_value < clustered.p_value


def test_permutation_p_counts_ties_and_adds_one():
    assert permutation_p(1.0, [1.0 - 1e-14, 0.0, 0.0]) == pytest.approx(2 / 4)
    assert permutation_p(1.0, [1.0, 0.5, 0.5, 0.5], exact=True) == pytest.approx(1 / 4)


def test_sign_flip_p_is_uniform_under_the_null():
    rng = np.random.default_rng(21)
    b, repeats = 199, 500
    ps = np.array(
        [sign_flip(rng.standard_t(4, 30), n_resamples=b, seed=i).p_value for i in range(repeats)]
    )
    assert 0.022 <= np.mean(ps <= 0.05) <= 0.084
    assert kstest(ps - rng.random(repeats) / (b + 1), "uniform").pvalue > 0.001


def test_adjusted_p_known_answers():
    expected = (0.01, 0.04, 0.084, 0.084, 0.084, 0.1, 0.105714, 0.216, 0.216, 0.216)
    assert bh(PS) == pytest.approx(expected, abs=1e-6)
    assert np.sum(bh(PS) <= 0.05) == 2
    assert np.sum(holm(PS) <= 0.05) == 1
    assert np.sum(by(PS) <= 0.05) == 1
    assert by(PS)[0] == pytest.approx(0.029290, abs=1e-6)


@pytest.mark.parametrize(("rule", "name"), [(holm, "holm"), (bh, "fdr_bh"), (by, "fdr_by")])
@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_agree_with_statsmodels(rule, name, values):
    from statsmodels.stats.multitest import multipletests

    assert rule(values) == pytest.approx(multipletests(values, method=name)[1], abs=1e-12)


@pytest.mark.parametrize("rule", [holm, bh, by])
def test_undefined_p_stays_undefined_and_is_not_counted(rule):
    adjusted = rule([0.01, math.nan, 0.04])
    assert math.isnan(adjusted[1])
    assert adjusted[[0, 2]] == pytest.approx(rule([0.01, 0.04]))
    assert np.isnan(rule([math.nan, math.nan])).all()
    assert rule([[0.01, 0.02], [0.03, 0.04]]).shape == (2, 2)


def test_adjust_fills_family_and_refuses_unknown_methods():
    found = adjust(
        [Estimate(quantity=str(p), estimate=0.0, p_value=p) for p in (0.01, 0.04)], family="f"
    )
    assert [estimate.p_adjusted for estimate in found] == pytest.approx([0.02, 0.04])
    assert found[0].family == "f"
    with pytest.raises(UserError, match="bonferroni"):
        adjust([], method="bonferroni", family="f")  # type: ignore[arg-type]
