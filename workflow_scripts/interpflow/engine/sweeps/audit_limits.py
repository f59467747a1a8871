"""How far a metric may move when no logit moves by more than `delta`.

With sup|z' - z| <= delta and s = softmax(z), to second order and safely (d is Delta):

- difference of two logits: a rounding error of both is taken together, |d| <= delta;
- probability p: the log odds move by at most 2 delta, so |d| <= 2 p (1 - p) delta + delta², and
  never more than delta / 2;
- KL(r || s): its gradient is s - r, whose sum of sizes is at most 2 and, by Pinsker's inequality,
  at most sqrt(2 KL); the Hessian is the covariance of s: |d| <= min(2, sqrt(2 KL)) delta + delta²;
- a mean of numbers v under s: the gradient is s_i (v_i - mean), whose sum of sizes is at most half
  the span of v: |d| <= span (delta / 2 + delta²);
- any other metric: delta, as if it were a logit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PROBABILITIES = ("probability", "captured_mass")
# Values are float64 functions of float32 logits: this much of a value is rounding.
ROUNDING = 1e-12


def largest_change(
    name: str, values: np.ndarray, delta: float, spans: Mapping[str, float]
) -> np.ndarray:
    """The largest change of a metric with these `values`, float64 of the same shape, by errors of
    the logits up to `delta`. spans: see `interpflow.engine.metrics.value_spans`."""
    values = np.asarray(values, dtype=np.float64)
    if name in PROBABILITIES:
        p = values.clip(0.0, 1.0)
        found = np.minimum(2 * p * (1 - p) * delta + delta**2, delta / 2)
    elif name == "kl":
        found = np.minimum(2.0, np.sqrt(2 * values.clip(min=0.0))) * delta + delta**2
    elif name in spans:
        found = np.full_like(values, spans[name] * (delta / 2 + delta**2))
    else:
        found = np.full_like(values, delta)
    return found + ROUNDING * np.abs(values)
