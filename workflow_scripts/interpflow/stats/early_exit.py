"""From which depth on a lens reads what the model says in the end.

Depths run from 0, the embedding, to L, the number of blocks, where the lens is the model. Depth is
counted in blocks that ran before: an exit at L means that every block was needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError

IntArray = NDArray[np.intp]


def first_match_depth(top: ArrayLike) -> IntArray:
    """First depth [item] whose most probable token is the final one.

    `top` [item, depth]: most probable tokens, the last column those of the model. Optimistic: a
    lens may be right by chance and change its mind again; see `stable_depth`.
    """
    tokens = _checked(top)
    return np.argmax(tokens == tokens[:, -1:], axis=1)


def stable_depth(top: ArrayLike) -> IntArray:
    """First depth [item] from which on the most probable token is the final one; `top` as in
    `first_match_depth`."""
    tokens = _checked(top)
    return _from_then_on(tokens == tokens[:, -1:])


def kl_depth(kl: ArrayLike, bound: float) -> IntArray:
    """First depth [item] from which on the divergence `kl` [item, depth] is below `bound`.

    Nats; the last column is the model's divergence from itself. NaN counts as not below.
    """
    values = _checked(kl)
    below = values < bound
    below[:, -1] = True  # the last depth is the model, whatever rounding says
    return _from_then_on(below)


def _checked(values: ArrayLike) -> NDArray[Any]:
    found = np.asarray(values)
    if found.ndim != 2 or found.shape[1] < 1:
        raise UserError(f"exit depths need values [item, depth], got shape {found.shape}")
    return found


def _from_then_on(holds: NDArray[np.bool_]) -> IntArray:
    """First depth from which on a condition [item, depth] holds; it holds at the last."""
    n_depths = holds.shape[1]
    ended = np.argmin(holds[:, ::-1], axis=1)  # depths from the end on that hold
    return np.where(holds.all(axis=1), 0, n_depths - ended)
