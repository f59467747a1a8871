"""Ridge probe of what a representation holds beyond position, against control tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.ratios import ratio_of_means
from interpflow.stats.record import NO_VARIATION, TOO_FEW_CLUSTERS, Estimate, undefined
from interpflow.stats.units import codes_of, group_sums

FloatArray = NDArray[np.float64]

DEFAULT_FOLDS = 5
# Penalties per row on standardised features, a decade apart from none to overwhelming.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Spread within positions, relative to the whole spread, that rounding of the sums can produce.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class ProbeResult:
    """Out-of-fold partial R² of the task beyond position, and its control tasks.

    `partial_r2` has a Fieller interval over groups; `selectivity` is the task's score minus the
    mean control score with the rank p-value (1 + #controls ≥ task)/(controls + 1). `r2_position`
    is what position alone explains, `r2_full` position and features together.
    `penalties` [folds] are those chosen for the task in inner folds.
    """

    partial_r2: Estimate
    selectivity: Estimate
    control_partial_r2: FloatArray
    r2_position: float
    r2_full: float
    penalties: tuple[float, ...]
    n_rows: int
    n_groups: int
    n_features: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class _Moments:
    """Sums over some rows from which a ridge with free position intercepts can be solved.

    `gram` [d + t, d + t] of features and targets side by side, `sums` [positions, d + t] and
    `counts` [positions]. Moments of disjoint row sets add.
    """

    gram: FloatArray
    sums: FloatArray
    counts: FloatArray

    def plus(self, other: _Moments) -> _Moments:
        return _Moments(self.gram + other.gram, self.sums + other.sums, self.counts + other.counts)

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
    moments: _Moments


def group_folds(groups: ArrayLike, n_folds: int, seed: int) -> NDArray[np.intp]:
    """Fold 0…n_folds−1 of each row; all rows of a group share one, folds balanced in groups.

    Raises UserError with fewer groups than folds.
    """
    labels = np.asarray(groups)
    codes, n_groups = codes_of(labels, len(labels))
    if n_groups < n_folds:
        raise UserError(
            f"{n_groups} groups cannot be split into {n_folds} folds",
            where="groups",
            remedy="use more base lists or fewer folds",
        )
    fold_of_group = np.empty(n_groups, dtype=np.intp)
    order = np.random.default_rng(seed).permutation(n_groups)
    fold_of_group[order] = np.arange(n_groups) % n_folds
    return fold_of_group[codes]


def _moments(data: FloatArray, positions: NDArray[np.intp], n_positions: int) -> _Moments:
    return _Moments(
        gram=data.T @ data,
        sums=group_sums(data, positions, n_positions),
        counts=np.bincount(positions, minlength=n_positions).astype(np.float64),
    )


def _total(folds: Sequence[_Fold]) -> _Moments:
    total = folds[0].moments
    for fold in folds[1:]:
        total = total.plus(fold.moments)
    return total


def _weights(train: _Moments, n_features: int, penalties: Sequence[float]) -> FloatArray:
    """Ridge weights [penalties, d, targets] on standardised residual features.

    Position intercepts are free: by the theorem of Frisch, Waugh and Lovell features and targets
    are first reduced to their residuals from the position means of the training rows.
    """
    from scipy.linalg import cho_factor, cho_solve

    within = train.within()
    n_rows = train.counts.sum()
    spread = np.sqrt(np.maximum(np.diag(within)[:n_features], 0.0) / max(n_rows, 1))
    overall = np.sqrt(np.maximum(np.diag(train.gram)[:n_features], 0.0) / max(n_rows, 1))
    # A feature that is constant at every position but for rounding stays out.
    varies = spread > _ROUNDING * overall
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
    gram = within[:n_features, :n_features] * np.outer(inverse, inverse)
    cross = within[:n_features, n_features:] * inverse[:, None]
    result = np.empty((len(penalties), n_features, cross.shape[1]))
    for index, penalty in enumerate(penalties):
        ridge = gram.copy()
        ridge[np.diag_indices(n_features)] += penalty * n_rows
        factor = cho_factor(ridge, lower=True, overwrite_a=True, check_finite=False)
        result[index] = cho_solve(factor, cross, check_finite=False) * inverse[:, None]
    return result


def _residuals(
    data: FloatArray, positions: NDArray[np.intp], train: _Moments, n_features: int
) -> tuple[FloatArray, FloatArray]:
    """Test features [n, d] and targets [n, t] minus the training means at their positions."""
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
            x, y = _residuals(data[rows], positions[rows], train, n_features)
            for index in range(len(penalties)):
                losses[outer, index] += ((y - x @ weights[index]) ** 2).sum(axis=0)
    return losses


@dataclass(frozen=True)
class _OutOfFold:
    """Out-of-fold squared errors per row and target [n, t], and the penalties [folds, t]."""

    full: FloatArray
    position: FloatArray
    penalties: FloatArray


def _out_of_fold(
    data: FloatArray,
    positions: NDArray[np.intp],
    fold_of: NDArray[np.intp],
    n_features: int,
    penalties: Sequence[float],
) -> _OutOfFold:
    n_positions = int(positions.max()) + 1
    folds = []
    for index in range(int(fold_of.max()) + 1):
        rows = np.flatnonzero(fold_of == index)
        folds.append(_Fold(rows, _moments(data[rows], positions[rows], n_positions)))
    losses = _inner_losses(data, positions, folds, n_features, penalties)
    n_targets = data.shape[1] - n_features
    full, baseline = np.empty((len(data), n_targets)), np.empty((len(data), n_targets))
    chosen = np.argmin(losses, axis=1)
    for index, fold in enumerate(folds):
        train = _total([other for k, other in enumerate(folds) if k != index])
        weights = _weights(train, n_features, penalties)
        picked = weights[chosen[index], :, np.arange(n_targets)].T
        x, y = _residuals(data[fold.rows], positions[fold.rows], train, n_features)
        full[fold.rows] = (y - x @ picked) ** 2
        baseline[fold.rows] = y**2
    return _OutOfFold(full, baseline, np.asarray(penalties)[chosen])


def _probe_data(
    features: ArrayLike, targets: FloatArray, positions: ArrayLike
) -> tuple[FloatArray, NDArray[np.intp]]:
    x = np.asarray(features)
    if x.ndim != 2 or len(x) != len(targets):
        raise UserError(f"features {x.shape} do not fit targets {targets.shape}", where="features")
    if not np.isfinite(x).all():
        raise UserError("features hold values that are not finite", where="features")
    codes, _ = codes_of(positions, len(x))
    # Centring on the grand means first keeps the sums of squares free of cancellation.
    data = np.concatenate([x.astype(np.float64), targets], axis=1)
    return data - data.mean(axis=0), codes


def probe(
    features: ArrayLike,
    target: ArrayLike,
    positions: ArrayLike,
    groups: ArrayLike,
    *,
    controls: ArrayLike | None = None,
    n_folds: int = DEFAULT_FOLDS,
    penalties: Sequence[float] = PENALTIES,
    seed: int,
    quantity: str = "partial R²",
) -> ProbeResult:
    """Linearly decodable information on `target` beyond position, with selectivity.

    `features` [rows, d] float32, `target` [rows], `positions` [rows] (free intercept each),
    `groups` [rows] (base list: never split over folds), `controls` [rows, sets] targets of the
    control tasks. Partial R² = 1 − RSS(position + features)/RSS(position), out of fold; penalty
    chosen in inner folds per target; standardised inside folds. Presence is not use: the causal
    claim needs an intervention. Raises UserError for misfitting shapes or too few groups.
    """
    task = np.asarray(target, dtype=np.float64).reshape(-1, 1)
    extra = np.zeros((len(task), 0)) if controls is None else np.asarray(controls, np.float64)
    targets = np.concatenate([task, extra], axis=1)
    data, codes = _probe_data(features, targets, positions)
    n_features = data.shape[1] - targets.shape[1]
    fold_of = group_folds(groups, n_folds, seed)
    found = _out_of_fold(data, codes, fold_of, n_features, penalties)
    group_codes, n_groups = codes_of(np.asarray(groups), len(data))
    record: dict[str, Any] = {"n_units": n_groups, "n_clusters": None, "seed": seed}
    varied = _varies(targets, codes, fold_of)
    base = found.position.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(varied & (base > 0), 1 - found.full.sum(axis=0) / base, np.nan)
    if math.isnan(scores[0]):
        partial = undefined(quantity, NO_VARIATION, **record)
    else:
        partial = _partial_estimate(found, group_codes, n_groups, quantity, seed)
    centred = ((task - task.mean()) ** 2).sum()
    return ProbeResult(
        partial_r2=partial,
        selectivity=_selectivity(scores[0], scores[1:], record),
        control_partial_r2=scores[1:],
        r2_position=float(1 - base[0] / centred) if centred > 0 else math.nan,
        r2_full=float(1 - found.full[:, 0].sum() / centred) if centred > 0 else math.nan,
        penalties=tuple(found.penalties[:, 0].tolist()),
        n_rows=len(data),
        n_groups=n_groups,
        n_features=n_features,
        flags=partial.flags,
    )


def _varies(
    targets: FloatArray, positions: NDArray[np.intp], fold_of: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Whether each target varies in every fold."""
    return np.all(
        [np.ptp(targets[fold_of == index], axis=0) > 0 for index in range(int(fold_of.max()) + 1)],
        axis=0,
    )


def _partial_estimate(
    found: _OutOfFold, groups: NDArray[np.intp], n_groups: int, quantity: str, seed: int
) -> Estimate:
    full = group_sums(found.full[:, 0], groups, n_groups)
    position = group_sums(found.position[:, 0], groups, n_groups)
    ratio = ratio_of_means(full, position)
    return Estimate(
        quantity=quantity,
        estimate=1 - full.sum() / position.sum(),
        ci_low=1 - ratio.ci_high,
        ci_high=1 - ratio.ci_low,
        test="fieller_over_groups",
        n_units=n_groups,
        seed=seed,
        flags=ratio.flags if n_groups > 1 else (TOO_FEW_CLUSTERS,),
    )


def _selectivity(score: float, control_scores: FloatArray, record: dict) -> Estimate:
    quantity = "probe selectivity"
    controls = control_scores[np.isfinite(control_scores)]
    if math.isnan(score) or len(controls) == 0:
        return undefined(quantity, NO_VARIATION, **record)
    return Estimate(
        quantity=quantity,
        estimate=float(score - controls.mean()),
        p_value=(1 + int(np.sum(controls >= score))) / (len(controls) + 1),
        test="rank_among_controls",
        n_resamples=len(controls),
        n_dropped=len(control_scores) - len(controls),
        **{key: value for key, value in record.items() if key != "n_dropped"},
    )


def best_layer_p(task_scores: ArrayLike, control_scores: ArrayLike) -> float:
    """Rank p of the best layer's score, each control task allowed its own best layer.

    `task_scores` [layers], `control_scores` [layers, sets]; NaN layers are ignored.
    """
    scores = np.asarray(task_scores, dtype=np.float64)
    controls = np.asarray(control_scores, dtype=np.float64)
    if not np.isfinite(scores).any() or not np.isfinite(controls).any():
        return math.nan
    best = np.nanmax(scores)
    columns = controls[:, np.isfinite(controls).any(axis=0)]
    return float((1 + np.sum(np.nanmax(columns, axis=0) >= best)) / (columns.shape[1] + 1))


def position_only_r2(n_words: int, membership: float) -> float:
    """R² that position alone reaches on a running count of i.i.d. members of rate p.

    p²(n² − 1)/12 over itself plus p(1 − p)(n + 1)/2: the variance between and within positions.
    """
    between = membership**2 * (n_words**2 - 1) / 12
    within = membership * (1 - membership) * (n_words + 1) / 2
    return between / (between + within) if between + within > 0 else math.nan
