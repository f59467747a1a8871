"""Linear probes: planted signals, families, control tasks, baselines, calibration."""

import math

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.control_tasks import word_type_controls
from interpflow.stats.folds import enough_groups
from interpflow.stats.probe_baselines import (
    MAX_TOKEN_COLUMNS,
    position_features,
    token_bag_features,
    token_features,
)
from interpflow.stats.probes import logistic_probe, ridge_probe
from interpflow.stats.record import NO_VARIATION, SINGLE_CLASS

N_FAMILIES, N_ROWS = 60, 6
FAMILIES = np.repeat(np.arange(N_FAMILIES), N_ROWS)


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_planted_linear_signal_has_the_r2_of_its_closed_form():
    families = np.repeat(np.arange(200), 10)
    features = _normal(2000, 6)
    weights = np.array([1.0, -0.5, 0, 0, 0, 0])
    target = features @ weights + 0.8 * _normal(2000, seed=1)
    truth = 1.25 / (1.25 + 0.64)
    found = ridge_probe(features, target, families, n_resamples=499, seed=0)
    r2 = found.scores["r2"].task
    assert r2.ci_low < truth < r2.ci_high
    assert r2.half_width < 0.05
    assert r2.n_units == 200
    residual = ((target - found.predictions) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert r2.estimate == pytest.approx(1 - residual, abs=1e-3)


def test_score_is_zero_without_signal_and_one_with_the_target_itself():
    target = _normal(len(FAMILIES))
    nothing = ridge_probe(_normal(len(FAMILIES), 10, seed=1), target, FAMILIES, seed=0)
    assert nothing.scores["r2"].task.estimate == pytest.approx(0, abs=0.05)
    assert nothing.scores["r2"].task.ci_low < 0.01
    # A representation that says nothing: the mean of the training rows is all there is.
    constant = ridge_probe(np.ones((len(FAMILIES), 3)), target, FAMILIES, seed=0)
    assert constant.scores["r2"].task.estimate == pytest.approx(0, abs=1e-9)
    exact = ridge_probe(target[:, None], target, FAMILIES, seed=0)
    assert exact.scores["r2"].task.estimate == pytest.approx(1, abs=1e-4)


def test_a_row_is_predicted_by_fits_that_never_saw_its_family():
    features, target = _normal(len(FAMILIES), 8), _normal(len(FAMILIES), seed=1)
    other = target + np.where(FAMILIES == 7, 50.0, 0.0)
    for probe_kind, y, y_other in (
        (ridge_probe, target, other),
        (logistic_probe, target > 0, (target > 0) ^ (FAMILIES == 7)),
    ):
        before = probe_kind(features, y, FAMILIES, penalties=(0.1,), n_resamples=1, seed=0)
        after = probe_kind(features, y_other, FAMILIES, penalties=(0.1,), n_resamples=1, seed=0)
        one = before.predictions if before.log_odds is None else before.log_odds
        two = after.predictions if after.log_odds is None else after.log_odds
        fold = before.fold_of[FAMILIES == 7][0]
        same = before.fold_of == fold
        assert one[same] == pytest.approx(two[same])
        assert np.abs(one[~same] - two[~same]).max() > 1e-3
        assert all(len(set(before.fold_of[f == FAMILIES])) == 1 for f in range(N_FAMILIES))


def test_memorised_families_are_no_signal_unless_folds_split_them():
    value = np.repeat(_normal(N_FAMILIES), N_ROWS)
    identity = np.repeat(_normal(N_FAMILIES, 90, seed=1), N_ROWS, axis=0)
    held = ridge_probe(identity, value, FAMILIES, n_resamples=49, seed=0)
    split = ridge_probe(identity, value, np.arange(len(value)), n_resamples=49, seed=0)
    assert held.scores["r2"].task.estimate < 0.05
    assert split.scores["r2"].task.estimate > 0.9


def _words(seed=0):
    return np.random.default_rng(seed).integers(0, 24, len(FAMILIES))


def test_word_identity_is_not_selective_and_the_value_itself_is():
    words = _words()
    by_word = _normal(24, seed=3)[words]
    controls = word_type_controls(words.tolist(), by_word, seed=0)
    of_words = ridge_probe(np.eye(24)[words], by_word, FAMILIES, controls=controls, seed=0)
    r2 = of_words.scores["r2"]
    assert r2.task.estimate > 0.99
    assert r2.control_scores.min() > 0.99
    assert r2.selectivity.estimate == pytest.approx(0, abs=0.01)
    value = _normal(len(FAMILIES), seed=4)
    controls = word_type_controls(words.tolist(), value, seed=0)
    features = np.column_stack([value + 0.1 * _normal(len(value), seed=5), _normal(len(value), 5)])
    r2 = ridge_probe(features, value, FAMILIES, controls=controls, seed=0).scores["r2"]
    assert r2.selectivity.ci_low > 0.9
    assert r2.selectivity.p_value == pytest.approx(1 / 21)


def test_position_alone_explains_a_value_that_follows_position():
    positions = np.tile(np.arange(N_ROWS), N_FAMILIES)
    value = np.sin(positions) + 0.3 * _normal(len(FAMILIES))
    found = ridge_probe(
        np.column_stack([np.sin(positions), _normal(len(value), seed=2)]),
        value,
        FAMILIES,
        baselines={"position": position_features(positions)},
        seed=0,
    ).scores["r2"]
    assert found.baselines["position"].estimate == pytest.approx(0.84, abs=0.05)
    gain = found.gains["position"]
    assert gain.ci_low < 0.005 < 0.05 + gain.ci_high
    assert abs(gain.estimate) < 0.02
    assert gain.estimate == pytest.approx(
        found.task.estimate - found.baselines["position"].estimate
    )
    # Paired over the same families, the difference is far surer than either score.
    assert gain.half_width < found.task.half_width / 2


def test_selectivity_of_random_features_covers_zero_and_its_rank_is_uniform():
    families = np.repeat(np.arange(40), 4)
    hits, low_ranks, repeats = 0, 0, 400
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        target = rng.normal(size=160)
        controls = word_type_controls(
            rng.integers(0, 20, 160).tolist(), target, n_sets=9, seed=seed
        )
        found = ridge_probe(
            rng.normal(size=(160, 8)),
            target,
            families,
            controls=controls,
            penalties=(1e-2, 1.0),
            n_resamples=99,
            seed=seed,
        ).scores["r2"]
        hits += found.selectivity.ci_low <= 0 <= found.selectivity.ci_high
        low_ranks += found.selectivity.p_value <= 0.2
    # The interval reckons with refitting and so covers more than its 95 % where nothing is to be
    # read; the rank has its level: 99.9 % band of Binomial(400, .2).
    assert hits / repeats >= 0.95
    assert 0.14 <= low_ranks / repeats <= 0.27


def test_interval_covers_the_score_of_a_real_signal():
    families = np.repeat(np.arange(50), 4)
    rng = np.random.default_rng(0)
    estimates, limits = [], []
    for seed in range(300):
        features = rng.normal(size=(200, 5))
        target = 1.5 * features[:, 0] + rng.normal(size=200) + 0.5 * rng.normal(size=50)[families]
        r2 = ridge_probe(features, target, families, n_resamples=99, seed=seed).scores["r2"].task
        estimates.append(r2.estimate)
        limits.append((r2.ci_low, r2.ci_high))
    truth = np.mean(estimates)
    assert 0.90 <= np.mean([low <= truth <= high for low, high in limits]) <= 0.985


def _labelled(strength, n_classes=2, seed=0):
    labels = np.random.default_rng(seed).integers(0, n_classes, len(FAMILIES))
    features = _normal(len(FAMILIES), 6, seed=seed + 1)
    features[:, :n_classes] += strength * np.eye(n_classes)[labels]
    return features, np.array(["cat", "dog", "owl"])[labels]


def test_labels_are_read_and_every_measure_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    features, labels = _labelled(1.0)
    found = logistic_probe(features, labels, FAMILIES, n_resamples=199, seed=0)
    accuracy, auroc = found.scores["accuracy"].task, found.scores["auroc"].task
    assert found.classes == ("cat", "dog")
    assert accuracy.estimate == pytest.approx(np.mean(found.predictions == labels))
    assert found.log_odds is not None
    by_fold = [
        roc_auc_score(labels[found.fold_of == k] == "dog", found.log_odds[found.fold_of == k, 1])
        for k in range(5)
    ]
    assert auroc.estimate == pytest.approx(np.mean(by_fold))
    # Φ(√2/2): the best cut between two normals whose means are √2 apart.
    assert accuracy.ci_low < 0.76 < accuracy.ci_high
    assert auroc.ci_low < 0.841 < auroc.ci_high
    majority = found.scores["accuracy"].baselines["majority"].estimate
    assert majority == pytest.approx(0.5, abs=0.06)
    assert found.scores["explained_deviance"].baselines["majority"].estimate == pytest.approx(0)
    assert found.scores["accuracy"].gains["majority"].ci_low > 0.1


def test_three_labels_have_accuracy_and_no_auroc():
    features, labels = _labelled(3.0, n_classes=3)
    found = logistic_probe(features, labels, FAMILIES, n_resamples=49, seed=0)
    assert sorted(found.scores) == ["accuracy", "explained_deviance"]
    assert found.scores["accuracy"].task.estimate > 0.9
    assert found.log_odds is not None
    assert found.log_odds.shape == (len(FAMILIES), 3)


def test_labels_that_follow_the_word_are_not_selective():
    words = _words()
    features = np.eye(24)[words] + 0.1 * _normal(len(words), 24)
    labels = (np.arange(24) % 2)[words]
    controls = word_type_controls(words.tolist(), labels, n_sets=9, seed=0)
    found = logistic_probe(features, labels, FAMILIES, controls=controls, n_resamples=49, seed=0)
    for measure in ("accuracy", "auroc"):
        assert found.scores[measure].task.estimate > 0.95
        assert found.scores[measure].selectivity.estimate == pytest.approx(0, abs=0.03)


def test_undefined_scores_are_flagged():
    features = _normal(len(FAMILIES), 3)
    constant = ridge_probe(features, np.ones(len(FAMILIES)), FAMILIES, seed=0).scores["r2"]
    assert constant.task.flags == constant.selectivity.flags == (NO_VARIATION,)
    assert math.isnan(constant.task.estimate)
    single = logistic_probe(features, ["x"] * len(FAMILIES), FAMILIES, seed=0)
    for measure in single.scores.values():
        assert measure.task.flags == (SINGLE_CLASS,)
    assert set(single.predictions) == {"x"}
    # A control that does not vary is left out of the mean and counted.
    value = _normal(len(FAMILIES), seed=1)
    controls = np.column_stack([np.zeros(len(value)), _normal(len(value), seed=2)])
    found = ridge_probe(features, value, FAMILIES, controls=controls, seed=0).scores["r2"]
    assert np.isnan(found.control_scores).tolist() == [True, False]
    assert found.selectivity.n_dropped == 1


def test_wrong_use_is_refused():
    features, value = _normal(len(FAMILIES), 3), _normal(len(FAMILIES), seed=1)
    with pytest.raises(UserError, match="too few for a probe in 5 folds") as error:
        ridge_probe(features, value, FAMILIES % 9, seed=0)
    assert "at least 10 families" in str(error.value)
    assert not enough_groups(FAMILIES % 9)
    assert enough_groups(FAMILIES % 10)
    with pytest.raises(UserError, match="do not fit"):
        ridge_probe(features[:-1], value, FAMILIES, seed=0)
    with pytest.raises(UserError, match="not finite"):
        ridge_probe(features, np.where(FAMILIES == 3, np.nan, value), FAMILIES, seed=0)
    with pytest.raises(UserError, match="not finite"):
        logistic_probe(
            np.where(FAMILIES[:, None] == 3, np.inf, features), value > 0, FAMILIES, seed=0
        )
    with pytest.raises(UserError, match="'rare' occurs in 1 families"):
        logistic_probe(features, np.where(FAMILIES == 3, "rare", "common"), FAMILIES, seed=0)
    with pytest.raises(UserError, match="control labels"):
        logistic_probe(features, value > 0, FAMILIES, controls=np.full((360, 1), 7), seed=0)
    with pytest.raises(UserError, match="controls"):
        ridge_probe(features, value, FAMILIES, controls=value, seed=0)


def test_controls_give_a_word_one_value_and_keep_the_shares_of_the_target():
    words = [str(word) for word in _words()]
    labels = np.random.default_rng(1).random(len(words)) < 0.25
    controls = word_type_controls(words, labels, n_sets=30, seed=0)
    for word in set(words):
        here = controls[np.array(words) == word]
        assert (here == here[0]).all()
    assert controls.mean(axis=0) == pytest.approx(np.full(30, labels.mean()), abs=0.06)
    assert len({tuple(column) for column in controls.T.tolist()}) == 30
    assert (controls == word_type_controls(words, labels, n_sets=30, seed=0)).all()
    with pytest.raises(UserError, match="word types"):
        word_type_controls(words[1:], labels, seed=0)


def test_baseline_features():
    assert position_features([3, 1, 3]).tolist() == [[0, 1], [1, 0], [0, 1]]
    many = np.arange(1000)
    spline = position_features(many)
    assert spline.shape[1] < 30
    assert spline.sum(axis=1) == pytest.approx(np.ones(1000))
    smooth = np.sin(many / 150)
    fitted = spline @ np.linalg.lstsq(spline, smooth, rcond=None)[0]
    assert fitted == pytest.approx(smooth, abs=1e-2)
    assert token_features([5, 9, 5]).tolist() == [[1, 0], [0, 1], [1, 0]]
    assert token_features(list(range(2000))).shape == (2000, MAX_TOKEN_COLUMNS + 1)
    bags = token_bag_features([5, 9, 5, 9], ["b", "b", "b", "a"], [1, 0, 2, 0])
    # The tokens are as frequent: 5 comes first.
    assert bags.tolist() == [[1, 1], [0, 1], [2, 1], [0, 1]]
    with pytest.raises(UserError, match="differ"):
        token_bag_features([1], ["a", "b"], [0])
