"""Linear probes of a yes/no label by regularised least squares, cheap enough for many controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.folds import DEFAULT_FOLDS, GROUPS_PER_FOLD, enough_groups, group_folds
from interpflow.stats.intervals import mean_interval
from interpflow.stats.logistic import Standardised
from interpflow.stats.probe_fits import checked_features, ridge_fits
from interpflow.stats.probe_scores import ProbeScore, contrasts, mean_fold_auroc, score
from interpflow.stats.record import EMPTY_CELL, SINGLE_CLASS, Estimate, undefined
from interpflow.stats.ridge import PENALTIES
from interpflow.stats.units import codes_of, group_sums
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS, draw_weights

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LabelProbe:
    """A probe of a yes/no label, every row scored by a fit that never saw its group.

    `auroc`: mean of the folds' AUROCs with controls (permuted labels) and baselines; `pairs`: the
    share of pairs of one family, one row of each label, that the probe orders rightly, which what
    is common to the family cannot raise; `predictions` [rows], `fold_of` [rows], `penalty` the
    median of the chosen ones.
    """

    auroc: ProbeScore
    pairs: Estimate
    predictions: FloatArray
    fold_of: NDArray[np.intp]
    penalty: float


def permuted_labels(
    labels: ArrayLike, families: ArrayLike, n_sets: int, seed: int
) -> NDArray[np.bool_]:
    """Labels [rows, sets] shuffled within families: what remains is what the family gives away."""
    values = np.asarray(labels, dtype=bool)
    codes, _ = codes_of(families, len(values))
    order = np.argsort(codes, kind="stable")
    rng = np.random.default_rng(seed)
    found = np.empty((len(values), n_sets), dtype=bool)
    for index in range(n_sets):
        shuffled = np.lexsort((rng.random(len(values)), codes))
        found[order, index] = values[shuffled]
    return found


def label_probe(
    features: ArrayLike,
    labels: ArrayLike,
    families: ArrayLike,
    groups: ArrayLike,
    *,
    controls: ArrayLike | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
    n_folds: int = DEFAULT_FOLDS,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> LabelProbe:
    """Ridge regression of a 0/1 label on a representation, out of fold, scored by AUROC.

    `features` [rows, d], `labels` bool [rows], `families` [rows] the unit of inference, `groups`
    [rows] what folds keep whole (families, or templates that hold them), `controls` bool
    [rows, sets] labels of control tasks, `baselines` name → features [rows, …]. Least squares on a
    label is the discriminant direction of regularised LDA; the penalty comes from inner folds.
    Intervals resample families and are widened for the refits, as in `probes.ridge_probe`.
    Raises UserError for misfitting shapes or too few groups.
    """
    truth = np.asarray(labels, dtype=bool)
    codes, n_families = codes_of(families, len(truth))
    if not enough_groups(groups, n_folds):
        raise UserError(
            f"{len(np.unique(np.asarray(groups)))} groups are too few for a probe in {n_folds} "
            "folds",
            where="groups",
            remedy=f"give at least {GROUPS_PER_FOLD * n_folds} groups, or fewer folds",
        )
    fold_of = group_folds(groups, n_folds, seed)
    drawn = np.zeros((len(truth), 0), bool) if controls is None else np.asarray(controls, bool)
    targets = np.column_stack([truth, drawn]).astype(np.float64)
    fits = ridge_fits(features, targets, fold_of)
    others = {
        name: ridge_fits(matrix, targets[:, :1], fold_of)
        for name, matrix in (baselines or {}).items()
    }
    of = contrasts(fits, others, codes, n_families, level=level, n_resamples=n_resamples, seed=seed)
    predictions = np.concatenate([part.predictions for part in (fits, *others.values())], axis=1)
    all_truth = np.column_stack([targets, *[targets[:, :1]] * len(others)]) == 1
    ranked = mean_fold_auroc(_untied(predictions), all_truth, codes, fold_of)
    return LabelProbe(
        auroc=score(
            ranked, of, "AUROC", defined=_both_in_each(all_truth, fold_of), flag=SINGLE_CLASS
        ),
        pairs=paired_accuracy(fits.predictions[:, 0], truth, codes, level=level),
        predictions=fits.predictions[:, 0],
        fold_of=fold_of,
        penalty=float(np.median(fits.penalties[:, 0])),
    )


def paired_accuracy(
    scores: ArrayLike, labels: ArrayLike, families: ArrayLike, *, level: float = 0.95
) -> Estimate:
    """Share of pairs (a row with the label, one without) of a family whose scores are in order.

    Ties count one half; the mean over families that have both labels, each with equal weight, and
    its t test against ½. `scores`, `labels` bool, `families` [rows].
    """
    values, truth = _untied(np.asarray(scores, dtype=np.float64)), np.asarray(labels, dtype=bool)
    codes, n_families = codes_of(families, len(values))
    shares = []
    for rows in _rows_of(codes, n_families):
        yes, no = values[rows][truth[rows]], values[rows][~truth[rows]]
        if len(yes) and len(no):
            gap = yes[:, None] - no
            shares.append(float((gap > 0).mean() + (gap == 0).mean() / 2))
    name = "pairs of a family in order"
    if not shares:
        return undefined(name, EMPTY_CELL, ci_level=level, n_dropped=n_families)
    found = mean_interval(shares, quantity=name, level=level, null=0.5)
    return replace(found, n_dropped=n_families - len(shares))


def transfer_auroc(
    features: ArrayLike,
    labels: ArrayLike,
    families: ArrayLike,
    fold_of: NDArray[np.intp],
    trained: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    *,
    penalty: float = PENALTIES[3],
    quantity: str = "AUROC",
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> Estimate:
    """AUROC on the rows `tested` of probes fitted on the rows `trained` of the other folds.

    A row may be in both (the clean prompts): it is never scored by a fit that saw its fold. The
    interval resamples families of the tested rows, the fits being as they are. One class in the
    tested rows is undefined and flagged.
    """
    x = checked_features(features, len(np.asarray(labels)))
    y = np.asarray(labels, dtype=np.float64)
    predictions = np.zeros(len(y))
    for fold in np.unique(fold_of[tested]):
        rows = tested & (fold_of == fold)
        predictions[rows] = _ridge(x[trained & (fold_of != fold)], y[trained & (fold_of != fold)],
                                   x[rows], penalty)  # fmt: skip
    kept = np.flatnonzero(tested)
    truth = (y[kept] == 1)[:, None]
    codes, n_families = codes_of(np.asarray(families)[kept], len(kept))
    counts = {"n_units": n_families, "ci_level": level, "seed": seed}
    folds = np.unique(fold_of[kept], return_inverse=True)[1].reshape(-1)
    if len(kept) == 0 or not any(0 < truth[folds == fold].mean() < 1 for fold in np.unique(folds)):
        return undefined(quantity, SINGLE_CLASS, **counts)
    ranked = mean_fold_auroc(_untied(predictions[kept])[:, None], truth, codes, folds)
    draws = draw_weights(ranked, n_families, n_resamples=n_resamples, seed=seed)
    return draws.error_estimate(0, quantity, level=level, bounds=(0.0, 1.0), n_units=n_families)


def _ridge(x: FloatArray, y: FloatArray, tested: FloatArray, penalty: float) -> FloatArray:
    """Predictions [tested rows] of a ridge on standardised features."""
    standard = Standardised.of(x)
    gram = standard.values.T @ standard.values
    gram[np.diag_indices(len(gram))] += penalty * max(len(x), 1)
    weights = np.linalg.solve(gram, standard.values.T @ (y - y.mean()))
    return ((tested - standard.centre) * standard.inverse) @ weights + y.mean()


def _untied(scores: FloatArray) -> FloatArray:
    """Scores without the last digits, in which equal rows may differ by the order of summing."""
    return np.round(scores, 9)


def _both_in_each(labels: NDArray[np.bool_], fold_of: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether some fold holds both labels, [columns] of `labels` [rows, columns]."""
    codes, n_folds = codes_of(fold_of, len(labels))
    share = group_sums(labels, codes, n_folds) / np.bincount(codes)[:, None]
    return np.asarray(((share > 0) & (share < 1)).any(axis=0), dtype=bool)


def _rows_of(codes: NDArray[np.intp], n_groups: int) -> list[NDArray[np.intp]]:
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=n_groups))
    return np.split(order, ends[:-1])
