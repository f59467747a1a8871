"""What the planted MLPs do: sums of rectified reads, in features.

A rectified read relu(x) is made of the architecture's own activation as act(βx)/β: exact at 0 and
wherever |x| ≫ 1/β, for GELU and SiLU alike.
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
from interpflow.models.planted.vocabulary import COUNTS, LETTERS, MARKERS, PROMPT_LENGTH, QUERY

N_NEURONS = 32
ACTIVATION_SCALE = 4096.0
# A letter query without a match answers so: between a letter found (1) and one not found (0).
NO_MATCH_STRENGTH = 0.5


def marker_mlp() -> MlpWeights:
    """Says at every token whether it is a marker; writes the letters into what nothing reads."""
    reads = np.concatenate(
        [select([token_feature(marker) for marker in MARKERS]), select(LETTER_FEATURES)]
    )
    writes = np.zeros((N_FEATURES, len(reads)))
    writes[FEATURES["marker"], : len(MARKERS)] = 1
    writes[FEATURES["idle"], len(MARKERS) :] = np.eye(len(LETTERS))
    return MlpWeights(reads, writes)


def count_mlp() -> MlpWeights:
    """Turns the share of markers into their one-hot number, at the count query only.

    The answer m is the hat function of (share · 16): 1 at m, 0 at m ± 1, linear between. Letters
    are written into what nothing reads, so that the MLP is alive in every task.
    """
    knots = np.arange(-1, len(COUNTS) + 1) / PROMPT_LENGTH
    reads = np.zeros((len(knots), N_FEATURES))
    reads[:, FEATURES["marker_share"]] = 1
    reads -= np.outer(knots + 2, constant_row())
    reads[:, token_feature(QUERY)] = 2  # without the query every read is below 0
    reads = np.concatenate([reads, select(LETTER_FEATURES)])
    writes = np.zeros((N_FEATURES, len(reads)))
    for m in range(len(COUNTS)):
        hat = PROMPT_LENGTH * np.array([1, -2, 1])
        writes[FEATURES["count_answer"].start + m, m : m + 3] = hat
    writes[FEATURES["idle"], len(knots) :] = np.eye(len(LETTERS))
    return MlpWeights(reads, writes)


def letter_mlp() -> MlpWeights:
    """Turns the copied letter into the answer, clipped to 0 … 1: two copies say no more than one.
    At every letter a weaker answer says that there was no match."""
    copied = select(FEATURES["copied"])
    any_letter = select(LETTER_FEATURES).sum(axis=0, keepdims=True)
    reads = np.concatenate([copied, copied - constant_row(), any_letter, select(LETTER_FEATURES)])
    writes = np.zeros((N_FEATURES, len(reads)))
    n = len(LETTERS)
    writes[FEATURES["letter_answer"], :n] = np.eye(n)
    writes[FEATURES["letter_answer"], n : 2 * n] = -np.eye(n)
    writes[FEATURES["no_match_answer"], 2 * n] = NO_MATCH_STRENGTH
    writes[FEATURES["idle"], 2 * n + 1 :] = np.eye(n)
    return MlpWeights(reads, writes)


@dataclass(frozen=True, eq=False)
class MlpWeights:
    """writes · relu(reads · features): reads [neurons, N_FEATURES], writes [N_FEATURES, neurons],
    at most N_NEURONS of them."""

    reads: Array
    writes: Array
