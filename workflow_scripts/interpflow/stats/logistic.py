"""Penalised logistic regressions of many 0/1 targets on the same features at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

FloatArray = NDArray[np.float64]

# Penalties per row on standardised features, a decade apart, strongest first: each fit starts
# from the one before it.
LOGISTIC_PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3)
# Largest component of the gradient of the mean loss, in nats per standard deviation.
_GRADIENT = 1e-5
_MAX_STEPS = 2000
_ROUNDING = 1e-6

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogisticFit:
    """Weights [d, t] of the raw features and intercepts [t]."""

    weights: FloatArray
    intercepts: FloatArray

    def log_odds(self, features: FloatArray) -> FloatArray:
        """Log-odds [n, t] of `features` [n, d]."""
        return features @ self.weights + self.intercepts


@dataclass(frozen=True)
class Standardised:
    """Features [n, d] with mean 0 and variance 1, and how they were made; constant ones are 0."""

    values: FloatArray
    centre: FloatArray
    inverse: FloatArray

    @classmethod
    def of(cls, features: FloatArray) -> Standardised:
        """Standardise the columns of `features` [n, d]."""
        centre = features.mean(axis=0)
        values = features - centre
        spread = np.sqrt((values**2).mean(axis=0))
        size = np.sqrt((features**2).mean(axis=0))
        varies = spread > _ROUNDING * size
        inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
        return cls(values * inverse, centre, inverse)

    def raw(self, weights: FloatArray, intercepts: FloatArray) -> LogisticFit:
        """The fit for features as they came."""
        scaled = weights * self.inverse[:, None]
        return LogisticFit(scaled, intercepts - self.centre @ scaled)


def intercept_log_odds(targets: FloatArray) -> FloatArray:
    """Log-odds of the share of ones [t]; half an observation added where a side is empty."""
    ones, n = targets.sum(axis=0), len(targets)
    added = np.where((ones == 0) | (ones == n), 0.5, 0.0)
    return np.log((ones + added) / (n - ones + added))


def logistic_path(
    features: FloatArray, targets: FloatArray, penalties: Sequence[float] = LOGISTIC_PENALTIES
) -> Iterator[LogisticFit]:
    """Fits at each penalty of mean log loss + penalty/2 · ‖weights‖², intercept free.

    `features` [n, d], `targets` [n, t] of 0 and 1. Newton steps with the constant bound
    XᵀX/4 in place of the Hessian (Böhning & Lindsay 1988), one factorisation for all targets,
    accelerated with restarts (O'Donoghue & Candès 2015). A target without both values keeps
    weights 0.
    """
    from scipy.linalg import cho_factor, cho_solve

    standard = Standardised.of(features)
    x, n = standard.values, len(targets)
    quarter = x.T @ x / 4
    varied = np.flatnonzero(np.ptp(targets, axis=0) > 0)
    weights = np.zeros((x.shape[1], targets.shape[1]))
    intercepts = intercept_log_odds(targets)
    for penalty in penalties:
        bound = quarter.copy()
        bound[np.diag_indices(len(bound))] += penalty * n
        factor = cho_factor(bound, lower=True, overwrite_a=True, check_finite=False)
        active = varied
        point = np.vstack([weights, intercepts])
        ahead, momentum = point.copy(), np.ones(targets.shape[1])
        for _ in range(_MAX_STEPS):
            if not len(active):
                break
            at = ahead[:, active]
            left = targets[:, active] - expit(x @ at[:-1] + at[-1])
            uphill = np.vstack([x.T @ left - penalty * n * at[:-1], left.sum(axis=0)])
            step = np.vstack(
                [cho_solve(factor, uphill[:-1], check_finite=False), uphill[-1:] * 4 / n]
            )
            moved = at + step
            change = moved - point[:, active]
            # Momentum that points against the gradient has overshot: start again from here.
            kept = (uphill * change).sum(axis=0) > 0
            before = momentum[active]
            after = np.where(kept, (1 + np.sqrt(1 + 4 * before**2)) / 2, 1.0)
            share = np.where(kept, (before - 1) / after, 0.0)
            point[:, active] = moved
            ahead[:, active] = moved + share * change
            momentum[active] = after
            active = active[np.abs(uphill).max(axis=0) > _GRADIENT * n]
        else:
            _log.warning("%d logistic fits stopped before they converged", len(active))
        weights, intercepts = point[:-1], point[-1]
        yield standard.raw(weights, intercepts)
