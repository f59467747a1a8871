"""Verdicts by rule: the table of known answers, the tests behind them, and forecasts."""

import math

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.forecasts import forecast_score
from interpflow.stats.verdicts import Directed, Within, judge, verdict, verdict_within


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.12, 0.30, "CONFIRMED"),
        (0.03, 0.30, "DIRECTION_ONLY"),
        (-0.05, 0.08, "NEGLIGIBLE"),
        (-0.30, -0.05, "CONTRADICTED"),
        (-0.10, 0.40, "INCONCLUSIVE"),
        (0.01, 0.09, "NEGLIGIBLE"),
        (math.nan, 0.2, "INVALID"),
        (0.1, 0.2, "CONFIRMED"),
    ],
)
def test_rule(low, high, expected):
    assert verdict(low, high, 0.1) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.05, 0.05, "CONFIRMED"),
        (-0.15, 0.05, "INCONCLUSIVE"),
        (0.11, 0.3, "CONTRADICTED"),
        (-0.3, -0.11, "CONTRADICTED"),
        (-0.3, 0.3, "INCONCLUSIVE"),
        (math.nan, 0.0, "INVALID"),
    ],
)
def test_rule_of_an_interval(low, high, expected):
    assert verdict_within(low, high, -0.1, 0.1) == expected


@pytest.mark.parametrize("sign", [1, -1])
def test_confirmed_is_the_event_that_p_is_small(sign):
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        data = sign * rng.normal(rng.uniform(-0.2, 0.5), 0.4, size=24)
        alpha = float(rng.uniform(0.001, 0.2))
        found = judge(data, Directed(sign, 0.1), alpha)
        low, high = sorted((sign * found.test_low, sign * found.test_high))
        assert found.verdict == verdict(low, high, 0.1)
        assert found.confirmed == (found.estimate.p_value <= alpha)
        seen.add(found.verdict)
    assert seen >= {"CONFIRMED", "DIRECTION_ONLY", "INCONCLUSIVE", "NEGLIGIBLE", "CONTRADICTED"}


def test_confirmed_interval_is_the_event_that_p_is_small():
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(300):
        data = rng.normal(rng.uniform(-0.3, 0.3), 0.1, size=20)
        alpha = float(rng.uniform(0.001, 0.2))
        found = judge(data, Within(-0.1, 0.1), alpha)
        assert found.verdict == verdict_within(found.test_low, found.test_high, -0.1, 0.1)
        assert found.confirmed == (found.estimate.p_value <= alpha)
        seen.add(found.verdict)
    assert seen == {"CONFIRMED", "INCONCLUSIVE", "CONTRADICTED"}


def test_t_value():
    data = np.arange(1.0, 11.0)  # mean 5.5, standard error √(55/6/10)
    found = judge(data, Directed(1, 3.0), 0.05)
    t = (5.5 - 3.0) / math.sqrt(55 / 6 / 10)
    assert found.estimate.p_value == pytest.approx(0.01412, abs=1e-4)
    assert t == pytest.approx(2.6112, abs=1e-4)
    assert found.test_low == pytest.approx(5.5 - 1.833113 * math.sqrt(55 / 6 / 10), abs=1e-5)


@pytest.mark.parametrize(
    ("value", "prediction", "expected"),
    [
        (0.0, Within(-0.02, 0.02), "CONFIRMED"),
        (0.3, Within(-0.02, 0.02), "CONTRADICTED"),
        (0.02, Within(-0.02, 0.02), "INCONCLUSIVE"),
        (0.0, Directed(1, 0.02), "NEGLIGIBLE"),
        (0.0, Directed(-1, 0.02), "NEGLIGIBLE"),
        (0.3, Directed(1, 0.02), "CONFIRMED"),
        (0.3, Directed(-1, 0.02), "CONTRADICTED"),
        (0.02, Directed(1, 0.02), "DIRECTION_ONLY"),
        (0.01, Directed(1, 0.02), "NEGLIGIBLE"),
    ],
)
def test_equal_differences_are_decided_by_the_sign_bound(value, prediction, expected):
    found = judge(np.full(32, value), prediction, 0.001)
    assert found.verdict == expected
    assert found.estimate.p_value == (2.0**-32 if expected == "CONFIRMED" else 1.0)
    assert found.estimate.flags == ("DEGENERATE_VARIANCE",)


def test_equal_differences_of_too_few_units_decide_nothing():
    found = judge(np.zeros(8), Within(-0.02, 0.02), 0.001)
    assert found.estimate.p_value == 2.0**-8
    assert found.verdict == "INCONCLUSIVE"
    assert judge(np.zeros(10), Within(-0.02, 0.02), 0.001).verdict == "CONFIRMED"


def test_invalid():
    assert judge(np.full(20, np.nan), Directed(1, 0.1), 0.05).verdict == "INVALID"
    assert judge(np.arange(7.0), Directed(1, 0.1), 0.05).verdict == "INVALID"
    assert judge(np.arange(20.0), Directed(1, 0.1), 0.05, valid=False).verdict == "INVALID"
    some = judge([np.nan, *range(1, 20)], Directed(1, 0.1), 0.05)
    assert (some.estimate.n_units, some.estimate.n_dropped) == (19, 1)


def test_no_level_confirms_nothing():
    assert judge(np.linspace(5, 6, 20), Directed(1, 0.1), 0.0).verdict == "INCONCLUSIVE"


def test_false_confirmation_rate():
    rng = np.random.default_rng(4)
    data = rng.normal(0.1, 0.5, size=(4000, 32))  # exactly the smallest effect: the null's edge
    hits = sum(judge(row, Directed(1, 0.1), 0.05).confirmed for row in data)
    assert 0.039 <= hits / 4000 <= 0.0618


@pytest.mark.parametrize("effect", [0.0, -1.0, math.nan, math.inf])
def test_a_direction_needs_an_effect_that_matters(effect):
    with pytest.raises(UserError, match="smallest effect"):
        Directed(1, effect)


def test_an_interval_needs_two_bounds():
    with pytest.raises(UserError, match="no interval"):
        Within(0.1, 0.1)
    with pytest.raises(UserError, match="no interval"):
        Within(0.1, math.inf)


def test_brier():
    found = forecast_score([0.9, 0.8, 0.6, 0.3], [1, 1, 0, 0])
    assert found.brier == pytest.approx(0.125)
    assert found.base_rate_brier == pytest.approx(0.25)
    assert found.skill == pytest.approx(0.5)
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.7)) / 4
    assert found.log_score == pytest.approx(expected)
    assert found.base_rate_log_score == pytest.approx(math.log(2))


def test_forecasts_at_the_edge():
    assert math.isnan(forecast_score([], []).brier)
    assert forecast_score([1.0], [False]).log_score == math.inf
    assert math.isnan(forecast_score([0.5, 0.5], [True, True]).skill)
    with pytest.raises(UserError):
        forecast_score([1.2], [True])
    with pytest.raises(UserError):
        forecast_score([0.2, 0.3], [True])
