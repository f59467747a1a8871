"""Linear probes of a yes/no label by regularised least squares, cheap enough for many controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.fold_auroc import FoldAuroc, fold_auroc, without_last_digits
from interpflow.stats.folds import DEFAULT_FOLDS, GROUPS_PER_FOLD, enough_groups, group_folds
from interpflow.stats.intervals import mean_interval
from interpflow.stats.probe_fits import checked_features, ridge_fits
from interpflow.stats.probe_scores import Contrasts, ProbeScore, contrasts
from interpflow.stats.record import (
    EMPTY_CELL,
    NO_VARIATION,
    Estimate,
    undefined,
)
from interpflow.stats.ridge import PENALTIES
from interpflow.stats.units import codes_of

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LabelProbe:
    """A probe of a yes/no label, every row scored by a fit that never saw its group.

    `auroc`: mean of the folds' AUROCs with controls (permuted labels) and baselines; `pairs`: the
    share of pairs of one family, one row of each label, that the probe orders rightly, which what
    is common to the family cannot raise, and `baseline_pairs` the same of the baselines;
    `predictions` [rows], `fold_of` [rows], `penalty` the median of the chosen ones.
    """

    auroc: ProbeScore
    pairs: Estimate
    baseline_pairs: dict[str, Estimate]
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
    seed: int,
) -> LabelProbe:
    """Ridge regression of a 0/1 label on a representation, out of fold, scored by AUROC.

    `features` [rows, d], `labels` bool [rows], `families` [rows] the unit of inference, `groups`
    [rows] what folds keep whole (families, or templates that hold them), `controls` bool
    [rows, sets] labels of control tasks, `baselines` name → features [rows, …]. Least squares on a
    label is the discriminant direction of regularised LDA; the penalty comes from inner folds.
    Intervals are those of `fold_auroc`, widened for the refits as in `probes.ridge_probe`.
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
    of = contrasts(fits, others, codes, n_families, level=level, n_resamples=0, seed=seed)
    predictions = np.concatenate([part.predictions for part in (fits, *others.values())], axis=1)
    all_truth = np.column_stack([targets, *[targets[:, :1]] * len(others)]) == 1
    found = fold_auroc(predictions, all_truth, codes, n_families, fold_of)
    return LabelProbe(
        auroc=_score(found, of),
        pairs=paired_accuracy(fits.predictions[:, 0], truth, codes, level=level),
        baseline_pairs={
            name: paired_accuracy(part.predictions[:, 0], truth, codes, level=level)
            for name, part in others.items()
        },
        predictions=fits.predictions[:, 0],
        fold_of=fold_of,
        penalty=float(np.median(fits.penalties[:, 0])),
    )


def _score(found: FoldAuroc, of: Contrasts) -> ProbeScore:
    """The columns of `found` (task, controls, baselines) as one score."""
    names = {base: 1 + of.n_controls + k for k, base in enumerate(of.baselines)}
    controls = found.values[1 : 1 + of.n_controls]
    valid = 1 + np.flatnonzero(np.isfinite(controls))
    unit = np.eye(len(found.values))

    def one(coefficients: FloatArray, quantity: str, **fields: Any) -> Estimate:
        spread = of.spread(coefficients)
        estimate = found.contrast(coefficients, quantity, level=of.level, spread=spread)
        return replace(estimate, seed=of.seed, **fields)

    selectivity = undefined("AUROC selectivity", NO_VARIATION, ci_level=of.level, seed=of.seed)
    if np.isfinite(found.values[0]) and len(valid):
        at_least = int((found.values[valid] >= found.values[0]).sum())
        selectivity = one(
            unit[0] - unit[valid].mean(axis=0),
            "AUROC selectivity",
            p_value=(1 + at_least) / (len(valid) + 1),
            test="rank_among_controls",
            n_dropped=of.n_controls - len(valid),
        )
    return ProbeScore(
        task=one(unit[0], "AUROC"),
        control_scores=controls,
        selectivity=selectivity,
        baselines={base: one(unit[k], f"AUROC: {base}") for base, k in names.items()},
        gains={base: one(unit[0] - unit[k], f"AUROC beyond {base}") for base, k in names.items()},
    )


