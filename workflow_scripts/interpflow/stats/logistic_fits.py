"""Cross-validated logistic probes: one fit per class against the rest, penalty from inner folds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from interpflow.stats.logistic import (
    LOGISTIC_PENALTIES,
    LogisticFit,
    Standardised,
    intercept_log_odds,
    logistic_path,
)
from interpflow.stats.probe_fits import FloatArray, IntArray, ProbeFits, checked_features


def logistic_fits(
    features: ArrayLike,
    labels: NDArray[np.intp],
    n_classes: int,
    fold_of: IntArray,
    penalties: Sequence[float] = LOGISTIC_PENALTIES,
) -> ProbeFits:
    """Logistic regressions of `labels` [n, t] (codes 0…c−1) on `features` [n, d].

    Two classes are one regression, more are one per class against the rest, with one penalty.
    Loss: log loss in nats, summed over the regressions of a target. Predictions: log-odds
    [n, t, classes], for two classes −z and z.
    """
    x = checked_features(features, len(labels))
    n, n_targets = labels.shape
    positives = np.arange(1, 2) if n_classes == 2 else np.arange(n_classes)
    ones = (labels[:, :, None] == positives).astype(np.float64)
    flat = ones.reshape(n, -1)
    n_folds = int(fold_of.max()) + 1
    path = sorted(penalties, reverse=True)
    best = _chosen(x, flat, fold_of, n_folds, path, n_targets)
    shape = (n, n_targets, len(positives))
    log_odds, base_odds = np.zeros(shape), np.zeros(shape)
    loss_pull, base_pull = np.zeros(shape), np.zeros(shape)
    for fold in range(n_folds):
        tested, train = fold_of == fold, fold_of != fold
        fits = list(logistic_path(x[train], flat[train], path))
        fit = _combined(fits, np.repeat(best[fold], len(positives)))
        log_odds[tested] = fit.log_odds(x[tested]).reshape(-1, *shape[1:])
        base = intercept_log_odds(flat[train])
        base_odds[tested] = base.reshape(shape[1:])
        kept = np.repeat(np.array(path)[best[fold]], len(positives))
        pulls = _pulls(x, flat, fit, base, kept, tested, len(positives))
        loss_pull[train] = loss_pull[train] + pulls[0].reshape(-1, *shape[1:])
        base_pull[train] = base_pull[train] + pulls[1].reshape(-1, *shape[1:])
    both = np.concatenate([-log_odds, log_odds], axis=2) if n_classes == 2 else log_odds
    return ProbeFits(
        predictions=both,
        loss=_log_loss(log_odds, ones).sum(axis=2),
        base_loss=_log_loss(base_odds, ones).sum(axis=2),
        loss_pull=loss_pull.sum(axis=2),
        base_pull=base_pull.sum(axis=2),
        penalties=np.array(path)[best],
    )


def _log_loss(log_odds: FloatArray, ones: FloatArray) -> FloatArray:
    return np.logaddexp(0.0, log_odds) - ones * log_odds


def _combined(fits: Sequence[LogisticFit], index: IntArray) -> LogisticFit:
    """Column by column the fit of that column's penalty; `index` [columns] into `fits`."""
    columns = np.arange(len(index))
    return LogisticFit(
        np.stack([fit.weights for fit in fits])[index, :, columns].T,
        np.stack([fit.intercepts for fit in fits])[index, columns],
    )


def _chosen(
    x: FloatArray,
    flat: FloatArray,
    fold_of: IntArray,
    n_folds: int,
    penalties: Sequence[float],
    n_targets: int,
) -> IntArray:
    """Index of the best penalty [folds, targets] by the log loss in inner folds.

    The inner folds of an outer fold are the other outer folds, so one fit without folds i and j
    serves both as inner fit of i (tested on j) and of j (tested on i).
    """
    losses = np.zeros((n_folds, len(penalties), n_targets))
    for i, j in combinations(range(n_folds), 2):
        train = (fold_of != i) & (fold_of != j)
        for index, fit in enumerate(logistic_path(x[train], flat[train], penalties)):
            for outer, tested in ((i, fold_of == j), (j, fold_of == i)):
                loss = _log_loss(fit.log_odds(x[tested]), flat[tested]).sum(axis=0)
                losses[outer, index] += loss.reshape(n_targets, -1).sum(axis=1)
    return np.argmin(losses, axis=1)


def _pulls(
    x: FloatArray,
    flat: FloatArray,
    fit: LogisticFit,
    base: FloatArray,
    penalties: FloatArray,
    tested: NDArray[np.bool_],
    n_task: int,
) -> tuple[FloatArray, FloatArray]:
    """Derivatives of the tested loss, and of that of the intercept, by the training rows' weights.

    [train rows, columns] each. The first `n_task` columns, the task's, use their Hessian; control
    tasks, which count by their mean, one curvature p(1 − p) per column, the mean over its training
    rows, so that one decomposition of XᵀX serves them all.
    """
    standard = Standardised.of(x[~tested])
    train, n = standard.values, len(standard.values)
    share = expit(fit.log_odds(x[~tested]))
    curvature = np.maximum(share * (1 - share), 1e-9)
    excess = expit(fit.log_odds(x[tested])) - flat[tested]
    slope = np.vstack(
        [((x[tested] - standard.centre) * standard.inverse).T @ excess, excess.sum(axis=0)]
    )
    design = np.column_stack([train, np.ones(n)])
    steps = np.empty_like(slope)
    for column in range(n_task):
        hessian = design.T @ (curvature[:, [column]] * design)
        hessian[np.diag_indices(len(hessian) - 1)] += penalties[column] * n
        steps[:, column] = np.linalg.solve(hessian, slope[:, column])
    if n_task < flat.shape[1]:
        rest = slice(n_task, None)
        mean = curvature[:, rest].mean(axis=0)
        values, vectors = np.linalg.eigh(train.T @ train)
        scale = mean * np.maximum(values, 0.0)[:, None] + penalties[rest] * n
        steps[:-1, rest] = vectors @ ((vectors.T @ slope[:-1, rest]) / scale)
        steps[-1, rest] = slope[-1, rest] / (mean * n)
    loss_pull = (design @ steps) * (flat[~tested] - share)
    alone = expit(base)
    base_level = (alone - flat[tested]).sum(axis=0) / (alone * (1 - alone) * n)
    return loss_pull, base_level * (flat[~tested] - alone)
