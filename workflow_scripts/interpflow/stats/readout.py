"""Scalar read-outs of next-token logits: logit difference, probability, divergence, expectation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def log_softmax(logits: ArrayLike) -> FloatArray:
    """Log-probabilities over the last axis, in nats."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def logit_difference(logits: ArrayLike, correct: int, wrong: int) -> FloatArray:
    """z[correct] − z[wrong] over the last axis (nats of log-odds); blind to third tokens."""
    values = np.asarray(logits, dtype=np.float64)
    return values[..., correct] - values[..., wrong]


def kl_divergence(logits_p: ArrayLike, logits_q: ArrayLike) -> FloatArray:
    """KL(p ‖ q) in nats over the full last axis; sees mass that moves to third tokens."""
    log_p, log_q = log_softmax(logits_p), log_softmax(logits_q)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def expected_count(
    candidate_log_probs: ArrayLike, counts: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Expected count over the candidate set and the probability the set captures.

    `candidate_log_probs` [..., candidates] in nats (not renormalised), `counts` [candidates].
    """
    log_probs = np.asarray(candidate_log_probs, dtype=np.float64)
    shares = np.exp(log_softmax(log_probs))
    expectation = shares @ np.asarray(counts, dtype=np.float64)
    return expectation, np.exp(log_probs).sum(axis=-1)
