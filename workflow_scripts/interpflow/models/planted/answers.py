"""How strongly each answer shows in the logits of a planted model."""

from __future__ import annotations

import numpy as np

from interpflow.models.planted.features import FEATURES, N_FEATURES, Array, reading
from interpflow.models.planted.vocabulary import COUNTS, LETTERS, NO_MATCH, TOKEN_ID, TOKENS

WEAKEST, RANGE = 6.0, 4.0
_GOLDEN = (5**0.5 - 1) / 2


def answer_strengths() -> dict[str, float]:
    """Logit of every answer when the model gives it in full.

    Sums of two differ (multiples i² of the golden ratio, modulo 1), so that effects differ from
    pair to pair as they do in a trained model: a test on signs of effects must not meet ties.
    """
    names = (*LETTERS, *COUNTS, NO_MATCH)
    return {name: WEAKEST + RANGE * ((i * i * _GOLDEN) % 1) for i, name in enumerate(names, 1)}


def unembedding() -> Array:
    """Weights [vocabulary, D_MODEL] from answer features to logits; input-only tokens stay at 0."""
    weights = np.zeros((len(TOKENS), N_FEATURES))
    strengths = answer_strengths()
    for target, names in (
        ("letter_answer", LETTERS),
        ("count_answer", COUNTS),
        ("no_match_answer", (NO_MATCH,)),
    ):
        for i, name in enumerate(names):
            weights[TOKEN_ID[name], FEATURES[target].start + i] = strengths[name]
    return reading(weights)
