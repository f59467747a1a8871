"""How far a representation moved: paired distances, and debiased CKA of whole populations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.quantiles import t_quantile
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
    undefined,
)
from interpflow.stats.units import codes_of

FloatArray = NDArray[np.float64]

DEFAULT_SUBSAMPLES = 200
# The unbiased estimator divides by n − 3 (Song et al. 2012).
MIN_ROWS = 4
# Numbers held at once while subsampling: 2e6 float64 is 16 MB per temporary.
_BLOCK = 2_000_000


def cosine_distance(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """1 − cos of rows [n, d] each, [n], as half the squared distance of the unit vectors.

    Exactly 0 for equal rows, which 1 − a·b is not. NaN where a row has no length.
    """
    one, two = _rows(first, second)
    with np.errstate(invalid="ignore", divide="ignore"):
        one = one / np.linalg.norm(one, axis=1, keepdims=True)
        two = two / np.linalg.norm(two, axis=1, keepdims=True)
    return 0.5 * ((one - two) ** 2).sum(axis=1)


def relative_norm(changed: ArrayLike, base: ArrayLike) -> FloatArray:
    """‖changed − base‖ / ‖base‖ of rows [n, d] each, [n]; NaN where the base has no length."""
    one, two = _rows(changed, base)
    size = np.linalg.norm(two, axis=1)
    return np.divide(
        np.linalg.norm(one - two, axis=1), size, out=np.full(len(two), np.nan), where=size > 0
    )


def debiased_cka(first: ArrayLike, second: ArrayLike) -> float:
    """Linear centred kernel alignment of representations [n, p] and [n, q] of the same n rows.

    From the unbiased HSIC of Song et al. (2012), as Nguyen et al. (2021) put it into the CKA of
    Kornblith et al. (2019): 1 for equal geometry (rotation, scale and shift do not matter), 0 in
    the mean for unrelated ones, however many features there are. NaN where one does not vary.
    Raises UserError for misfitting shapes or fewer than four rows.
    """
    grams = _grams(first, second)
    return float(_alignment(grams, np.ones((1, len(grams[0]))))[0])


def cka_estimate(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    quantity: str = "debiased CKA",
    level: float = 0.95,
    n_subsamples: int = DEFAULT_SUBSAMPLES,
    seed: int,
) -> Estimate:
    """`debiased_cka` with an interval from subsamples of half of the rows (whole clusters).

    Rows are never drawn twice: duplicates look alike and would raise the alignment. The spread of
    halves without replacement estimates the standard error itself (delete-half jackknife, Shao &
    Wu 1989); the interval is ± t_{G−1} · SE, cut at 1. Errors as `debiased_cka`.
    """
    grams = _grams(first, second)
    n = len(grams[0])
    codes, n_groups = codes_of(clusters, n)
    value = float(_alignment(grams, np.ones((1, n)))[0])
    counts: dict[str, Any] = {
        "n_units": n,
        "n_clusters": None if clusters is None else n_groups,
        "ci_level": level,
        "test": "subsampled_halves",
        "n_resamples": n_subsamples,
        "seed": seed,
    }
    if math.isnan(value):
        return undefined(quantity, DEGENERATE_VARIANCE, **counts)
    half = n_groups // 2
    if half < MIN_ROWS:
        return Estimate(quantity=quantity, estimate=value, flags=(TOO_FEW_CLUSTERS,), **counts)
    rng = np.random.default_rng(seed)
    drawn = []
    step = max(1, _BLOCK // n)
    for start in range(0, n_subsamples, step):
        size = min(step, n_subsamples - start)
        order = rng.permuted(np.tile(np.arange(n_groups), (size, 1)), axis=1)
        chosen = np.zeros((size, n_groups))
        np.put_along_axis(chosen, order[:, :half], 1.0, axis=1)
        drawn.append(_alignment(grams, chosen[:, codes]))
    draws = np.concatenate(drawn)
    draws = draws[np.isfinite(draws)]
    few = (TOO_FEW_CLUSTERS,) if n_groups < MIN_CLUSTERS else ()
    if len(draws) < 2:
        few = (*few, DEGENERATE_VARIANCE)
        return Estimate(quantity=quantity, estimate=value, flags=few, **counts)
    error = float(draws.std(ddof=1)) * math.sqrt(half / (n_groups - half))
    reach = t_quantile(0.5 + level / 2, n_groups - 1) * error
    return Estimate(
        quantity=quantity,
        estimate=value,
        ci_low=value - reach,
        ci_high=min(1.0, value + reach),
        flags=few,
        **counts,
    )


def _rows(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, two = (np.asarray(part, dtype=np.float64) for part in (first, second))
    if one.ndim != 2 or one.shape != two.shape:
        raise UserError(f"states of shapes {one.shape} and {two.shape} are not paired rows")
    return one, two


def _grams(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Gram matrices [n, n] of both, diagonals 0."""
    grams = []
    for part in (first, second):
        x = np.asarray(part, dtype=np.float64)
        if x.ndim != 2 or len(x) != len(np.asarray(first)) or len(x) < MIN_ROWS:
            raise UserError(
                f"CKA needs two matrices of the same rows, at least {MIN_ROWS}, "
                f"got {np.shape(first)} and {np.shape(second)}"
            )
        # The estimator does not see a shift; without it fewer digits cancel.
        x = x - x.mean(axis=0)
        gram = x @ x.T
        np.fill_diagonal(gram, 0.0)
        grams.append(gram)
    return grams[0], grams[1]


def _alignment(grams: tuple[FloatArray, FloatArray], chosen: FloatArray) -> FloatArray:
    """CKA [b] of the subsets of rows marked 1 in `chosen` [b, n]."""
    one, two = grams
    cross = _hsic(one, two, chosen)
    with np.errstate(invalid="ignore", divide="ignore"):
        return cross / np.sqrt(_hsic(one, one, chosen) * _hsic(two, two, chosen))


def _hsic(one: FloatArray, two: FloatArray, chosen: FloatArray) -> FloatArray:
    """Unbiased HSIC [b] without its factor 1/(n(n − 3)), from zero-diagonal Gram matrices."""
    n = chosen.sum(axis=1)
    trace = ((chosen @ (one * two)) * chosen).sum(axis=1)
    rows_one = (chosen @ one) * chosen
    rows_two = rows_one if two is one else (chosen @ two) * chosen
    total = rows_one.sum(axis=1) * rows_two.sum(axis=1)
    shared = (rows_one * rows_two).sum(axis=1)
    return trace + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * shared
