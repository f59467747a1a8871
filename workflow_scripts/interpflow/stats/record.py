"""The record every estimator returns, the flags it can carry, and the gate that stops a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

UNDEFINED_RATIO = "UNDEFINED_RATIO"
DEGENERATE_VARIANCE = "DEGENERATE_VARIANCE"
EMPTY_CELL = "EMPTY_CELL"
TOO_FEW_CLUSTERS = "TOO_FEW_CLUSTERS"
SINGLE_CLASS = "SINGLE_CLASS"
READOUT_DISAGREES = "READOUT_DISAGREES"
NO_VARIATION = "NO_VARIATION"
SHRUNK_TO_POOLED = "SHRUNK_TO_POOLED"
FLOORED_AT_ZERO = "FLOORED_AT_ZERO"
LOW_CAPTURED_MASS = "LOW_CAPTURED_MASS"
EMPTY_SET = "EMPTY_SET"
NO_FACTOR = "NO_FACTOR"
SEPARATION = "SEPARATION"  # a regressor splits the outcomes perfectly: its slope is infinite
ABOVE_LARGEST_DOSE = "ABOVE_LARGEST_DOSE"  # a threshold that no dose tried has reached
NOT_CONVERGED = "NOT_CONVERGED"
SMALL_STRATUM = "SMALL_STRATUM"
CONTAMINATED = "CONTAMINATED"  # of a model measured on data that it made or validated

# Below this many clusters the sandwich interval is reported but supports no claim of significance
# (Cameron, Gelbach & Miller 2008).
MIN_CLUSTERS = 8


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number with its interval and test; NaN where undefined, with a flag that says why.

    `n_units` counts independent units that entered (never tokens nested in them), `n_clusters` the
    clusters they fall in (None: every unit its own), `n_dropped` units left out as non-finite.
    """

    quantity: str
    estimate: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    ci_level: float = 0.95
    p_value: float = math.nan
    p_adjusted: float = math.nan
    test: str = ""
    n_units: int = 0
    n_clusters: int | None = None
    n_dropped: int = 0
    n_resamples: int | None = None
    seed: int | None = None
    family: str = ""
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # numpy scalars would make rows, and the JSON made from them, depend on how they were found.
        for name in ("estimate", "ci_low", "ci_high", "ci_level", "p_value", "p_adjusted"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("n_units", "n_clusters", "n_dropped", "n_resamples", "seed"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else int(value))
        object.__setattr__(self, "flags", tuple(dict.fromkeys(self.flags)))

    @property
    def defined(self) -> bool:
        """Whether the point estimate exists."""
        return not math.isnan(self.estimate)

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.ci_high - self.ci_low) / 2

    def with_flags(self, *flags: str) -> Estimate:
        """The same estimate with more flags."""
        return replace(self, flags=self.flags + flags)

    def renamed(self, quantity: str, *, family: str | None = None) -> Estimate:
        """The same estimate under another name (and family)."""
        return replace(self, quantity=quantity, family=self.family if family is None else family)

    def to_row(self) -> dict[str, Any]:
        """A table row: undefined numbers become None, flags one string joined by ';'."""
        row = asdict(self)
        row["flags"] = ";".join(self.flags)
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition that must hold before later results mean anything, and the number it rests on."""

    name: str
    passed: bool
    value: float
    threshold: float
    reason: str

    def to_row(self) -> dict[str, Any]:
        """A table row; an undefined value becomes None."""
        row = asdict(self)
        row["passed"] = bool(self.passed)
        row["value"] = None if math.isnan(self.value) else float(self.value)
        return row


def undefined(quantity: str, *flags: str, **fields: Any) -> Estimate:
    """An estimate that does not exist, and why."""
    return Estimate(quantity=quantity, estimate=math.nan, flags=tuple(flags), **fields)


def flagged_row(row: Mapping[str, Any], flag: str) -> dict[str, Any]:
    """A result record's row with one more flag."""
    return {**row, "flags": ";".join(filter(None, (row["flags"], flag)))}


def to_rows(estimates: Iterable[Estimate]) -> list[dict[str, Any]]:
    """Table rows of several estimates."""
    return [estimate.to_row() for estimate in estimates]
