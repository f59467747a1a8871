"""What a probe could know without the model: features of position and of token identity alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError

FloatArray = NDArray[np.float64]

# Up to this many positions each has its own column; more are smoothed by a cubic spline.
MAX_POSITION_COLUMNS = 100
SPLINE_KNOTS = 20
# Token types with a column of their own, the most frequent ones; the rest share one.
MAX_TOKEN_COLUMNS = 500


def position_features(positions: ArrayLike) -> FloatArray:
    """Features of the position alone [rows, columns]: one-hot, or a cubic spline of many positions.

    `positions` [rows] integers. The knots of the spline are quantiles of the positions.
    """
    places = np.asarray(positions)
    distinct, codes = np.unique(places, return_inverse=True)
    if len(distinct) <= MAX_POSITION_COLUMNS:
        return np.eye(len(distinct))[codes.reshape(-1)]
    from scipy.interpolate import BSpline

    knots = np.unique(np.quantile(places, np.linspace(0, 1, SPLINE_KNOTS)))
    padded = np.r_[[knots[0]] * 3, knots, [knots[-1]] * 3]
    return BSpline.design_matrix(places.astype(np.float64), padded, 3).toarray()


def token_features(tokens: Sequence[Hashable]) -> FloatArray:
    """One-hot identity of each row's own token [rows, columns], rare tokens in one column."""
    codes, n_columns = _token_columns(tokens)
    return np.eye(n_columns)[codes]


def token_bag_features(
    tokens: Sequence[Hashable], examples: Sequence[Hashable], positions: ArrayLike
) -> FloatArray:
    """Counts of the tokens of the example up to and including each row [rows, columns].

    Only tokens that are among the rows count: with a few rows per example the bag is of these.
    Raises UserError for misfitting lengths.
    """
    places = np.asarray(positions)
    if not len(tokens) == len(examples) == len(places):
        raise UserError(
            f"{len(tokens)} tokens, {len(examples)} examples and {len(places)} positions differ"
        )
    codes, n_columns = _token_columns(tokens)
    ids = np.unique(np.asarray([str(example) for example in examples]), return_inverse=True)[1]
    order = np.lexsort((places, ids))
    counts = np.cumsum(np.eye(n_columns)[codes[order]], axis=0)
    starts = np.flatnonzero(np.r_[True, np.diff(ids[order]) != 0])
    before = np.vstack([np.zeros((1, n_columns)), counts])[starts]
    lengths = np.diff(np.r_[starts, len(order)])
    bags = np.empty_like(counts)
    bags[order] = counts - np.repeat(before, lengths, axis=0)
    return bags


def _token_columns(tokens: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    """Column of each token, the most frequent first, and the number of columns."""
    names = np.asarray([str(token) for token in tokens])
    _, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.intp)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    columns = np.minimum(rank[codes.reshape(-1)], MAX_TOKEN_COLUMNS)
    return columns, min(len(counts), MAX_TOKEN_COLUMNS + 1)