def paired_accuracy(
    scores: ArrayLike, labels: ArrayLike, families: ArrayLike, *, level: float = 0.95
) -> Estimate:
    """Share of pairs (a row with the label, one without) of a family whose scores are in order.

    Ties count one half; the mean over families that have both labels, each with equal weight, and
    its t test against ½. `scores`, `labels` bool, `families` [rows].
    """
    values, truth = without_last_digits(scores), np.asarray(labels, dtype=bool)
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


def transfer_aurocs(
    features: ArrayLike,
    labels: ArrayLike,
    families: ArrayLike,
    kinds: ArrayLike,
    fold_of: NDArray[np.intp],
    *,
    beside: ArrayLike | None = None,
    penalty: float = PENALTIES[3],
    quantity: str = "AUROC",
    level: float = 0.95,
) -> dict[Any, Estimate]:
    """AUROC on each kind of rows of probes fitted without that kind and without the rows' fold.

    `kinds` [rows] labels; `beside` bool [rows]: rows that are tested with every kind, and of no
    kind that is left out (prompts without any edit, when only those have the other label).
    Intervals are those of `fold_auroc`, the fits being as they are. A kind whose tested rows have
    one label is undefined and flagged. Sums over each fold and kind are formed once.
    """
    y = np.asarray(labels, dtype=np.float64)
    x = checked_features(features, len(y))
    x = x - x.mean(axis=0)
    always = np.zeros(len(y), dtype=bool) if beside is None else np.asarray(beside, dtype=bool)
    names, kind_of = np.unique(np.asarray(kinds), return_inverse=True)
    codes, n_families = codes_of(families, len(y))
    n_folds = int(fold_of.max()) + 1
    data = np.column_stack([np.ones(len(y)), x, y])
    sums = np.zeros((n_folds, len(names), data.shape[1], data.shape[1]))
    for fold in range(n_folds):
        for kind in range(len(names)):
            rows = data[(fold_of == fold) & (kind_of == kind)]
            sums[fold, kind] = rows.T @ rows
    of_fold, of_kind, total = sums.sum(axis=1), sums.sum(axis=0), sums.sum(axis=(0, 1))
    found: dict[Any, Estimate] = {}
    for kind, name in enumerate(names.tolist()):
        here = kind_of == kind
        if always[here].all():
            continue
        tested = np.flatnonzero(here | always)
        predictions = np.zeros(len(tested))
        for fold in range(n_folds):
            rows = fold_of[tested] == fold
            train = total - of_fold[fold] - of_kind[kind] + sums[fold, kind]
            predictions[rows] = x[tested[rows]] @ _ridge_weights(train, penalty)
        scored = fold_auroc(
            predictions[:, None], (y[tested] == 1)[:, None], codes[tested], n_families,
            fold_of[tested],
        )  # fmt: skip
        found[name] = scored.contrast(np.ones(1), quantity, level=level)
    return found


def _ridge_weights(sums: FloatArray, penalty: float) -> FloatArray:
    """Weights [d] of a ridge on standardised features, from the products of (1, features, y)."""
    n = max(float(sums[0, 0]), 1.0)
    means = sums[0] / n
    within = sums - n * np.outer(means, means)
    size, spread = (np.sqrt(np.maximum(np.diag(m)[1:-1], 0) / n) for m in (sums, within))
    varies = spread > 1e-6 * size
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
    gram = within[1:-1, 1:-1] * np.outer(inverse, inverse)
    gram[np.diag_indices(len(gram))] += penalty * n
    weights = np.linalg.solve(gram, within[1:-1, -1] * inverse) * inverse
    return np.asarray(weights, dtype=np.float64)


def _rows_of(codes: NDArray[np.intp], n_groups: int) -> list[NDArray[np.intp]]:
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=n_groups))
    return np.split(order, ends[:-1])
