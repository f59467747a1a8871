"""What a cross-validated probe leaves behind: predictions, losses, and what each row's fit did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.ridge import PENALTIES, nested_fits, residuals, ridge_solutions

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class ProbeFits:
    """Out-of-fold results of t targets on the same features and folds.

    `predictions` [n, t] of values, or log-odds [n, t, classes]. `loss` [n, t] of each row when it
    was tested, `base_loss` [n, t] the same for a fit of the intercept alone. `loss_pull` and
    `base_pull` [n, t]: derivative of the summed loss by the weight of the row in the fits it
    trained; with the row's own loss that is the influence of the row on the whole
    cross-validation (infinitesimal jackknife, Jaeckel 1972). `penalties` [folds, t].
    """

    predictions: FloatArray
    loss: FloatArray
    base_loss: FloatArray
    loss_pull: FloatArray
    base_pull: FloatArray
    penalties: FloatArray


def checked_features(features: ArrayLike, n_rows: int) -> FloatArray:
    """Features as float64 [rows, d]. Raises UserError for another shape or values not finite."""
    x = np.asarray(features)
    if x.ndim != 2 or len(x) != n_rows:
        raise UserError(f"features {x.shape} do not fit {n_rows} targets", where="features")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise UserError("features hold values that are not finite", where="features")
    return x


def ridge_fits(
    features: ArrayLike,
    targets: FloatArray,
    fold_of: IntArray,
    penalties: Sequence[float] = PENALTIES,
) -> ProbeFits:
    """Ridge regressions of `targets` [n, t] on `features` [n, d], penalty from inner folds.

    Squared errors; features standardised on the training rows; `fold_of` [n] codes 0…k−1.
    """
    x = checked_features(features, len(targets))
    data = np.concatenate([x, targets], axis=1)
    centre = data.mean(axis=0)
    data = data - centre
    d, together = x.shape[1], np.zeros(len(x), dtype=np.intp)
    found = [np.zeros(targets.shape) for _ in range(5)]
    predictions, loss, base_loss, loss_pull, base_pull = found
    chosen = []
    for fit in nested_fits(data, together, fold_of, d, penalties):
        tested, train = fit.rows, np.flatnonzero(fold_of != fold_of[fit.rows[0]])
        x_test, y_test = residuals(data[tested], together[tested], fit.train, d)
        x_train, y_train = residuals(data[train], together[train], fit.train, d)
        errors = y_test - x_test @ fit.weights
        predictions[tested] = targets[tested] - errors
        loss[tested], base_loss[tested] = errors**2, y_test**2
        # A training row moves the weights along (X̃ᵀX̃ + penalty)⁻¹ x · residual, the intercept
        # along its residual, and the tested loss with them.
        slope, level = -2 * x_test.T @ errors, -2 * errors.sum(axis=0) / len(train)
        steps = np.empty_like(slope)
        for penalty in np.unique(fit.penalties):
            here = fit.penalties == penalty
            steps[:, here] = ridge_solutions(fit.train, (penalty,), slope[:, here])[0]
        left = y_train - x_train @ fit.weights
        loss_pull[train] += (x_train @ steps + level) * left
        base_pull[train] += -2 * y_test.sum(axis=0) / len(train) * y_train
        chosen.append(fit.penalties)
    return ProbeFits(predictions, loss, base_loss, loss_pull, base_pull, np.array(chosen))
