"""Levels of an open-ended sequence of tests, each set from the decisions before it.

LORD++ (Ramdas et al. 2017), SAFFRON (Ramdas et al. 2018), e-LOND (Xu & Ramdas 2024) and alpha
spending (Foster & Stine 2008). The first two need independent p-values: tests on disjoint slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError

Method = Literal["lord", "saffron", "e_lond", "spending"]
FloatArray = NDArray[np.float64]

# Constant of Javanmard & Montanari's (2018) sequence, for which the infinite sum is 1.
_LORD_CONSTANT = 0.07720838
_ZETA_1_6 = 2.2857656527  # ζ(1.6), normaliser of SAFFRON's sequence
_SAFFRON_EXPONENT = 1.6
_CANDIDATE = 0.5  # λ of SAFFRON: a larger p-value costs nothing


@dataclass(frozen=True)
class Decision:
    """A test that is over. p_value: NaN for a test that could not be computed."""

    p_value: float
    rejected: bool


@dataclass(frozen=True)
class OnlineLevels:
    """A rule for the level of the next test.

    gamma [T]: shares of alpha for tests 1…T, non-increasing, their sum at most 1; after T tests
    the level is 0. initial: w0, what LORD++ and SAFFRON may spend before the first rejection.
    """

    method: Method
    alpha: float
    initial: float
    gamma: tuple[float, ...]

    def next_level(self, decisions: Sequence[Decision]) -> float:
        """Level of the test after these: reject if its p-value is at most this.

        With e_lond: of the p-value whose calibrated e-value is judged, see `p_level`.
        """
        level = _RULES[self.method](self, decisions)
        return p_level(level) if self.method == "e_lond" else level

    def next_e_level(self, decisions: Sequence[Decision]) -> float:
        """Level α_t of e-LOND for an e-value: reject if e ≥ 1/α_t."""
        return _e_lond(self, decisions)

    def share(self, t: int) -> float:
        """γ_t, 0 outside 1…T."""
        return self.gamma[t - 1] if 1 <= t <= len(self.gamma) else 0.0


def online_levels(
    method: Method, alpha: float, *, horizon: int, initial: float | None = None
) -> OnlineLevels:
    """A rule whose shares are normalised over the `horizon` tests that are planned at most: of the
    infinite sequences most would never be spent. initial: w0, alpha / 2 unless given.

    Raises UserError for an unknown method, alpha or initial out of range, an empty horizon.
    """
    if method not in _RULES:
        raise UserError(
            f"there is no online method {method!r}", remedy=f"use one of {', '.join(_RULES)}"
        )
    initial = alpha / 2 if initial is None else initial
    if not 0 < alpha < 1 or not 0 < initial <= alpha or horizon < 1:
        raise UserError(
            f"no levels for alpha {alpha}, initial {initial} over {horizon} tests",
            where="online levels",
            remedy="0 < initial ≤ alpha < 1, and at least one test",
        )
    gamma = GAMMAS[method](horizon)
    return OnlineLevels(method, alpha, initial, tuple((gamma / gamma.sum()).tolist()))


def javanmard_montanari(n: int) -> FloatArray:
    """γ_j ∝ ln(max(j, 2)) / (j · exp √ln j), [n]; sums to 1 over all j."""
    j = np.arange(1, n + 1, dtype=np.float64)
    return _LORD_CONSTANT * np.log(np.maximum(j, 2)) / (j * np.exp(np.sqrt(np.log(j))))


def power_law(n: int) -> FloatArray:
    """γ_j = j^−1.6 / ζ(1.6), [n]; sums to 1 over all j."""
    return np.arange(1, n + 1, dtype=np.float64) ** -_SAFFRON_EXPONENT / _ZETA_1_6


def inverse_square(n: int) -> FloatArray:
    """γ_j = 6 / (π² j²), [n]; sums to 1 over all j."""
    return 6 / (math.pi * np.arange(1, n + 1, dtype=np.float64)) ** 2


def p_level(e_level: float) -> float:
    """The p-value whose calibrated e-value ½·p^−½ (Vovk & Wang 2021) is 1/`e_level`."""
    return (e_level / 2) ** 2


def e_value(p_value: float) -> float:
    """Calibrated e-value ½·p^−½: its mean is at most 1 if the p-value is valid."""
    return 0.5 / math.sqrt(p_value) if p_value > 0 else math.inf


def _rejection_times(decisions: Sequence[Decision]) -> list[int]:
    return [t for t, decision in enumerate(decisions, 1) if decision.rejected]


def _spending(levels: OnlineLevels, decisions: Sequence[Decision]) -> float:
    return levels.alpha * levels.share(len(decisions) + 1)


def _lord(levels: OnlineLevels, decisions: Sequence[Decision]) -> float:
    t = len(decisions) + 1
    if t > len(levels.gamma):
        return 0.0
    level = levels.initial * levels.share(t)
    for number, time in enumerate(_rejection_times(decisions)):
        earned = levels.alpha - levels.initial if number == 0 else levels.alpha
        level += earned * levels.share(t - time)
    return level


def _saffron(levels: OnlineLevels, decisions: Sequence[Decision]) -> float:
    t = len(decisions) + 1
    if t > len(levels.gamma):
        return 0.0
    candidates = [decision.p_value <= _CANDIDATE for decision in decisions]  # NaN is none

    def share(since: int) -> float:
        return levels.share(t - since - sum(candidates[since:]))

    total = levels.initial * share(0)
    for number, time in enumerate(_rejection_times(decisions)):
        earned = levels.alpha - levels.initial if number == 0 else levels.alpha
        total += earned * share(time)
    return min(_CANDIDATE, (1 - _CANDIDATE) * total)


def _e_lond(levels: OnlineLevels, decisions: Sequence[Decision]) -> float:
    return levels.alpha * levels.share(len(decisions) + 1) * (len(_rejection_times(decisions)) + 1)


_RULES: dict[str, Callable[[OnlineLevels, Sequence[Decision]], float]] = {
    "lord": _lord,
    "saffron": _saffron,
    "e_lond": _e_lond,
    "spending": _spending,
}
GAMMAS: dict[str, Callable[[int], FloatArray]] = {
    "lord": javanmard_montanari,
    "saffron": power_law,
    "e_lond": inverse_square,
    "spending": inverse_square,
}
