"""Logistic regressions of many targets at once, and what a row pulls in a cross-validation."""

from dataclasses import replace

import numpy as np
import pytest

from interpflow.stats.logistic import LOGISTIC_PENALTIES, intercept_log_odds, logistic_path
from interpflow.stats.logistic_fits import logistic_fits
from interpflow.stats.probe_fits import ridge_fits


@pytest.fixture(scope="module")
def data():
    """Features [300, 12] of unequal scale, 0/1 targets [300, 4]: strong, weak, none, rare."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)) @ (np.eye(12) + 0.3 * rng.normal(size=(12, 12)))
    slopes = np.zeros((12, 4))
    slopes[0, 0], slopes[1, 1], slopes[2, 3] = 3.0, 0.5, 1.0
    log_odds = x @ slopes + np.array([0.0, 0.5, 0.0, -2.5])
    y = (rng.random((300, 4)) < 1 / (1 + np.exp(-log_odds))).astype(float)
    return x * np.logspace(-2, 2, 12) + 5, y


def test_agreement_with_scikit_learn(data):
    from sklearn.linear_model import LogisticRegression

    x, y = data
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    for fit, penalty in zip(logistic_path(x, y), LOGISTIC_PENALTIES, strict=True):
        for column in range(4):
            model = LogisticRegression(C=1 / (penalty * 300), tol=1e-9, max_iter=9999)
            expected = model.fit(standard, y[:, column]).decision_function(standard)
            assert fit.log_odds(x)[:, column] == pytest.approx(expected, abs=2e-3)


def test_a_target_with_one_value_keeps_its_intercept(data):
    x, y = data
    y = np.column_stack([y[:, 0], np.zeros(300), np.ones(300)])
    *_, fit = logistic_path(x, y)
    assert (fit.weights[:, 1:] == 0).all()
    assert fit.intercepts[1:] == pytest.approx(np.log([0.5 / 300.5, 300.5 / 0.5]))
    assert intercept_log_odds(np.array([[1.0], [0], [0], [0]])) == pytest.approx(np.log(1 / 3))


def _loss_of_other_folds(fits, x, y, fold_of, row, times):
    """Summed loss of the other folds when `row` is `times` times among their training rows."""
    rows = np.repeat(np.arange(len(y)), np.where(np.arange(len(y)) == row, times, 1))
    found = fits(x[rows], y[rows], fold_of[rows])
    return found.loss[fold_of[rows] != fold_of[row]].sum(axis=0)


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_pull_of_a_row_is_what_its_weight_in_training_changes(kind, data):
    x, y = data[0], data[1][:, :2]
    fold_of = np.arange(len(y)) % 5

    def fits(features, targets, folds):
        if kind == "ridge":
            return ridge_fits(features, targets, folds, (0.1,))
        # Each target as the first one: only the task's Hessian is exact.
        parts = [
            logistic_fits(features, targets[:, [k]].astype(int), 2, folds, (0.1,)) for k in (0, 1)
        ]
        return replace(
            parts[0],
            loss=np.column_stack([part.loss for part in parts]),
            loss_pull=np.column_stack([part.loss_pull for part in parts]),
        )

    pull = fits(x, y, fold_of).loss_pull
    rows = np.arange(0, len(y), 12)
    twice, never = (
        np.array([_loss_of_other_folds(fits, x, y, fold_of, row, times) for row in rows])
        for times in (2, 0)
    )
    for column in range(2):
        found, exact = pull[rows, column], (twice - never)[:, column] / 2
        assert np.corrcoef(found, exact)[0, 1] > 0.93
        assert (found * exact).sum() / (exact**2).sum() == pytest.approx(1.0, abs=0.15)


def test_classes_beyond_two_are_fitted_against_the_rest(data):
    from sklearn.linear_model import LogisticRegression

    x, _ = data
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    features = x[:, :3] * 1e3 + np.eye(3)[labels] * 2e3
    fold_of = np.arange(300) % 5
    found = logistic_fits(features, labels[:, None], 3, fold_of, (0.01,))
    train, tested = fold_of != 0, fold_of == 0
    scaled = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    for k in range(3):
        model = LogisticRegression(C=1 / (0.01 * 240), tol=1e-9, max_iter=9999)
        model.fit(scaled[train], labels[train] == k)
        expected = model.decision_function(scaled[tested])
        assert found.predictions[tested, 0, k] == pytest.approx(expected, abs=2e-3)
