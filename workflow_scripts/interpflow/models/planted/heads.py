"""What the planted attention heads do, as weights in features.

Every live head of an architecture has the same keys and values (`HeadLayout`, `head_values`), so
that heads which share keys and values (grouped heads) can do different things: they differ in what
they ask for (query) and in what they write (output).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interpflow.models.planted.features import (
    FEATURES,
    LETTER_FEATURES,
    N_FEATURES,
    Array,
    constant_row,
    select,
    token_feature,
)
from interpflow.models.planted.vocabulary import LETTERS, PROMPT_LENGTH, START

HEAD_DIM = 32
# Attention logit of what a head looks for. What it does not look for is at least 0.2 · SHARPNESS
# below: e⁻¹⁰⁴ is 0 in float32.
SHARPNESS = 512.0
# Where a head finds nothing it looks at the start, whose value is 0.
SINK = SHARPNESS / 2
# Frequencies of the rotary embedding are ROPE_THETA^(−k/16) = 10⁻ᵏ for the pair k of dimensions
# (k, k + 16), in radians per position.
ROPE_THETA = 1e16
# Pairs whose product tells how far apart two positions are. Contents are compared in pairs from 6
# on, which turn by less than 2·10⁻⁵ over a whole prompt.
_DISTANCE_PAIRS = (0, 1)
_FIRST_SLOW_PAIR = 6


def embedded_position_layout() -> HeadLayout:
    """Keys for a model with one-hot positions: the previous token is found by its position."""
    letters, start = slice(0, len(LETTERS)), len(LETTERS)
    places = slice(start + 1, start + 1 + PROMPT_LENGTH)
    key, query = np.zeros((HEAD_DIM, N_FEATURES)), np.zeros((HEAD_DIM, N_FEATURES))
    key[places] = select(FEATURES["position"])
    query[places][:-1] = select(FEATURES["position"], SHARPNESS)[1:]
    return _with_contents(HeadLayout(key, query, letters, start))


def rotary_layout() -> HeadLayout:
    """Keys for a model with rotary positions: the previous token is one turn back.

    With key 1 and query e^(−iω) in the pair of frequency ω, the attention logit is Σ cos(ω(Δ − 1))
    at distance Δ: 2 at Δ = 1, and at most 1.79 at any other 0 ≤ Δ < 16.
    """
    letters = slice(_FIRST_SLOW_PAIR, _FIRST_SLOW_PAIR + len(LETTERS))
    key, query = np.zeros((HEAD_DIM, N_FEATURES)), np.zeros((HEAD_DIM, N_FEATURES))
    for pair in _DISTANCE_PAIRS:
        turn = ROPE_THETA ** (-2 * pair / HEAD_DIM)
        key[pair] = constant_row()
        query[pair] = constant_row(SHARPNESS * np.cos(turn))
        query[pair + HEAD_DIM // 2] = constant_row(-SHARPNESS * np.sin(turn))
    # The last dimension is the partner of a letter; that pair turns by 10⁻¹⁴.
    return _with_contents(HeadLayout(key, query, letters, HEAD_DIM - 1))


def head_values() -> Array:
    """Values [HEAD_DIM, N_FEATURES]: the letter of the token, and whether it is a marker."""
    rows = np.zeros((HEAD_DIM, N_FEATURES))
    rows[: len(LETTERS)] = select(LETTER_FEATURES)
    rows[len(LETTERS), FEATURES["marker"]] = 1
    return rows


def previous_token_head(layout: HeadLayout, target: str) -> HeadWeights:
    """Writes the letter one position before."""
    return HeadWeights(layout.previous_query, _letters_into(target))


def induction_head(layout: HeadLayout, target: str) -> HeadWeights:
    """Looks for the place that follows an earlier occurrence of this letter, and writes the letter
    there; nothing where there is none."""
    query = np.zeros((HEAD_DIM, N_FEATURES))
    query[layout.letters] = select(LETTER_FEATURES, SHARPNESS)
    query[layout.start] = constant_row(SINK)
    return HeadWeights(query, _letters_into(target))


def letter_average_head(layout: HeadLayout, target: str) -> HeadWeights:
    """Writes the mean of the letters up to here."""
    return HeadWeights(np.zeros_like(layout.previous_query), _letters_into(target))


def marker_average_head(layout: HeadLayout, target: str) -> HeadWeights:
    """Writes the share of markers up to here: at the end of a prompt, their number / 16."""
    output = np.zeros((N_FEATURES, HEAD_DIM))
    output[FEATURES[target].start, len(LETTERS)] = 1
    return HeadWeights(np.zeros_like(layout.previous_query), output)


def _with_contents(layout: HeadLayout) -> HeadLayout:
    """Adds to the keys what they show besides positions."""
    layout.key[layout.letters] += select(FEATURES["previous"])
    layout.key[layout.start, token_feature(START)] += 1
    return layout


def _letters_into(target: str) -> Array:
    """Outputs [N_FEATURES, HEAD_DIM] that write the letters found."""
    output = np.zeros((N_FEATURES, HEAD_DIM))
    output[FEATURES[target], : len(LETTERS)] = np.eye(len(LETTERS))
    return output


@dataclass(frozen=True, eq=False)
class HeadLayout:
    """Which dimensions of a head hold what.

    key, previous_query: [HEAD_DIM, N_FEATURES], the latter of a head that looks one position back.
    letters: the dimensions that hold the previous letter; start: 1 at the start.
    """

    key: Array
    previous_query: Array
    letters: slice
    start: int


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """query [HEAD_DIM, N_FEATURES], so that query · key is the attention logit (the division by
    √HEAD_DIM is not in it); output [N_FEATURES, HEAD_DIM]."""

    query: Array
    output: Array
