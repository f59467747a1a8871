"""Orders of blocks: known answers, and damage planted to grow with distance or not to."""

import math
from itertools import permutations

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.orders import (
    inversions,
    mallows_mean_distance,
    mallows_order,
    order_facts,
    orders_by_distance,
)
from interpflow.stats.layer_orders import damage_curve, distance_correlation, share_as_mild

DISTANCES = (1, 3, 6, 10, 15, 22, 30)
DAMAGE = (0.05, 0.2, 0.15, 0.8, 1.1, 2.0, 2.4)


@pytest.mark.parametrize(
    ("order", "expected"),
    [((1, 0, 2, 3), 1), ((3, 2, 1, 0), 6), ((11, *range(1, 11), 0), 21), ((0, 1, 2), 0)],
)
def test_inversions(order, expected):
    assert inversions(order) == expected
    assert inversions([order.index(i) for i in range(len(order))]) == expected


def test_facts_of_an_order():
    facts = order_facts(LayerPlan.of((0, 3, 2, 1, 4)), 5)
    assert facts is not None
    assert (facts.distance, facts.displacement) == (3, 2)
    assert not facts.moves_first
    assert not facts.moves_last
    ends = order_facts(LayerPlan.of((4, 1, 2, 3, 0)), 5)
    assert ends is not None
    assert ends.moves_first
    assert ends.moves_last
    assert order_facts(LayerPlan.of((0, 1, 2)), 4) is None
    assert order_facts(LayerPlan.parse("0 1*0.5 2"), 3) is None
    assert order_facts(LayerPlan.parse("0 (1|2)"), 3) is None


@pytest.mark.parametrize(("phi", "mean"), [(0.1, 1.19856), (0.5, 9.25938), (0.9, 27.49413)])
def test_mallows(phi, mean):
    assert mallows_mean_distance(12, phi) == pytest.approx(mean, abs=1e-4)
    rng = np.random.default_rng(1)
    drawn = [inversions(mallows_order(12, phi, rng)) for _ in range(3000)]
    assert np.mean(drawn) == pytest.approx(mean, abs=4 * float(np.std(drawn)) / math.sqrt(3000))


def test_mallows_law_of_three_items():
    rng = np.random.default_rng(2)
    drawn = [mallows_order(3, 0.5, rng) for _ in range(20_000)]
    weights = {order: 0.5 ** inversions(order) for order in permutations(range(3))}
    for order, weight in weights.items():
        assert drawn.count(order) / 20_000 == pytest.approx(
            weight / sum(weights.values()), abs=0.015
        )


def test_mallows_at_the_ends():
    rng = np.random.default_rng(3)
    assert mallows_order(6, 0, rng) == tuple(range(6))
    assert mallows_order(6, 1e12, rng) == tuple(reversed(range(6)))
    with pytest.raises(UserError):
        mallows_order(3, -0.1, rng)


@pytest.mark.parametrize("n", [6, 8, 20])
def test_orders_fill_the_bins(n):
    orders = orders_by_distance(n, 100, np.random.default_rng(4))
    assert len(set(orders)) == len(orders) == 100
    largest = n * (n - 1) // 2
    counts, _ = np.histogram([inversions(order) for order in orders], 8, (0.5, largest + 0.5))
    assert counts.min() >= 3
    assert tuple(range(n)) not in orders


def test_few_orders_are_all_found():
    orders = orders_by_distance(4, 100, np.random.default_rng(5), known=[(1, 0, 2, 3)])
    assert len(orders) == 24 - 2


def test_rank_correlation():
    found = distance_correlation(DISTANCES, DAMAGE, n_resamples=99, seed=1)
    assert found.estimate == pytest.approx(0.9642857, abs=1e-6)
    assert found.p_value == pytest.approx(0.0027778, abs=1e-6)
    assert found.test == "permutation_exact"


def test_damage_that_is_zero_has_no_correlation():
    found = distance_correlation(range(20), np.zeros((20, 5)), n_resamples=99, seed=1)
    assert math.isnan(found.estimate)
    assert found.flags == ("NO_VARIATION",)
    assert found.p_value != found.p_value


def planted(seed: int, slope: float, first: float, n: int = 120):
    rng = np.random.default_rng(seed)
    moved = rng.random(n) < 0.5
    distances = rng.integers(1, 20, n) + 8 * moved
    damage = slope * distances + first * moved + rng.normal(size=n)
    return distances, damage[:, None] + 0.1 * rng.normal(size=(n, 30)), moved


def test_first_block_alone_is_no_effect_of_distance():
    distances, damage, moved = planted(6, slope=0.0, first=8.0)
    plain = distance_correlation(distances, damage, n_permutations=999, n_resamples=199, seed=1)
    given = distance_correlation(
        distances, damage, strata=moved, n_permutations=999, n_resamples=199, seed=1
    )
    assert plain.p_value == pytest.approx(0.001)
    assert given.p_value > 0.05
    assert given.ci_low < 0 < given.ci_high


def test_effect_of_distance_within_strata():
    distances, damage, moved = planted(7, slope=0.2, first=8.0)
    given = distance_correlation(
        distances, damage, strata=moved, n_permutations=999, n_resamples=199, seed=1
    )
    assert given.p_value == pytest.approx(0.001)
    assert 0.5 < given.ci_low < given.estimate < given.ci_high


def test_effect_that_a_covariate_explains():
    rng = np.random.default_rng(8)
    span = rng.normal(size=150)
    distances = span + 0.5 * rng.normal(size=150)
    damage = span + 0.5 * rng.normal(size=150)
    plain = distance_correlation(distances, damage, n_permutations=999, n_resamples=99, seed=1)
    freed = distance_correlation(
        distances, damage, covariates=span, n_permutations=999, n_resamples=99, seed=1
    )
    assert plain.estimate > 0.6
    assert abs(freed.estimate) < 0.25


def test_p_values_are_uniform_under_the_null():
    hits = 0
    for seed in range(300):
        distances, damage, moved = planted(seed, slope=0.0, first=4.0, n=30)
        found = distance_correlation(
            distances, damage, strata=moved, n_permutations=199, n_resamples=1, seed=seed
        )
        hits += found.p_value <= 0.05
    assert 4 <= hits <= 29  # 99.9 % band of 300 draws at 0.05


def test_curve():
    rng = np.random.default_rng(9)
    distances = np.repeat([1, 5, 9, 13], 30)
    truth = np.array([0.1, 0.5, 0.5, 2.0])
    damage = np.repeat(truth, 30)[:, None] + 0.2 * rng.normal(size=(120, 40))
    points = damage_curve(distances, damage, [0, 4, 8, 12, 16, 20], n_resamples=299, seed=1)
    values = [point.estimate for point in points[:4]]
    assert values == sorted(values)
    for point, expected in zip(points, truth, strict=False):
        assert point.ci_low - 0.02 <= expected <= point.ci_high + 0.02
        assert point.n_units == 30
    assert points[4].flags == ("EMPTY_CELL",)


def test_share_as_mild():
    found = share_as_mild(0.5, [0.1, 0.4, 0.5, 1.0, 2.0])
    assert found.estimate == pytest.approx(0.6)
    assert found.p_value == pytest.approx(4 / 6)
    assert share_as_mild(0.0, [1.0] * 99).p_value == pytest.approx(0.01)
    assert share_as_mild(0.0, []).flags == ("EMPTY_CELL",)
