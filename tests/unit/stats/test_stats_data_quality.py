"""Flatness, association, duplicates and lexical diversity."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.stats.association import categorical_association, cramers_v, eta_squared
from interpflow.stats.diversity import (
    distinct_n,
    diversity,
    diversity_difference,
    entropy_bits,
    mtld,
)
from interpflow.stats.duplicates import (
    banding_threshold,
    candidate_probability,
    find_duplicates,
    jaccard,
    minhash_error,
    shingles,
)
from interpflow.stats.flatness import flatness
from interpflow.stats.record import EMPTY_CELL, EMPTY_SET, NO_FACTOR, NO_VARIATION


def test_flatness_known_answer():
    found = flatness((10, 12, 9, 11, 8), seed=0)
    assert found.chi2.estimate == pytest.approx(1.0)
    assert found.chi2.p_value == pytest.approx(0.9097960, abs=1e-7)
    assert found.effect_size == pytest.approx(0.1414214, abs=1e-7)
    assert found.tv.estimate == pytest.approx(0.06)


@pytest.mark.parametrize(("n", "p"), [(50, 0.910), (500, 0.0404), (5000, 9.8e-21)])
def test_p_measures_n_and_effect_size_does_not(n, p):
    found = flatness(np.array([0.24, 0.22, 0.20, 0.18, 0.16]) * n, seed=0)
    assert found.chi2.p_value == pytest.approx(p, rel=1e-2)
    assert found.effect_size == pytest.approx(0.1414214, abs=1e-7)


def test_stratified_design_is_exact_and_passes_at_any_size():
    found = flatness([4] * 16, seed=0)
    assert found.exact
    assert found.passed
    assert found.chi2.estimate == 0
    assert found.chi2.p_value == 1


def test_small_random_designs_cannot_pass_and_lopsided_ones_fail():
    rng = np.random.default_rng(0)
    assert not flatness(rng.multinomial(300, [0.2] * 5), seed=0).passed
    assert not flatness([5000, 2500, 2500], seed=0).passed
    assert flatness([5010, 2500, 2490], expected=[2, 1, 1], seed=0).passed
    assert flatness([0, 0], seed=0).tv.flags == (EMPTY_CELL,)
    with pytest.raises(UserError, match="positive"):
        flatness([1, 2], expected=[1, 0], seed=0)


def test_small_expectations_are_simulated():
    found = flatness([3, 1, 0, 2], n_resamples=999, seed=0)
    assert found.chi2.test == "chi2_monte_carlo"
    assert found.chi2.p_value > 0.2


def test_cramers_v_known_answer():
    table = [[30, 10], [10, 30]]
    assert cramers_v(table, corrected=False) == pytest.approx(0.5)
    assert cramers_v(table) == pytest.approx(0.4902903, abs=1e-7)
    assert cramers_v([[30, 10, 0], [10, 30, 0], [0, 0, 0]]) == pytest.approx(0.4902903, abs=1e-7)
    assert math.isnan(cramers_v([[3, 4]]))


def test_plain_v_is_biased_and_the_corrected_one_is_not():
    rng = np.random.default_rng(1)
    plain, corrected = [], []
    for _ in range(300):
        table = np.zeros((8, 6))
        np.add.at(table, (rng.integers(0, 8, 200), rng.integers(0, 6, 200)), 1)
        plain.append(cramers_v(table, corrected=False))
        corrected.append(cramers_v(table))
    assert np.mean(plain) == pytest.approx(0.186, abs=0.01)
    assert np.mean(corrected) == pytest.approx(0.034, abs=0.012)


def test_association_finds_a_nuisance_and_clears_independence():
    rng = np.random.default_rng(2)
    count = rng.integers(0, 5, 2000)
    clear = categorical_association(count, rng.integers(0, 4, 2000), n_resamples=199, seed=0)
    assert clear.passed
    assert clear.information.p_value > 0.01
    tied = categorical_association(count, count // 2, n_resamples=199, seed=0)
    assert not tied.passed
    assert tied.information.p_value == pytest.approx(1 / 200)
    within = categorical_association(count, count // 2, strata=count, n_resamples=99, seed=0)
    assert within.information.p_value == 1
    constant = categorical_association(count, np.zeros(2000), n_resamples=9, seed=0)
    assert constant.information.flags == (NO_VARIATION,)


def test_eta_squared():
    groups = np.repeat([0, 1], 50)
    rng = np.random.default_rng(3)
    apart = eta_squared(groups * 2 + rng.normal(size=100), groups, n_resamples=199, seed=0)
    assert apart.estimate == pytest.approx(0.5, abs=0.15)
    assert apart.p_value == pytest.approx(1 / 200)
    same = eta_squared(rng.normal(size=100), groups, n_resamples=199, seed=0)
    assert same.p_value > 0.01
    assert eta_squared([1, 1], [0, 1], seed=0).flags == (NO_VARIATION,)
    assert eta_squared([0, 0, 2, 2], [0, 0, 1, 1], n_resamples=9, seed=0).estimate == 1


def test_jaccard_known_answers():
    assert jaccard("abcd", "bcde") == pytest.approx(0.6)
    assert jaccard([], []) == 1
    assert minhash_error(0.6, 128) == pytest.approx(0.0433013, abs=1e-7)
    assert minhash_error(0.6) == pytest.approx(0.0306186, abs=1e-7)
    assert banding_threshold(20, 5) == pytest.approx(0.5492803, abs=1e-7)
    found = [candidate_probability(s, 20, 5) for s in (0.3, 0.5, 0.8)]
    assert found == pytest.approx((0.04749, 0.47005, 0.99964), abs=1e-5)


def _random_lists(seed, n):
    rng = np.random.default_rng(seed)
    lists = [frozenset(rng.choice(60, 10, replace=False).tolist()) for _ in range(n)]
    for copy in range(0, n, 10):
        lists[copy + 1] = frozenset([*sorted(lists[copy])[1:], 99])
    return lists


def test_inverted_index_equals_comparing_all_pairs():
    lists = _random_lists(0, 120)
    found = find_duplicates(lists, threshold=0.5)
    expected = [
        (i, j)
        for i in range(len(lists))
        for j in range(i + 1, len(lists))
        if jaccard(lists[i], lists[j]) >= 0.5
    ]
    assert [(i, j) for i, j, _ in found.pairs] == expected
    assert found.exact


def test_minhash_finds_the_same_duplicates():
    lists = _random_lists(1, 200)
    exact = find_duplicates(lists, threshold=0.8)
    sketched = find_duplicates(lists, threshold=0.8, max_exact=10)
    assert not sketched.exact
    assert set(sketched.pairs) <= set(exact.pairs)
    assert len(sketched.pairs) >= 0.9 * len(exact.pairs) > 0


def test_components_are_transitive_and_empty_sets_are_equal():
    items = [set("abcdefghij"), set("abcdefghik"), set("abcdefghlk"), set("xyz"), set(), set()]
    found = find_duplicates(items, threshold=0.8)
    assert found.component.tolist() == [0, 0, 0, 3, 4, 4]
    assert found.largest_component == 3
    assert found.share_in_duplicates == pytest.approx(5 / 6)
    assert found.n_components == 3
    assert found.n_empty == 2
    with pytest.raises(UserError, match="threshold"):
        find_duplicates(items, threshold=0)


def test_shingles_keep_order():
    first, second = ["a", "b", "c", "d", "e", "f"], ["f", "e", "d", "c", "b", "a"]
    assert jaccard(first, second) == 1
    assert jaccard(shingles(first), shingles(second)) == 0
    assert shingles(["a"]) == frozenset([("a",)])
    assert shingles([]) == frozenset()


SENTENCE = ["the", "cat", "sat", "on", "the", "mat", "the", "cat", "ran"]


def test_diversity_known_answers():
    found = diversity(SENTENCE)
    assert found.distinct_1 == pytest.approx(6 / 9)
    assert found.distinct_2 == pytest.approx(0.875)
    assert found.entropy_bits == pytest.approx(2.4193819, abs=1e-7)
    assert found.entropy_normalized == pytest.approx(0.9359447, abs=1e-7)
    assert found.mtld == pytest.approx(9.0)
    assert found.perplexity == pytest.approx(2**2.4193819, rel=1e-6)
    assert found.entropy_corrected_bits > found.entropy_bits


def test_mtld_known_answers():
    assert mtld(["a"] * 10) == pytest.approx(2.0)
    assert mtld(["a", "b"] * 10) == pytest.approx(3.3333333, abs=1e-7)
    seven = list("abcdefg")
    assert math.isinf(mtld(seven))
    assert diversity(seven).flags == (NO_FACTOR,)
    assert math.isnan(mtld([]))
    assert diversity([]).flags == (EMPTY_SET,)


def test_type_token_ratio_falls_with_length():
    rng = np.random.default_rng(4)
    words = [str(word) for word in rng.integers(0, 50, 400)]
    assert distinct_n(words[:200], 1) == pytest.approx(0.245, abs=0.01)
    assert distinct_n(words, 1) == pytest.approx(0.125, abs=0.005)
    assert diversity(words, n_tokens=200).n_tokens == 200


def test_corpora_are_compared_at_equal_size():
    rng = np.random.default_rng(5)

    def corpus(vocabulary, documents):
        return [[str(w) for w in rng.integers(0, vocabulary, 20)] for _ in range(documents)]

    same = diversity_difference(corpus(200, 100), corpus(200, 30), n_resamples=199, seed=0)
    assert same.ci_low < 0 < same.ci_high
    richer = diversity_difference(corpus(2000, 40), corpus(50, 40), n_resamples=199, seed=0)
    assert richer.ci_low > 0
    assert diversity_difference([[]], [["a"]], seed=0).flags == (EMPTY_SET,)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60))
def test_entropy_lies_between_zero_and_its_maximum(tokens):
    assert -1e-12 <= entropy_bits(tokens) <= math.log2(len(set(tokens))) + 1e-12
    assert mtld(tokens) > 0
