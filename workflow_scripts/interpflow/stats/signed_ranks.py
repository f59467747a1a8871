"""Paired differences by ranks: Wilcoxon's test with zeros, Hodges–Lehmann, effect sizes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]

# The exact law of T₊ has about n²·2 points; beyond this the normal approximation is exact enough.
_MOST_EXACT = 200
# Walsh averages held at once grow with n²/2: 4,000 differences are 64 MB.
_MOST_WALSH = 4000


def _finite(differences: ArrayLike) -> FloatArray:
    data = np.asarray(differences, dtype=np.float64).reshape(-1)
    return data[np.isfinite(data)]


def mid_ranks(values: ArrayLike) -> FloatArray:
    """Ranks [n] from 1, ties sharing the mean of theirs."""
    _, codes, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]


def wilcoxon_p(differences: ArrayLike, *, pratt: bool = True) -> float:
    """Two-sided signed-rank p of `differences` [n] against symmetry about 0 (Wilcoxon 1945).

    `pratt`: zeros take part in the ranking and are then left out (Pratt 1959); else they are left
    out before. Ties share mid-ranks. Exact up to 200 differences, else normal with the variance of
    the ranks as tied. 1 where all are zero, NaN for none.
    """
    data = _finite(differences)
    if len(data) == 0:
        return math.nan
    if not pratt:
        data = data[data != 0]
    ranks = mid_ranks(np.abs(data))
    ranks, positive = ranks[data != 0], (data > 0)[data != 0]
    if len(ranks) == 0:
        return 1.0
    total = float(ranks[positive].sum())
    if len(ranks) > _MOST_EXACT:
        deviation = abs(total - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)
        return float(2 * ndtr(-deviation))
    doubled = np.rint(2 * ranks).astype(int)
    law = np.zeros(int(doubled.sum()) + 1)
    law[0] = 1.0
    for rank in doubled:
        law[rank:] = 0.5 * (law[rank:] + law[:-rank])
        law[:rank] *= 0.5
    lower = min(round(2 * total), int(doubled.sum()) - round(2 * total))
    return float(min(1.0, 2 * law[: lower + 1].sum()))


def hodges_lehmann(differences: ArrayLike) -> float:
    """Median of the Walsh averages (dᵢ + dⱼ)/2, i ≤ j (Hodges & Lehmann 1963); NaN for none.

    Of more than 4,000 differences every m-th in order is used, m the smallest that suffices.
    """
    data = np.sort(_finite(differences))
    if len(data) == 0:
        return math.nan
    data = data[:: math.ceil(len(data) / _MOST_WALSH)]
    first, second = np.triu_indices(len(data))
    return float(np.median(data[first] + data[second]) / 2)


def rank_biserial(differences: ArrayLike) -> float:
    """(T₊ − T₋)/(T₊ + T₋), zeros dropped (Kerby 2014): −1 all fall, 1 all rise; NaN without any."""
    data = _finite(differences)
    data = data[data != 0]
    if len(data) == 0:
        return math.nan
    ranks = mid_ranks(np.abs(data))
    return float((np.sign(data) * ranks).sum() / ranks.sum())


def hedges_factor(n: int) -> float:
    """1 − 3/(4(n − 1) − 1): what takes the small-sample bias out of d_z (Hedges 1981)."""
    return 1 - 3 / (4 * (n - 1) - 1) if n > 2 else math.nan


def standardized_mean(differences: ArrayLike, *, hedges: bool = True) -> float:
    """d_z = mean/sd of the differences, by default times Hedges' factor; NaN without spread."""
    data = _finite(differences)
    if len(data) < 2:
        return math.nan
    spread = float(data.std(ddof=1))
    if spread <= 1e-13 * abs(float(data.mean())):
        return math.nan
    return float(data.mean()) / spread * (hedges_factor(len(data)) if hedges else 1.0)
