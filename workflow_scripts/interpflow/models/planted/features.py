"""The residual stream of a planted model: named features, and how the norms are made harmless.

Weights are written in *features*: a weight that reads is [..., N_FEATURES], one that writes is
[N_FEATURES, ...]. Two things make every norm the identity on features:

* The stream holds every feature x twice, as +x and as −x. Its mean is 0, so LayerNorm subtracts
  nothing and does what RMSNorm does.
* The norms' ε is 2²⁴, far above the mean square v of the stream (below 1), and their gain is √ε:
  x·√ε/√(v + ε) = x·(1 − v/2ε) = x to 3·10⁻⁸. In float32 v + ε is ε, and nothing is rounded at all,
  because ε and gain are powers of 2.

So what is written to a feature that nothing reads changes nothing, not even through the norms. (The
other way, one huge constant feature that dominates the norm, was tried: LayerNorm then rounds its
variance, and the proofs of a model's map, relative to its largest number, lose their teeth.)
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from interpflow.models.planted.vocabulary import COUNTS, INPUT_TOKENS, LETTERS, PROMPT_LENGTH

Array = NDArray[np.float64]

N_FEATURES = 128
D_MODEL = 2 * N_FEATURES
NORM_EPSILON = 2.0**24
NORM_GAIN = NORM_EPSILON**0.5

_WIDTHS = {
    "constant": 1,  # 1 at every token
    "token": len(INPUT_TOKENS),  # one-hot token
    "position": PROMPT_LENGTH,  # one-hot position (only where positions are embedded)
    "previous": len(LETTERS),  # the letter one position before
    "marker": 1,  # 1 at a marker
    "marker_share": 1,  # markers so far / positions so far
    "copied": len(LETTERS),  # what followed the earlier occurrence of this letter
    "letter_answer": len(LETTERS),
    "no_match_answer": 1,
    "count_answer": len(COUNTS),
    "idle": len(LETTERS),  # written by parts that do not matter, read by nothing
}


def _slices() -> dict[str, slice]:
    found, start = {}, 0
    for name, width in _WIDTHS.items():
        found[name] = slice(start, start + width)
        start += width
    assert start <= N_FEATURES
    return found


FEATURES = MappingProxyType(_slices())
# The letters are the first of the input tokens.
LETTER_FEATURES = slice(FEATURES["token"].start, FEATURES["token"].start + len(LETTERS))


def token_feature(token: str) -> int:
    """Index of a token's one-hot feature."""
    return FEATURES["token"].start + INPUT_TOKENS.index(token)


def select(features: slice | list[int], scale: float = 1.0) -> Array:
    """Reads [n, N_FEATURES] of some features, one per row."""
    return scale * np.eye(N_FEATURES)[features]


def constant_row(scale: float = 1.0) -> Array:
    """A read [N_FEATURES] that gives `scale` at every position."""
    return select(FEATURES["constant"], scale)[0]


def reading(weight: Array) -> Array:
    """A read in features [..., N_FEATURES] as weights on the stream [..., D_MODEL]."""
    return np.concatenate([weight, -weight], axis=-1) / 2


def writing(weight: Array) -> Array:
    """A write in features [N_FEATURES, ...] as weights into the stream [D_MODEL, ...]."""
    return np.concatenate([weight, -weight], axis=0)


def token_embedding(vocab_size: int) -> Array:
    """Embedding [vocab_size, D_MODEL]: the constant, and the one-hot of input tokens."""
    rows = np.zeros((vocab_size, N_FEATURES))
    rows[:, FEATURES["constant"]] = 1
    rows[: len(INPUT_TOKENS), FEATURES["token"]] = np.eye(len(INPUT_TOKENS))
    return writing(rows.T).T


def position_embedding() -> Array:
    """Embedding [PROMPT_LENGTH, D_MODEL] of one-hot positions."""
    return writing(select(FEATURES["position"]).T).T
