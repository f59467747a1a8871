"""Linear probes: what can be read off a representation, against controls and plain baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.folds import DEFAULT_FOLDS, GROUPS_PER_FOLD, enough_groups, group_folds
from interpflow.stats.logistic import LOGISTIC_PENALTIES
from interpflow.stats.logistic_fits import logistic_fits
from interpflow.stats.probe_fits import FloatArray, IntArray, ridge_fits
from interpflow.stats.probe_scores import (
    ProbeScore,
    contrasts,
    explained_loss,
    mean_fold_auroc,
    score,
    shares,
)
from interpflow.stats.record import NO_VARIATION, SINGLE_CLASS
from interpflow.stats.ridge import PENALTIES
from interpflow.stats.units import codes_of
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS


@dataclass(frozen=True)
class LinearProbe:
    """A linear probe and its scores, every row predicted by a fit that never saw its family.

    `scores` by measure: "r2" for values; "accuracy", "explained_deviance" and, with two classes,
    "auroc" for labels. `predictions` [rows], values or labels; `log_odds` [rows, classes] for
    labels; `fold_of` [rows]; `penalties` [folds] as chosen in inner folds; `classes` in the order
    of `log_odds`. Intervals resample families, and are widened by what refitting on other families
    would add (infinitesimal jackknife). Simulated coverage of 95 % intervals: above .99 where there
    is nothing to read, .84 at an R² of .03, .92 to .96 for strong signals.
    Presence is not use: the causal claim needs an intervention.
    """

    scores: dict[str, ProbeScore]
    predictions: NDArray[Any]
    log_odds: FloatArray | None
    fold_of: IntArray
    penalties: FloatArray
    classes: tuple[Any, ...]
    n_rows: int
    n_families: int
    n_features: int


def ridge_probe(
    features: ArrayLike,
    target: ArrayLike,
    families: ArrayLike,
    *,
    controls: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
    n_folds: int = DEFAULT_FOLDS,
    penalties: Sequence[float] = PENALTIES,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> LinearProbe:
    """Ridge regression of a number on a representation, out of fold, families never split.

    `features` [rows, d], `target` [rows], `families` [rows] labels (the unit of inference),
    `controls` [rows, sets] targets of control tasks, `baselines` name → features [rows, …] that
    stand in for the representation. The penalty is chosen in inner folds, target by target;
    features are standardised on training rows. R² = 1 − Σ(y − ŷ)²/Σ(y − mean of the training
    rows)². A target constant in a fold is undefined and flagged. Raises UserError for misfitting
    shapes, values that are not finite, or fewer families than two per fold.
    """
    y = np.asarray(target, dtype=np.float64)
    targets = _with_controls(y, controls).astype(np.float64)
    if not np.isfinite(targets).all():
        raise UserError("targets hold values that are not finite", where="target")
    codes, n_families, fold_of = _folds(families, len(y), n_folds, seed)
    fits = ridge_fits(features, targets, fold_of, penalties)
    others = {
        name: ridge_fits(matrix, targets[:, :1], fold_of, penalties)
        for name, matrix in (baselines or {}).items()
    }
    of = contrasts(fits, others, codes, n_families, level=level, n_resamples=n_resamples, seed=seed)
    varied = _in_each(targets, fold_of, np.all)
    defined = np.r_[varied, np.repeat(varied[0], len(others))]
    statistic = explained_loss(fits, others, codes, n_families)
    r2 = score(statistic, of, "R²", defined=defined, flag=NO_VARIATION)
    return LinearProbe(
        scores={"r2": r2},
        predictions=fits.predictions[:, 0],
        log_odds=None,
        fold_of=fold_of,
        penalties=fits.penalties[:, 0],
        classes=(),
        n_rows=len(y),
        n_families=n_families,
        n_features=np.shape(features)[1],
    )


def logistic_probe(
    features: ArrayLike,
    labels: ArrayLike,
    families: ArrayLike,
    *,
    controls: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
    n_folds: int = DEFAULT_FOLDS,
    penalties: Sequence[float] = LOGISTIC_PENALTIES,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> LinearProbe:
    """Logistic regression of a label on a representation, out of fold, families never split.

    Arguments and errors as `ridge_probe`, with `labels` [rows] of any sortable kind and `controls`
    of the same labels; more than two classes are each fitted against the rest. Accuracy has the
    baseline "majority", the most frequent label of the training rows. AUROC (two classes) is the
    mean over folds. One class in all is undefined and flagged; a class in fewer families than
    folds is an error, since some fit might not see it.
    """
    given = np.asarray(labels)
    codes, n_families, fold_of = _folds(families, len(given), n_folds, seed)
    classes, targets = _class_codes(given, controls, codes, n_folds)
    n_classes = max(2, len(classes))
    alone = {"majority": np.zeros((len(given), 1))}
    fits = logistic_fits(features, targets, n_classes, fold_of, penalties)
    others = {
        name: logistic_fits(matrix, targets[:, :1], n_classes, fold_of, penalties)
        for name, matrix in (alone | dict(baselines or {})).items()
    }
    of = contrasts(fits, others, codes, n_families, level=level, n_resamples=n_resamples, seed=seed)
    odds = np.concatenate([part.predictions for part in (fits, *others.values())], axis=1)
    guesses = odds.argmax(axis=2)
    truth = np.concatenate([targets, np.repeat(targets[:, :1], len(others), axis=1)], axis=1)
    several = np.ptp(truth, axis=0) > 0
    hits, deviance = (
        shares(guesses == truth, codes, n_families),
        explained_loss(fits, others, codes, n_families),
    )
    scores = {
        key: score(statistic, of, key.replace("_", " "), defined=several, flag=SINGLE_CLASS)
        for key, statistic in (("accuracy", hits), ("explained_deviance", deviance))
    }
    if n_classes == 2:
        ranked = mean_fold_auroc(odds[:, :, 1], truth == 1, codes, fold_of)
        defined = several & _in_each(truth, fold_of, np.any)
        scores["auroc"] = score(ranked, of, "AUROC", defined=defined, flag=SINGLE_CLASS)
    return LinearProbe(
        scores=scores,
        predictions=np.resize(classes, n_classes)[guesses[:, 0]],
        log_odds=fits.predictions[:, 0],
        fold_of=fold_of,
        penalties=fits.penalties[:, 0],
        classes=tuple(classes.tolist()),
        n_rows=len(given),
        n_families=n_families,
        n_features=np.shape(features)[1],
    )


def _folds(
    families: ArrayLike, n_rows: int, n_folds: int, seed: int
) -> tuple[IntArray, int, IntArray]:
    """Family codes [rows], how many there are, and the fold of each row."""
    codes, n_families = codes_of(np.asarray(families), n_rows)
    if not enough_groups(codes, n_folds):
        raise UserError(
            f"{n_rows} rows of {n_families} families are too few for a probe in {n_folds} folds",
            where="families",
            remedy=f"give at least {GROUPS_PER_FOLD * n_folds} families, or fewer folds",
        )
    return codes, n_families, group_folds(codes, n_folds, seed)


def _with_controls(target: NDArray[Any], controls: ArrayLike | None) -> NDArray[Any]:
    """Target and controls side by side [rows, 1 + sets]."""
    if target.ndim != 1:
        raise UserError(f"the target has shape {target.shape}, not [rows]", where="target")
    if controls is None:
        return target[:, None]
    drawn = np.asarray(controls)
    if drawn.ndim != 2 or len(drawn) != len(target):
        raise UserError(f"controls {drawn.shape} do not fit {len(target)} rows", where="controls")
    return np.concatenate([target[:, None], drawn], axis=1)


def _class_codes(
    labels: NDArray[Any], controls: ArrayLike | None, families: IntArray, n_folds: int
) -> tuple[NDArray[Any], IntArray]:
    """The classes, and the codes of labels and controls [rows, 1 + sets]."""
    together = _with_controls(labels, controls)
    classes = np.unique(labels)
    if not np.isin(together, classes).all():
        raise UserError("control labels are not among the labels", where="controls")
    codes = np.searchsorted(classes, together)
    for code, name in enumerate(classes.tolist()):
        found = len(np.unique(families[codes[:, 0] == code]))
        if found < n_folds:
            raise UserError(
                f"the label {name!r} occurs in {found} families, fewer than {n_folds} folds",
                where="labels",
                remedy="merge or leave out rare labels, or use fewer folds",
            )
    return classes, codes


def _in_each(
    targets: NDArray[Any], fold_of: IntArray, rule: Callable[..., Any]
) -> NDArray[np.bool_]:
    """Whether each column of `targets` varies inside all (or any, by `rule`) of the folds."""
    folds = range(int(fold_of.max()) + 1)
    return rule([np.ptp(targets[fold_of == fold], axis=0) > 0 for fold in folds], axis=0)
