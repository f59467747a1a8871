"""What is predicted of a test: a direction with the smallest effect that counts, or an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interpflow.errors import UserError
from interpflow.stats import verdicts

WHERE = "prediction"


@dataclass(frozen=True)
class Prediction:
    """sign +1 or -1 with `smallest_effect` > 0; or sign 0 with the interval (low, high)."""

    sign: int
    smallest_effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    expected: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], smallest_effect: float | None) -> Prediction:
        """smallest_effect: taken where none is given. Raises UserError for half a prediction, or
        two."""
        within, sign, expected = given.get("within"), given.get("sign"), given.get("expected")
        if (within is None) == (sign is None):
            raise UserError(
                "a prediction is either a sign with a smallest effect or an interval",
                where=WHERE,
                remedy="give sign and smallest_effect, or within: [low, high]",
            )
        if within is not None:
            if not within[0] < within[1] or given.get("smallest_effect") is not None:
                raise UserError(
                    "within is [low, high] with low < high, and takes no smallest_effect",
                    where=WHERE,
                )
            return cls(0, low=float(within[0]), high=float(within[1]), expected=expected)
        effect = given.get("smallest_effect", smallest_effect)
        if effect is None:
            raise UserError(
                "a predicted sign needs the smallest effect that counts",
                where=f"{WHERE}.smallest_effect",
                remedy="give it in the metric's unit, greater than 0",
            )
        return cls(1 if sign == "increase" else -1, float(effect), expected=expected)

    @property
    def is_false_without_effect(self) -> bool:
        """Whether a difference of 0 contradicts it."""
        return self.sign != 0 or not self.low < 0 < self.high

    def judged_as(self) -> verdicts.Prediction:
        """The prediction as the verdict rule takes it."""
        if self.sign == 0:
            return verdicts.Within(self.low, self.high)
        return verdicts.Directed(1 if self.sign > 0 else -1, self.smallest_effect)

    def margin(self, effect: float) -> float:
        """How far inside the predicted region an effect lies; negative outside."""
        if self.sign == 0:
            return min(effect - self.low, self.high - effect)
        return self.sign * effect - self.smallest_effect

    def to_dict(self) -> dict[str, Any]:
        """JSON of what was predicted."""
        if self.sign == 0:
            return {"within": [self.low, self.high]}
        sign = "increase" if self.sign > 0 else "decrease"
        return {"sign": sign, "smallest_effect": self.smallest_effect}

    def __str__(self) -> str:
        if self.sign == 0:
            return f"within ({self.low:g}, {self.high:g})"
        return f"{'increases' if self.sign > 0 else 'decreases'} by ≥ {self.smallest_effect:g}"
