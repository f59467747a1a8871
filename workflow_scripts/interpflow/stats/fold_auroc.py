"""AUROC inside folds with a clustered standard error, many scores at once, no resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    MIN_CLUSTERS,
    SINGLE_CLASS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import group_sums

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FoldAuroc:
    """AUROCs of several columns of scores on the same rows.

    `values` [columns], the mean over folds, NaN where no fold holds both labels; `influence`
    [families, columns] of each family on its value; `n_families` that were scored.
    """

    values: FloatArray
    influence: FloatArray
    n_families: int

    def contrast(
        self, coefficients: FloatArray, quantity: str, *, level: float = 0.95, spread: float = 1.0
    ) -> Estimate:
        """The record of Σ coefficient · AUROC, ± t_{G−1} standard errors over G families.

        `spread` widens the interval, for variation of the fits. A single AUROC stays within 0
        and 1.
        """
        used = np.flatnonzero(coefficients)
        value = float(self.values[used] @ coefficients[used])
        counts = {"n_units": self.n_families, "ci_level": level, "test": "clustered_delong"}
        if math.isnan(value):
            return undefined(quantity, SINGLE_CLASS, **counts)
        groups = self.n_families
        flags = (TOO_FEW_CLUSTERS,) if groups < MIN_CLUSTERS else ()
        variance = float(((self.influence[:, used] @ coefficients[used]) ** 2).sum())
        if groups < 2 or not variance > 0:
            flags = (*flags, DEGENERATE_VARIANCE)
            return Estimate(quantity=quantity, estimate=value, flags=flags, **counts)
        error = math.sqrt(variance * groups / (groups - 1)) * spread
        reach = t_quantile(0.5 + level / 2, groups - 1) * error
        low, high = value - reach, value + reach
        if len(used) == 1:
            low, high = max(0.0, low), min(1.0, high)
        return Estimate(
            quantity=quantity, estimate=value, ci_low=low, ci_high=high, flags=flags, **counts
        )


def without_last_digits(scores: ArrayLike) -> FloatArray:
    """Scores in which equal rows are equal, whatever the order in which they were summed."""
    return np.round(np.asarray(scores, dtype=np.float64), 9)


def fold_auroc(
    scores: ArrayLike,
    labels: NDArray[np.bool_],
    families: NDArray[np.intp],
    n_families: int,
    fold_of: NDArray[np.intp],
) -> FoldAuroc:
    """Mean over folds of the AUROC inside a fold, column by column, ties counted one half.

    `scores`, `labels` [rows, columns], `families` [rows] codes, `fold_of` [rows]. Scores of
    different folds come from different fits and are not compared; folds with one label are left
    out. The influence of a row is its placement among the rows of the other label minus the AUROC
    (DeLong 1988), summed over its family (Obuchowski 1997).
    """
    values = without_last_digits(scores)
    n_columns = values.shape[1]
    totals, counts = np.zeros(n_columns), np.zeros(n_columns)
    influence = np.zeros((len(values), n_columns))
    for fold in np.unique(fold_of):
        rows = np.flatnonzero(fold_of == fold)
        for column in range(n_columns):
            truth = labels[rows, column]
            n_yes, n_no = int(truth.sum()), int((~truth).sum())
            if not n_yes or not n_no:
                continue
            placement = _placements(values[rows, column], truth)
            auroc = float(placement[truth].mean())
            totals[column] += auroc
            counts[column] += 1
            influence[rows, column] = (placement - auroc) / np.where(truth, n_yes, n_no)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, totals / counts, np.nan)
        influence = np.where(counts > 0, influence / counts, 0.0)
    scored = len(np.unique(families))
    return FoldAuroc(means, group_sums(influence, families, n_families), scored)


def _placements(scores: FloatArray, truth: NDArray[np.bool_]) -> FloatArray:
    """Share of rows of the other label [rows] that a row stands rightly to, ties one half."""
    yes, no = np.sort(scores[truth]), np.sort(scores[~truth])
    found = np.empty(len(scores))
    below = np.searchsorted(no, scores[truth], "left") + np.searchsorted(no, scores[truth], "right")
    found[truth] = below / (2 * len(no))
    above = np.searchsorted(yes, scores[~truth], "left")
    above = above + np.searchsorted(yes, scores[~truth], "right")
    found[~truth] = 1 - above / (2 * len(yes))
    return found
