"""Cross-validated ridge regression with free position intercepts, many targets at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from interpflow.stats.units import group_sums

FloatArray = NDArray[np.float64]

# Penalties per row on standardised features, a decade apart from none to overwhelming.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Spread within positions, relative to the whole spread, that rounding of the sums can produce.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Moments:
    """Sums over some rows from which a ridge with free position intercepts can be solved.

    `gram` [d + t, d + t] of features and targets side by side, `sums` [positions, d + t] and
    `counts` [positions]. Moments of disjoint row sets add.
    """

    gram: FloatArray
    sums: FloatArray
    counts: FloatArray

    def plus(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.sums + other.sums, self.counts + other.counts)

    def means(self) -> FloatArray:
        """Means by position [positions, d + t]; the overall mean where a position has no rows."""
        overall = self.sums.sum(axis=0) / max(self.counts.sum(), 1)
        safe = np.maximum(self.counts, 1)[:, None]
        return np.where(self.counts[:, None] > 0, self.sums / safe, overall)

    def within(self) -> FloatArray:
        """Gram matrix of the residuals from the position means."""
        scaled = self.sums / np.sqrt(np.maximum(self.counts, 1))[:, None]
        return self.gram - scaled.T @ scaled


@dataclass(frozen=True)
class _Fold:
    rows: NDArray[np.intp]
    moments: Moments


def _moments(data: FloatArray, positions: NDArray[np.intp], n_positions: int) -> Moments:
    return Moments(
        gram=data.T @ data,
        sums=group_sums(data, positions, n_positions),
        counts=np.bincount(positions, minlength=n_positions).astype(np.float64),
    )


def _total(folds: Sequence[_Fold]) -> Moments:
    total = folds[0].moments
    for fold in folds[1:]:
        total = total.plus(fold.moments)
    return total


def ridge_solutions(
    train: Moments, penalties: Sequence[float], right_side: FloatArray
) -> FloatArray:
    """(X̃ᵀX̃ + penalty · n · S²)⁻¹ · right side [d, t] for each penalty: [penalties, d, t].

    X̃ are the features' residuals from the position means of the training rows, S their spreads,
    so that the penalty is that of standardised features.
    """
    from scipy.linalg import cho_factor, cho_solve

    n_features = len(right_side)
    within = train.within()
    n_rows = train.counts.sum()
    spread = np.sqrt(np.maximum(np.diag(within)[:n_features], 0.0) / max(n_rows, 1))
    overall = np.sqrt(np.maximum(np.diag(train.gram)[:n_features], 0.0) / max(n_rows, 1))
    # A feature that is constant at every position but for rounding stays out.
    varies = spread > _ROUNDING * overall
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
    gram = within[:n_features, :n_features] * np.outer(inverse, inverse)
    cross = right_side * inverse[:, None]
    result = np.empty((len(penalties), n_features, cross.shape[1]))
    for index, penalty in enumerate(penalties):
        ridge = gram.copy()
        ridge[np.diag_indices(n_features)] += penalty * n_rows
        factor = cho_factor(ridge, lower=True, overwrite_a=True, check_finite=False)
        result[index] = cho_solve(factor, cross, check_finite=False) * inverse[:, None]
    return result


def _weights(train: Moments, n_features: int, penalties: Sequence[float]) -> FloatArray:
    """Ridge weights [penalties, d, targets] on standardised residual features.

    Position intercepts are free: by the theorem of Frisch, Waugh and Lovell features and targets
    are first reduced to their residuals from the position means of the training rows.
    """
    return ridge_solutions(train, penalties, train.within()[:n_features, n_features:])


def residuals(
    data: FloatArray, positions: NDArray[np.intp], train: Moments, n_features: int
) -> tuple[FloatArray, FloatArray]:
    """Features [n, d] and targets [n, t] of rows minus the training means at their positions."""
    centred = data - train.means()[positions]
    return centred[:, :n_features], centred[:, n_features:]


def _inner_losses(
    data: FloatArray,
    positions: NDArray[np.intp],
    folds: Sequence[_Fold],
    n_features: int,
    penalties: Sequence[float],
) -> FloatArray:
    """Squared error [outer folds, penalties, targets] in inner folds, the outer fold left out.

    The inner folds of an outer fold are the other outer folds, so one fit without folds i and j
    serves both as inner fit of i (tested on j) and of j (tested on i).
    """
    n_targets = data.shape[1] - n_features
    losses = np.zeros((len(folds), len(penalties), n_targets))
    for i, j in combinations(range(len(folds)), 2):
        train = _total([fold for k, fold in enumerate(folds) if k not in (i, j)])
        weights = _weights(train, n_features, penalties)
        for outer, tested in ((i, j), (j, i)):
            rows = folds[tested].rows
            x, y = residuals(data[rows], positions[rows], train, n_features)
            for index in range(len(penalties)):
                losses[outer, index] += ((y - x @ weights[index]) ** 2).sum(axis=0)
    return losses


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold squared errors per row and target [n, t], and the penalties [folds, t].

    `position` is the error of the position means alone, `full` of means and features together.
    """

    full: FloatArray
    position: FloatArray
    penalties: FloatArray


@dataclass(frozen=True)
class FoldFit:
    """The fit without one fold: tested `rows`, training moments, `weights` [d, t], `penalties` [t].

    Weights are those of the penalty that did best in inner folds, target by target.
    """

    rows: NDArray[np.intp]
    train: Moments
    weights: FloatArray
    penalties: FloatArray


def nested_fits(
    data: FloatArray,
    positions: NDArray[np.intp],
    fold_of: NDArray[np.intp],
    n_features: int,
    penalties: Sequence[float],
) -> Iterator[FoldFit]:
    """The fits of a nested cross-validation, fold by fold, penalties chosen in inner folds.

    `data` [n, d + t] float64, features then targets; `positions`, `fold_of` codes [n]. One Gram
    matrix per fold is formed; every training set is a sum of them.
    """
    n_positions = int(positions.max()) + 1
    folds = []
    for index in range(int(fold_of.max()) + 1):
        rows = np.flatnonzero(fold_of == index)
        folds.append(_Fold(rows, _moments(data[rows], positions[rows], n_positions)))
    losses = _inner_losses(data, positions, folds, n_features, penalties)
    n_targets = data.shape[1] - n_features
    chosen = np.argmin(losses, axis=1)
    for index, fold in enumerate(folds):
        train = _total([other for k, other in enumerate(folds) if k != index])
        weights = _weights(train, n_features, penalties)
        picked = weights[chosen[index], :, np.arange(n_targets)].T
        yield FoldFit(fold.rows, train, picked, np.asarray(penalties)[chosen[index]])


def out_of_fold(
    data: FloatArray,
    positions: NDArray[np.intp],
    fold_of: NDArray[np.intp],
    n_features: int,
    penalties: Sequence[float],
) -> OutOfFold:
    """Nested cross-validated errors of a ridge with free position intercepts, many targets at once.

    Arguments as in `nested_fits`.
    """
    shape = (len(data), data.shape[1] - n_features)
    full, baseline, chosen = np.empty(shape), np.empty(shape), []
    for fit in nested_fits(data, positions, fold_of, n_features, penalties):
        x, y = residuals(data[fit.rows], positions[fit.rows], fit.train, n_features)
        full[fit.rows] = (y - x @ fit.weights) ** 2
        baseline[fit.rows] = y**2
        chosen.append(fit.penalties)
    return OutOfFold(full, baseline, np.array(chosen))
