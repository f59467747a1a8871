"""Ridge probe of what a representation holds beyond position, against control tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.folds import DEFAULT_FOLDS, group_folds
from interpflow.stats.ratios import ratio_of_means
from interpflow.stats.record import NO_VARIATION, TOO_FEW_CLUSTERS, Estimate, undefined
from interpflow.stats.ridge import PENALTIES, OutOfFold, out_of_fold
from interpflow.stats.units import codes_of, group_sums

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PartialProbe:
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


def partial_probe(
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
) -> PartialProbe:
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
    found = out_of_fold(data, codes, fold_of, n_features, penalties)
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
    return PartialProbe(
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
    found: OutOfFold, groups: NDArray[np.intp], n_groups: int, quantity: str, seed: int
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
