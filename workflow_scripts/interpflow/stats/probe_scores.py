"""Scores of a probe with intervals over families: R², explained deviance, accuracy, AUROC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.stats.probe_fits import FloatArray, IntArray, ProbeFits
from interpflow.stats.record import NO_VARIATION, Estimate, undefined
from interpflow.stats.units import group_sums
from interpflow.stats.weighted_bootstrap import Statistic, WeightDraws, draw_weights

# Row weights held at once while resampling: 2e6 float64 is 16 MB per temporary.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class ProbeScore:
    """One measure of a probe beside its control tasks and baselines.

    `task` the probe's score; `control_scores` [sets] those on the control tasks (NaN where a
    control does not vary); `selectivity` the task's score minus their mean (Hewitt & Liang 2019)
    with the rank p-value (1 + #controls ≥ task)/(controls + 1); `baselines` the same probe on
    other features; `gains` the task's score minus each of them.
    """

    task: Estimate
    control_scores: FloatArray
    selectivity: Estimate
    baselines: dict[str, Estimate]
    gains: dict[str, Estimate]


@dataclass(frozen=True)
class Contrasts:
    """The families of the rows and how scores are compared: what every measure shares.

    Columns of a measure: the task, `n_controls` control tasks, then one per name in `baselines`.
    `pull` [families, columns] and `own` [families, columns] are the two parts of the influence of
    a family on each column's explained loss: through the fits it trained and through its test.
    """

    families: IntArray
    n_families: int
    n_controls: int
    baselines: tuple[str, ...]
    own: FloatArray
    pull: FloatArray
    level: float
    n_resamples: int
    seed: int

    def spread(self, coefficients: FloatArray) -> float:
        """How much wider than resampled tests alone a contrast of columns varies, at least 1.

        Ratio of two standard errors: of the whole influence of the families, and of the part that
        resampling the tested rows of fixed fits can see.
        """
        own = float(((self.own @ coefficients) ** 2).sum())
        whole = float((((self.own + self.pull) @ coefficients) ** 2).sum())
        return max(1.0, np.sqrt(whole / own)) if own > 0 else 1.0


def contrasts(
    fits: ProbeFits,
    others: Mapping[str, ProbeFits],
    families: IntArray,
    n_families: int,
    *,
    level: float,
    n_resamples: int,
    seed: int,
) -> Contrasts:
    """Contrasts of a probe's fits (task, controls) with those of its baselines (task alone)."""
    parts = [_influence(part, families, n_families) for part in (fits, *others.values())]
    return Contrasts(
        families=families,
        n_families=n_families,
        n_controls=fits.loss.shape[1] - 1,
        baselines=tuple(others),
        own=np.concatenate([own for own, _ in parts], axis=1),
        pull=np.concatenate([pull for _, pull in parts], axis=1),
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )


def _influence(
    fits: ProbeFits, families: IntArray, n_families: int
) -> tuple[FloatArray, FloatArray]:
    """Influence of each family on 1 − Σ loss/Σ base loss, [families, t]: own test and pull."""
    base = fits.base_loss.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = fits.loss.sum(axis=0) / base
        own = -(fits.loss - ratio * fits.base_loss) / base
        pull = -(fits.loss_pull - ratio * fits.base_pull) / base
    parts = (group_sums(part, families, n_families) for part in (own, pull))
    own, pull = (np.where(np.isfinite(part), part, 0.0) for part in parts)
    return own, pull


def explained_loss(
    fits: ProbeFits, others: Mapping[str, ProbeFits], families: IntArray, n_families: int
) -> Statistic:
    """1 − Σ loss / Σ loss of the intercept alone: R² or the share of deviance explained."""
    columns = (fits, *others.values())
    loss, base = (
        group_sums(
            np.concatenate([getattr(part, name) for part in columns], axis=1), families, n_families
        )
        for name in ("loss", "base_loss")
    )

    def statistic(weights: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - (weights @ loss) / (weights @ base)

    return statistic


def shares(hits: NDArray[np.bool_], families: IntArray, n_families: int) -> Statistic:
    """Share of hits, for `hits` [n, columns]: accuracy."""
    right = group_sums(hits, families, n_families)
    counts = np.bincount(families, minlength=n_families).astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        return (weights @ right) / (weights @ counts)[:, None]

    return statistic


def mean_fold_auroc(
    scores: FloatArray, labels: NDArray[np.bool_], families: IntArray, fold_of: IntArray
) -> Statistic:
    """Mean over folds of the AUROC inside a fold, for `scores` and `labels` [n, columns].

    Scores of different folds come from different fits and are not compared. Folds with one class
    (of weight above 0) are left out; NaN where none is left.
    """
    folds = [np.flatnonzero(fold_of == fold) for fold in range(int(fold_of.max()) + 1)]

    def in_folds(by_row: FloatArray, column: int) -> FloatArray:
        return np.stack(
            [
                _weighted_auroc(scores[rows, column], labels[rows, column], by_row[:, rows])
                for rows in folds
            ]
        )

    def statistic(weights: FloatArray) -> FloatArray:
        step = max(1, _BLOCK // len(families))
        blocks = []
        for start in range(0, len(weights), step):
            by_row = weights[start : start + step][:, families]
            found = np.stack([in_folds(by_row, column) for column in range(scores.shape[1])], 2)
            present = np.isfinite(found)
            with np.errstate(divide="ignore", invalid="ignore"):
                blocks.append(np.where(present, found, 0.0).sum(axis=0) / present.sum(axis=0))
        return np.concatenate(blocks)

    return statistic


def _weighted_auroc(
    scores: FloatArray, positive: NDArray[np.bool_], weights: FloatArray
) -> FloatArray:
    """AUROC [b] of `scores` [n] under row weights [b, n]; NaN where a class has no weight."""
    order = np.argsort(scores, kind="stable")
    values = scores[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    ordered = weights[:, order]
    ones = np.add.reduceat(np.where(positive[order], ordered, 0.0), starts, axis=1)
    zeros = np.add.reduceat(np.where(positive[order], 0.0, ordered), starts, axis=1)
    below = np.cumsum(zeros, axis=1) - zeros / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return (ones * below).sum(axis=1) / (ones.sum(axis=1) * zeros.sum(axis=1))


def score(
    statistic: Statistic, of: Contrasts, name: str, *, defined: NDArray[np.bool_], flag: str
) -> ProbeScore:
    """The score of a probe: intervals resample families, and are widened for the refits.

    `statistic` maps family weights to the columns of `of`; columns that are not `defined` give
    NaN, the task's with `flag`.
    """
    counts: dict[str, Any] = {"n_units": of.n_families, "test": "family_bootstrap"}
    draws = draw_weights(statistic, of.n_families, n_resamples=of.n_resamples, seed=of.seed)
    observed = np.where(defined, draws.observed, np.nan)
    controls = slice(1, 1 + of.n_controls)
    names = {base: 1 + of.n_controls + k for k, base in enumerate(of.baselines)}
    if not defined[0]:
        gone = undefined(name, flag, n_units=of.n_families, ci_level=of.level, seed=of.seed)
        absent = {base: gone.renamed(f"{name}: {base}") for base in names}
        gains = {base: gone.renamed(f"{name} beyond {base}") for base in names}
        selectivity = gone.renamed(f"{name} selectivity")
        return ProbeScore(gone, observed[controls], selectivity, absent, gains)

    def one(coefficients: FloatArray, quantity: str) -> Estimate:
        return _contrast(draws, coefficients, quantity, of, counts)

    unit = np.eye(len(draws.observed))
    return ProbeScore(
        task=one(unit[0], name),
        control_scores=observed[controls],
        selectivity=_selectivity(draws, observed, of, name, counts),
        baselines={base: one(unit[k], f"{name}: {base}") for base, k in names.items()},
        gains={base: one(unit[0] - unit[k], f"{name} beyond {base}") for base, k in names.items()},
    )


def _contrast(
    draws: WeightDraws,
    coefficients: FloatArray,
    quantity: str,
    of: Contrasts,
    counts: dict[str, Any],
) -> Estimate:
    used = np.flatnonzero(coefficients)
    part = replace(
        draws,
        observed=draws.observed[used] @ coefficients[used, None],
        draws=draws.draws[:, used] @ coefficients[used, None],
        left_out=draws.left_out[:, used] @ coefficients[used, None],
    )
    return part.estimate(0, quantity, level=of.level, spread=of.spread(coefficients), **counts)


def _selectivity(
    draws: WeightDraws, observed: FloatArray, of: Contrasts, name: str, counts: dict[str, Any]
) -> Estimate:
    """The task's score minus the mean control's; families and control tasks are resampled."""
    quantity = f"{name} selectivity"
    valid = 1 + np.flatnonzero(np.isfinite(observed[1 : 1 + of.n_controls]))
    if len(valid) == 0:
        return undefined(
            quantity, NO_VARIATION, ci_level=of.level, n_units=of.n_families, seed=of.seed
        )
    coefficients = np.zeros(len(observed))
    coefficients[0], coefficients[valid] = 1.0, -1 / len(valid)
    rng = np.random.default_rng([of.seed, of.n_controls])
    picked = rng.multinomial(len(valid), np.full(len(valid), 1 / len(valid)), len(draws.draws))
    mean_control = (draws.draws[:, valid] * picked).sum(axis=1) / len(valid)
    part = replace(
        draws,
        observed=draws.observed[[0]] - draws.observed[valid].mean(),
        draws=(draws.draws[:, 0] - mean_control)[:, None],
        left_out=(draws.left_out[:, 0] - draws.left_out[:, valid].mean(axis=1))[:, None],
    )
    estimate = part.estimate(0, quantity, level=of.level, spread=of.spread(coefficients), **counts)
    at_least = int(np.sum(observed[valid] >= observed[0]))
    return replace(
        estimate,
        p_value=(1 + at_least) / (len(valid) + 1),
        test="rank_among_controls",
        n_dropped=of.n_controls - len(valid),
    )
