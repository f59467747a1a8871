"""How far a first-order attribution can be trusted as a screen for exact patching."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError

# A screen passes with a rank correlation of at least this and no missed cell above the SESOI.
MIN_RANK_CORRELATION = 0.9
# Share of cells patched exactly at random, and number of top cells always patched.
RANDOM_AUDIT_SHARE = 0.05
TOP_AUDIT_CELLS = 20


@dataclass(frozen=True)
class AttributionAudit:
    """Attribution against exact effects on the audited cells.

    `missed` cells are exactly large (above the smallest effect of interest) but not screened in;
    `false_negative_rate` is their share of the exactly large cells. `passed` False: patch exactly.
    """

    n_cells: int
    spearman: float
    sign_agreement: float
    worst_error: float
    n_large: int
    n_missed: int
    false_negative_rate: float
    passed: bool


def audit_cells(
    attribution: ArrayLike,
    *,
    seed: int,
    share: float = RANDOM_AUDIT_SHARE,
    top: int = TOP_AUDIT_CELLS,
) -> NDArray[np.intp]:
    """Indices of cells to patch exactly: the `top` by |attribution| and a random share."""
    scores = np.abs(np.asarray(attribution, dtype=np.float64))
    n = len(scores)
    ranked = np.argsort(-np.nan_to_num(scores, nan=np.inf), kind="stable")[:top]
    drawn = np.random.default_rng(seed).choice(n, size=min(n, math.ceil(share * n)), replace=False)
    return np.union1d(ranked, drawn).astype(np.intp)


def audit_attribution(
    attribution: ArrayLike,
    exact: ArrayLike,
    screened: ArrayLike,
    *,
    smallest_effect: float,
) -> AttributionAudit:
    """Compare first-order attributions with exact effects on the same cells [cells].

    `screened` bool [cells]: the screen would keep the cell. Raises UserError for unequal lengths.
    """
    from scipy.stats import spearmanr

    rough, true = (np.asarray(x, dtype=np.float64) for x in (attribution, exact))
    kept = np.asarray(screened, dtype=bool)
    if not rough.shape == true.shape == kept.shape:
        raise UserError(
            f"attribution {rough.shape}, exact {true.shape}, screened {kept.shape} differ in shape"
        )
    finite = np.isfinite(rough) & np.isfinite(true)
    rough_f, true_f = rough[finite], true[finite]
    varied = len(true_f) > 2 and np.ptp(rough_f) > 0 and np.ptp(true_f) > 0
    rank = float(np.asarray(spearmanr(rough_f, true_f)[0])) if varied else math.nan
    large = np.abs(true) > smallest_effect
    missed = large & ~kept
    n_large, n_missed = int(large.sum()), int(missed.sum())
    return AttributionAudit(
        n_cells=len(true),
        spearman=rank,
        sign_agreement=float(np.mean(np.sign(rough_f) == np.sign(true_f)))
        if len(true_f)
        else math.nan,
        worst_error=float(np.abs(rough_f - true_f).max()) if len(true_f) else math.nan,
        n_large=n_large,
        n_missed=n_missed,
        false_negative_rate=n_missed / n_large if n_large else math.nan,
        passed=bool(rank >= MIN_RANK_CORRELATION and n_missed == 0 and finite.all()),
    )
