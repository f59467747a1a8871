"""What every row of the lenses' table `estimates` has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import SurgeryAnalysis
from interpflow.stats.record import Estimate

Row = dict[str, Any]

STUDY = "layer_surgery"


@dataclass(frozen=True)
class LensAnalyst:
    """Which model is analysed, and how."""

    model: str
    settings: SurgeryAnalysis
    seed: int

    def row(self, analysis: str, factor: str, level: str, estimate: Estimate) -> Row:
        """One row of `estimates`."""
        return {
            "study": STUDY, "model": self.model, "analysis": analysis, "factor": factor,
            "level": level, **estimate.to_row(),
        }  # fmt: skip

    def seed_of(self, *names: str) -> int:
        """A seed for one named purpose."""
        return derived_seed(self.seed, STUDY, self.model, *names)
