"""Balance of soft covariates between the two sides of matched pairs: a design check, no test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Largest standardised difference of a balanced covariate (Austin 2009, the customary 0.1).
BALANCE_LIMIT = 0.1


@dataclass(frozen=True)
class Balance:
    """One covariate: its means on both sides, their standardised difference, within the limit?"""

    covariate: str
    mean_first: float
    mean_second: float
    smd: float
    n_first: int
    n_second: int
    passed: bool


def standardized_mean_difference(first: ArrayLike, second: ArrayLike) -> float:
    """(x̄1 − x̄2)/√((s1² + s2²)/2); 0 for equal constants, infinite for unequal ones.

    NaN with fewer than two finite values on a side.
    """
    a, b = (np.asarray(side, dtype=np.float64).reshape(-1) for side in (first, second))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if len(a) < 2 or len(b) < 2:
        return math.nan
    difference = float(a.mean() - b.mean())
    spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    if spread == 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / spread


def balance_table(
    first: Mapping[str, ArrayLike], second: Mapping[str, ArrayLike], *, limit: float = BALANCE_LIMIT
) -> tuple[Balance, ...]:
    """Balance of every covariate named in `first` (name → values [n]); NaN never passes."""
    rows = []
    for name, values in first.items():
        a = np.asarray(values, dtype=np.float64)
        b = np.asarray(second[name], dtype=np.float64)
        smd = standardized_mean_difference(a, b)
        rows.append(
            Balance(
                covariate=name,
                mean_first=float(np.nanmean(a)) if np.isfinite(a).any() else math.nan,
                mean_second=float(np.nanmean(b)) if np.isfinite(b).any() else math.nan,
                smd=smd,
                n_first=int(np.isfinite(a).sum()),
                n_second=int(np.isfinite(b).sum()),
                passed=bool(abs(smd) <= limit),
            )
        )
    return tuple(rows)
