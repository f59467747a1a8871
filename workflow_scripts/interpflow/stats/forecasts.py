"""How good stated probabilities were: Brier and log score beside those of the base rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from interpflow.errors import UserError


@dataclass(frozen=True)
class ForecastScore:
    """Scores of `n` forecasts, smaller is better; NaN without forecasts.

    log_score: mean −ln of the probability given to what happened, infinite for a certainty that
    was wrong. base_rate_…: of the forecaster who always says the share that happened, which only
    hindsight knows, so that it is hard to beat.
    """

    n: int
    brier: float
    log_score: float
    base_rate: float
    base_rate_brier: float
    base_rate_log_score: float

    @property
    def skill(self) -> float:
        """1 − Brier / that of the base rate; NaN where the base rate is never wrong."""
        return 1 - self.brier / self.base_rate_brier if self.base_rate_brier > 0 else math.nan


def forecast_score(probabilities: ArrayLike, outcomes: ArrayLike) -> ForecastScore:
    """Scores of `probabilities` [n] in [0, 1] of events that happened or not, `outcomes` [n].

    Raises UserError for lengths that differ and for a probability out of range.
    """
    stated = np.asarray(probabilities, dtype=np.float64).reshape(-1)
    happened = np.asarray(outcomes, dtype=bool).reshape(-1)
    if stated.shape != happened.shape or not np.all((stated >= 0) & (stated <= 1)):
        raise UserError(
            f"{len(stated)} forecasts of {len(happened)} events",
            where="forecasts",
            remedy="give a probability from 0 to 1 for each event",
        )
    if len(stated) == 0:
        return ForecastScore(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    rate = float(happened.mean())
    constant = np.full(len(stated), rate)
    return ForecastScore(
        n=len(stated),
        brier=_brier(stated, happened),
        log_score=_log_score(stated, happened),
        base_rate=rate,
        base_rate_brier=_brier(constant, happened),
        base_rate_log_score=_log_score(constant, happened),
    )


def _brier(stated: np.ndarray, happened: np.ndarray) -> float:
    """Mean squared distance of the probability from what happened (Brier 1950)."""
    return float(np.mean((stated - happened) ** 2))


def _log_score(stated: np.ndarray, happened: np.ndarray) -> float:
    given = np.where(happened, stated, 1 - stated)
    with np.errstate(divide="ignore"):
        return float(-np.log(given).mean())
