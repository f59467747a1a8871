"""Scores of a ranking: known answers, agreement with scikit-learn, intervals over pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.stats.ranking import auprc, auroc, tpr_at_fpr
from interpflow.stats.record import DEGENERATE_VARIANCE, SINGLE_CLASS
from interpflow.stats.site_ranking import rank_sites, site_scores

# Positives .9 .8 .7 .55 .6, negatives .5 .65 .4 .3 .55: 22.5 of 25 pairs in order.
SCORES = [0.9, 0.8, 0.7, 0.55, 0.6, 0.5, 0.65, 0.4, 0.3, 0.55]
LABELS = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_known_answers():
    assert auroc(SCORES, LABELS).estimate == pytest.approx(0.9)
    # Thresholds .9 .8 .7 | .65 | .6 | .55 (one of each class): precisions 1 1 1, 4/5, 5/7.
    assert auprc(SCORES, LABELS).estimate == pytest.approx((3 + 4 / 5 + 5 / 7) / 5)
    assert tpr_at_fpr(SCORES, LABELS, 0.05).estimate == pytest.approx(3 / 5)
    assert tpr_at_fpr(SCORES, LABELS, 0.2).estimate == pytest.approx(4 / 5)
    assert tpr_at_fpr(SCORES, LABELS, 0.4).estimate == 1.0


def test_order_reversed_and_all_tied():
    assert auroc([3, 2, 1], [1, 0, 0]).estimate == 1.0
    assert auroc([1, 2, 3], [1, 0, 0]).estimate == 0.0
    assert auprc([1, 2, 3], [1, 0, 0]).estimate == pytest.approx(1 / 3)
    tied = [7.0] * 20
    labels = [1] * 3 + [0] * 17
    assert auroc(tied, labels).estimate == 0.5
    assert auprc(tied, labels).estimate == auprc(tied, labels).base_rate == 0.15
    assert tpr_at_fpr(tied, labels).estimate == 0.0


def test_base_rate_and_counts_come_with_the_score():
    found = auprc(SCORES, [1, 0] * 5)
    assert (found.base_rate, found.n_positive, found.n_sites) == (0.5, 5, 10)


def test_one_class_is_undefined_and_flagged():
    for labels in ([0, 0, 0], [1, 1, 1]):
        for measure in (auroc, auprc, tpr_at_fpr):
            found = measure([1.0, 2.0, 3.0], labels)
            assert math.isnan(found.estimate)
            assert not found.defined
            assert found.flags == (SINGLE_CLASS,)


def test_false_positive_rate_is_not_lost_to_rounding():
    # 0.05 · 20 negatives is exactly one: the positive below one negative counts.
    scores = np.r_[10.0, 8.0, 9.0, np.zeros(19)]
    labels = np.r_[1, 1, 0, np.zeros(19)]
    assert tpr_at_fpr(scores, labels, 0.05).estimate == 1.0
    assert tpr_at_fpr(scores, labels, 0.049).estimate == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([2, 5, 1000]))
def test_agreement_with_scikit_learn(seed, n_sites, n_levels):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    rng = np.random.default_rng(seed)
    scores = rng.integers(0, n_levels, n_sites) / 7
    labels = np.r_[True, False, rng.random(n_sites - 2) < 0.3]
    assert auroc(scores, labels).estimate == pytest.approx(roc_auc_score(labels, scores))
    expected = average_precision_score(labels, scores)
    assert auprc(scores, labels).estimate == pytest.approx(expected)
    false_rates, true_rates, _ = roc_curve(labels, scores, drop_intermediate=False)
    best = true_rates[false_rates <= 0.2 + 1e-12].max()
    assert tpr_at_fpr(scores, labels, 0.2).estimate == pytest.approx(best)


def test_infinite_scores_rank_first_and_nan_is_refused():
    assert auroc([math.inf, 5.0, 1.0], [1, 0, 0]).estimate == 1.0
    with pytest.raises(UserError, match="NaN"):
        auroc([math.nan, 1.0], [1, 0])
    with pytest.raises(UserError, match="do not fit"):
        auroc([1.0, 2.0], [1])
    with pytest.raises(UserError, match="0 and 1"):
        auroc([1.0, 2.0], [1, 2])
    with pytest.raises(UserError, match="false-positive rate"):
        tpr_at_fpr([1.0, 2.0], [1, 0], 1.5)


def test_site_scores_are_means_or_t_over_pairs_and_the_largest_place():
    effects = np.zeros((3, 4, 2))
    effects[:, 1, 0] = [1, 2, 3]
    effects[:, 1, 1] = -5
    effects[:, 2, 0] = [1, -1, 0]
    effects[:, 3] = np.nan
    assert site_scores(effects)[:3].tolist() == [0.0, 5.0, 0.0]
    assert math.isnan(site_scores(effects)[3])
    effects[:, 1, 1] = 0
    assert site_scores(effects, score="t")[:3] == pytest.approx([0, 2 / (1 / math.sqrt(3)), 0])
    constant = np.full((3, 1), -4.0)
    assert site_scores(constant, score="t")[0] == math.inf


def test_missing_effects_leave_only_their_cell():
    effects = np.array([[1.0, 4.0], [np.nan, 2.0], [3.0, 0.0]])
    assert site_scores(effects).tolist() == [2.0, 2.0]


def _effects(seed, n_pairs=30, n_sites=40, n_needed=10):
    rng = np.random.default_rng(seed)
    needed = np.arange(n_sites) < n_needed
    mean = np.where(needed, 0.5, 0.1) * np.linspace(0.5, 1.5, n_sites)
    return mean + rng.normal(size=(n_pairs, n_sites)), needed


def test_ranking_of_planted_sites_and_of_effects_that_do_not_act():
    effects, needed = _effects(0)
    effects[:, needed] += 5
    for measure in ("auroc", "auprc"):
        found = rank_sites(effects, needed, measure=measure, seed=0, n_resamples=99)
        assert found.score.estimate == 1.0
        # No draw moves it: a flag in place of an interval of length 0.
        assert DEGENERATE_VARIANCE in found.interval.flags
        assert math.isnan(found.interval.ci_low)
    silent = rank_sites(effects * 0, needed, seed=0, n_resamples=99)
    assert silent.score.estimate == 0.5
    assert (silent.site_scores == 0).all()


def test_interval_holds_the_score_and_t_and_mean_differ_where_noise_does():
    effects, needed = _effects(1)
    loud = np.where(needed, 1.0, 6.0) * effects
    mean = rank_sites(loud, needed, score="mean", seed=0, n_resamples=199)
    t = rank_sites(loud, needed, score="t", seed=0, n_resamples=199)
    assert t.score.estimate > mean.score.estimate + 0.2
    for found in (mean, t):
        assert found.interval.estimate == found.score.estimate
        assert 0 <= found.interval.ci_low < found.score.estimate < found.interval.ci_high <= 1
        assert found.interval.n_units == 30


def test_pairs_of_one_cluster_move_together():
    effects, needed = _effects(2, n_pairs=12)
    copies, labels = np.repeat(effects, 8, axis=0), np.repeat(np.arange(12), 8)
    alone = rank_sites(effects, needed, seed=0, n_resamples=299)
    clustered = rank_sites(copies, needed, clusters=labels, seed=0, n_resamples=299)
    naive = rank_sites(copies, needed, seed=0, n_resamples=299)
    assert clustered.interval.half_width == pytest.approx(alone.interval.half_width, rel=1e-9)
    assert naive.interval.half_width < 0.6 * alone.interval.half_width
    assert (clustered.interval.n_units, clustered.interval.n_clusters) == (96, 12)
    with_t = [
        site_scores(effects, score="t"),
        rank_sites(copies, needed, score="t", clusters=labels, seed=0, n_resamples=9).site_scores,
    ]
    assert with_t[1] == pytest.approx(with_t[0])


def test_interval_covers_the_score_expected_with_as_many_pairs():
    others = [_effects(seed) for seed in range(9000, 11000)]
    expected = np.mean([auroc(site_scores(effects), needed).estimate for effects, needed in others])
    hits, repeats = 0, 1000
    for seed in range(repeats):
        effects, needed = _effects(seed)
        found = rank_sites(effects, needed, seed=seed, n_resamples=79).interval
        hits += found.ci_low <= expected <= found.ci_high
    assert 0.925 <= hits / repeats <= 0.98


def test_wrong_use_is_refused():
    effects, needed = _effects(3)
    with pytest.raises(UserError, match="measure"):
        rank_sites(effects, needed, measure="f1", seed=0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="site score"):
        site_scores(effects, score="z")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="shape"):
        site_scores(effects[0])
    one_class = rank_sites(effects, np.ones(40), seed=0)
    assert one_class.interval.flags == (SINGLE_CLASS,)
