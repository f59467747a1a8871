"""Exit depths, and the difference of two groups of prompts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from interpflow.errors import UserError
from interpflow.stats.early_exit import first_match_depth, kl_depth, stable_depth
from interpflow.stats.record import EMPTY_CELL, NO_VARIATION, TOO_FEW_CLUSTERS
from interpflow.stats.unpaired import cluster_means, unpaired_difference

# methods 6.6
ROWS = [(5, 5, 3, 7, 7, 7), (1, 7, 2, 7, 7, 7), (7, 7, 7, 7, 7, 7), (1, 2, 3, 4, 5, 7)]


def test_known_exit_depths() -> None:
    assert first_match_depth(ROWS).tolist() == [3, 1, 0, 5]
    assert stable_depth(ROWS).tolist() == [3, 3, 0, 5]


def test_a_stable_depth_is_never_before_the_first_match() -> None:
    top = np.random.default_rng(0).integers(0, 3, (200, 7))
    first, stable = first_match_depth(top), stable_depth(top)
    assert (first <= stable).all()
    assert (first < stable).any()
    for row, depth in zip(top, stable, strict=True):
        assert (row[depth:] == row[-1]).all()
        assert depth == 0 or row[depth - 1] != row[-1]


def test_depth_of_small_divergence_counts_from_its_last_rise() -> None:
    kl = [(3.0, 0.4, 0.6, 0.2, 0.0), (0.1, 0.1, 0.1, 0.1, 0.0), (9.0, 8.0, 7.0, 6.0, 0.0)]
    assert kl_depth(kl, 0.5).tolist() == [3, 0, 4]
    assert kl_depth([(math.nan, 0.1, 0.0)], 0.5).tolist() == [1]
    assert kl_depth([(1.0, 1.0, 1e-7)], 1e-9).tolist() == [2]
    with pytest.raises(UserError, match=r"\[item, depth\]"):
        stable_depth([1, 2, 3])


def test_two_groups_agree_with_scipy() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(1.0, 1, 20), rng.normal(0.2, 2, 30)
    found = unpaired_difference(one, two, seed=0)
    theirs: Any = ttest_ind(one, two, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.02)
    assert found.n_units == 50


def test_values_of_a_cluster_count_once() -> None:
    values, clusters = [1.0, 3.0, 5.0, 5.0, math.nan], ["a", "a", "b", "b", "c"]
    assert cluster_means(values, clusters).tolist() == [2.0, 5.0]
    rng = np.random.default_rng(2)
    one, two = rng.normal(size=12), rng.normal(size=15)
    once = unpaired_difference(one, two, seed=0)
    often = unpaired_difference(
        np.repeat(one, 4), np.repeat(two, 4), first_clusters=np.repeat(np.arange(12), 4),
        second_clusters=np.repeat(np.arange(15), 4), seed=0,
    )  # fmt: skip
    assert often.p_value == once.p_value
    assert (often.ci_low, often.n_units) == pytest.approx((once.ci_low, 27))


def test_groups_that_say_nothing_are_flagged() -> None:
    assert EMPTY_CELL in unpaired_difference([], [1.0, 2.0], seed=0).flags
    alone = unpaired_difference([1.0], [1.0, 2.0], seed=0)
    assert TOO_FEW_CLUSTERS in alone.flags
    assert math.isnan(alone.p_value)
    assert NO_VARIATION in unpaired_difference([2.0] * 9, [2.0] * 9, seed=0).flags


@pytest.mark.slow
def test_p_values_of_equal_groups_are_uniform() -> None:
    rng = np.random.default_rng(3)
    p = [
        unpaired_difference(
            rng.integers(0, 9, 12), rng.integers(0, 9, 40), n_resamples=499, seed=i
        ).p_value
        for i in range(600)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.025)
