"""Attention to chosen tokens against the uniform causal null, and against matched control words."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def attention_lift(
    on_set: ArrayLike, set_size: ArrayLike, on_visible: ArrayLike, n_visible: ArrayLike
) -> FloatArray:
    """How many times its share a set of tokens gets: (Σ_S A / |S|) / (Σ_V A / |V|).

    `on_set` the attention paid to the set S, `on_visible` to all tokens V that the query may look
    at, both without the first token, whose attention is a sink and no reading; `set_size`,
    `n_visible` numbers of tokens. Equal to the share of S, renormalised without the sink, over
    |S|/|V|: a typo splits a word into more tokens, and more tokens get more. Constant attention
    gives exactly 1 (in float64, for float32 attention). NaN for an empty set or no attention.
    """
    part, size, whole, count = (
        np.asarray(value, dtype=np.float64) for value in (on_set, set_size, on_visible, n_visible)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = (part / size) / (whole / count)
    return np.where((size > 0) & (whole > 0), lift, np.nan)


def log_lift_contrast(
    changed: ArrayLike, clean: ArrayLike, control: ArrayLike, clean_control: ArrayLike
) -> FloatArray:
    """Difference in differences of log lifts: [ln changed − ln clean] − [the same of controls].

    Lifts of the edited words in the perturbed and the clean prompt, and of untouched words matched
    to them. NaN where a lift is undefined or 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = [np.log(np.asarray(v, dtype=np.float64)) for v in (changed, clean)]
        controls = [np.log(np.asarray(v, dtype=np.float64)) for v in (control, clean_control)]
        found = (logs[0] - logs[1]) - (controls[0] - controls[1])
    return np.where(np.isfinite(found), found, np.nan)
