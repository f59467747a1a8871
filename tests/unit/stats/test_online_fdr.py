"""Online error control: known answers of the sequences and levels, and rates under simulation."""

import numpy as np
import pytest
from scipy.special import ndtr

from interpflow.errors import UserError
from interpflow.stats.online_fdr import (
    Decision,
    OnlineLevels,
    e_value,
    inverse_square,
    javanmard_montanari,
    online_levels,
    p_level,
    power_law,
)

P_VALUES = (0.0001, 0.3, 0.004, 0.6, 0.0002, 0.02, 0.9, 0.001)


def run(levels: OnlineLevels, p_values):
    decisions, spent = [], []
    for p in p_values:
        spent.append(levels.next_level(decisions))
        decisions.append(Decision(p, p <= spent[-1]))
    return spent, [t for t, decision in enumerate(decisions, 1) if decision.rejected]


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (javanmard_montanari, (0.053517, 0.011638, 0.009912, 0.008244, 0.006989, 0.006046)),
        (power_law, (0.43749, 0.144318, 0.075435, 0.047607, 0.033313, 0.024884)),
    ],
)
def test_sequences(sequence, expected):
    assert sequence(6) == pytest.approx(expected, abs=1e-6)
    assert np.all(np.diff(sequence(500)) <= 0)


def test_sums_of_sequences():
    assert power_law(2_000_000).sum() == pytest.approx(1, abs=1e-3)
    assert inverse_square(200_000).sum() == pytest.approx(1, abs=1e-5)
    assert javanmard_montanari(1_000_000).sum() == pytest.approx(0.52, abs=0.01)


@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        (
            0.005,
            (0.000268, 0.002466, 0.000573, 0.000487, 0.000406, 0.003021, 0.000881, 0.000759),
        ),
        (
            0.025,
            (0.001338, 0.001629, 0.000539, 0.000454, 0.000381, 0.003002, 0.000866, 0.000747),
        ),
    ],
)
def test_lord(initial, expected):
    levels = OnlineLevels("lord", 0.05, initial, tuple(javanmard_montanari(50)))
    spent, rejected = run(levels, P_VALUES)
    assert spent == pytest.approx(expected, abs=1e-6)
    assert rejected == [1, 5]


def test_saffron():
    levels = OnlineLevels("saffron", 0.05, 0.025, tuple(power_law(50)))
    spent, rejected = run(levels, P_VALUES)
    expected = (0.005469, 0.010937, 0.010937, 0.021875, 0.007216, 0.018153, 0.018153, 0.007380)
    assert spent == pytest.approx(expected, abs=1e-6)
    assert rejected == [1, 3, 5, 8]


def test_spending():
    levels = OnlineLevels("spending", 0.05, 0.025, tuple(inverse_square(50)))
    spent, _ = run(levels, (0.5, 0.5, 0.5, 0.5))
    assert spent == pytest.approx((0.030396, 0.007599, 0.003377, 0.001900), abs=1e-6)


def test_e_lond():
    levels = OnlineLevels("e_lond", 0.05, 0.025, tuple(inverse_square(50)))
    decisions, thresholds = [], []
    for e in (10, 200, 3, 400, 150):
        level = levels.next_e_level(decisions)
        thresholds.append(1 / level)
        decisions.append(Decision(0.5, e >= 1 / level))
    assert thresholds == pytest.approx((32.9, 131.6, 148.0, 263.2, 274.2), abs=0.06)
    assert [t for t, decision in enumerate(decisions, 1) if decision.rejected] == [2, 4]


def test_calibrated_p_value_is_rejected_when_its_e_value_is():
    for level in (0.03, 0.001):
        at = p_level(level)
        assert e_value(at) == pytest.approx(1 / level)
    # ∫ ½ p^−½ dp over (0, 1) is 1: an e-value.
    p = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert np.mean(0.5 / np.sqrt(p)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", ["lord", "saffron", "e_lond", "spending"])
def test_horizon(method):
    levels = online_levels(method, 0.05, horizon=16)
    assert sum(levels.gamma) == pytest.approx(1)
    assert levels.next_level([]) > 0
    assert levels.next_level([Decision(1.0, False)] * 16) == 0
    assert levels.next_level([Decision(float("nan"), False)]) > 0


def test_levels_depend_on_the_past_only():
    levels = online_levels("lord", 0.05, horizon=16)
    spent, _ = run(levels, P_VALUES)
    changed, _ = run(levels, (*P_VALUES[:4], 0.9, 0.9, 0.9, 0.9))
    assert spent[:5] == changed[:5]
    assert spent[5] > changed[5]


@pytest.mark.parametrize(
    "arguments", [{"alpha": 0.0}, {"alpha": 1.0}, {"initial": 0.2}, {"horizon": 0}]
)
def test_bad_settings(arguments):
    with pytest.raises(UserError):
        online_levels("lord", **{"alpha": 0.05, "horizon": 10, **arguments})


def test_unknown_method():
    with pytest.raises(UserError, match="no online method"):
        online_levels("bonferroni", 0.05, horizon=10)  # type: ignore[arg-type]


def simulated(method: str, n_runs: int, horizon: int, share: float, seed: int):
    """Mean false discovery proportion and power over runs of one-sided z tests shifted by 3."""
    rng = np.random.default_rng(seed)
    levels = online_levels(method, 0.05, horizon=horizon)  # type: ignore[arg-type]
    wrong, found = [], []
    for _ in range(n_runs):
        true = rng.random(horizon) < share
        p_values = ndtr(-(rng.normal(size=horizon) + 3 * true))
        _, rejected = run(levels, p_values)
        hit = np.zeros(horizon, dtype=bool)
        hit[np.array(rejected, dtype=int) - 1] = True
        wrong.append((hit & ~true).sum() / max(1, hit.sum()))
        if true.any():
            found.append((hit & true).sum() / true.sum())
    return float(np.mean(wrong)), float(np.mean(found) if found else 0.0)


def test_lord_keeps_the_rate_and_finds_the_effects():
    fdr, power = simulated("lord", 400, 100, 0.2, seed=9)
    assert fdr <= 0.065
    assert power >= 0.45


@pytest.mark.parametrize("method", ["lord", "saffron", "e_lond", "spending"])
def test_rate_under_the_global_null(method):
    fdr, _ = simulated(method, 600, 16, 0.0, seed=3)
    assert fdr <= 0.079  # 99.9 % band of 600 runs at 0.05
