"""Searches for minimal sets: what they find, what they spend, and how they end."""

import itertools

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.minimal_sets import minimal_set


def holding(*needed):
    """Score 1 for sets that hold one of `needed` whole."""
    return lambda sets: [float(any(set(one) <= each for one in needed)) for each in sets]


@pytest.mark.parametrize("needed", [(3,), (0, 7), (1, 2, 6), (0, 2, 4, 6), tuple(range(8)), ()])
def test_the_set_that_is_needed_is_found(needed):
    found = minimal_set(range(8), holding(needed), 0.5, max_tried=200)
    assert found.elements == frozenset(needed)
    assert found.holds
    assert found.is_minimal
    assert found.score == 1


def test_every_set_found_is_minimal():
    rng = np.random.default_rng(1)
    for _ in range(40):
        needed = [tuple(rng.choice(10, rng.integers(1, 6), replace=False)) for _ in range(3)]
        score = holding(*needed)
        found = minimal_set(range(10), score, 0.5, max_tried=500)
        assert score([found.elements]) == [1]
        assert not any(score([found.elements - {one} for one in found.elements]))
        assert found.is_minimal


def test_no_set_is_tried_twice_and_all_are_counted():
    tried = []

    def score(sets):
        tried.extend(sets)
        return holding((1, 4, 5))(sets)

    found = minimal_set(range(16), score, 0.5, max_tried=500)
    assert len(tried) == len(set(tried)) == found.n_tried
    assert found.n_tried < 60


def test_a_search_ends_at_its_bound():
    tried = []

    def score(sets):
        tried.extend(sets)
        return holding((0, 5, 9, 14))(sets)

    found = minimal_set(range(16), score, 0.5, max_tried=9)
    assert len(tried) == found.n_tried == 9
    assert found.holds
    assert not found.is_minimal
    assert score([found.elements]) == [1]


def test_nothing_reaches_the_threshold():
    found = minimal_set(range(4), lambda sets: [0.2] * len(sets), 0.5, max_tried=50)
    assert not found.holds
    assert not found.is_minimal
    assert found.n_tried == 1
    assert found.score == 0.2


def test_an_undefined_score_does_not_hold():
    found = minimal_set(range(4), lambda sets: [float("nan")] * len(sets), 0.5, max_tried=50)
    assert not found.holds


def test_no_elements():
    found = minimal_set([], lambda sets: [1.0] * len(sets), 0.5, max_tried=5)
    assert found.elements == frozenset()
    assert found.holds


def test_shares_of_accuracy_rather_than_flags():
    weights = dict(zip(range(8), (5, 1, 1, 1, 1, 1, 1, 5), strict=True))

    def score(sets):
        return [sum(weights[one] for one in each) / 16 for each in sets]

    found = minimal_set(range(8), score, 0.6, max_tried=100)
    assert found.score >= 0.6
    best = min(
        size
        for size in range(9)
        for each in itertools.combinations(range(8), size)
        if score([each])[0] >= 0.6
    )
    assert len(found.elements) <= best + 1


def test_a_search_needs_something_to_try():
    with pytest.raises(UserError):
        minimal_set(range(3), holding((1,)), 0.5, max_tried=0)
