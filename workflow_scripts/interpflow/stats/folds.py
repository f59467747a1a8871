"""Folds of a cross-validation that never split a group."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.units import codes_of

DEFAULT_FOLDS = 5
# With fewer groups the score of a fold is that of one group.
GROUPS_PER_FOLD = 2


def enough_groups(groups: ArrayLike, n_folds: int = DEFAULT_FOLDS) -> bool:
    """Whether the groups of the rows suffice to score a probe in `n_folds` grouped folds."""
    return len(np.unique(np.asarray(groups))) >= GROUPS_PER_FOLD * n_folds


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
