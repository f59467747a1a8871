"""What a session holds: hypotheses, registered tests, results, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interpflow.agent.laboratory import INTACT, Measure
from interpflow.agent.rules.claims import AnomalyClaim
from interpflow.agent.rules.effects import Effect, FloatArray
from interpflow.agent.rules.predictions import Prediction
from interpflow.plans.requests import NamedPlan
from interpflow.stats.verdicts import Judged

# open: registered, not run yet; unrun: the budget, or the units, ended before it was run.
State = Literal["open", "run", "withdrawn", "unrun"]
# The verdict of a test that was registered and never run.
UNFINISHED = "INCONCLUSIVE(budget)"


@dataclass(frozen=True)
class Subject:
    """What is compared: a plan with another, on a measure (of a task)."""

    plan: NamedPlan
    against: NamedPlan
    measure: Measure
    task: str | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        return str(self.plan.plan), str(self.against.plan), self.measure, self.task or ""

    @property
    def label(self) -> str:
        """The plan's name, and that of the other side where it is not the model as it is."""
        is_intact = self.against.kind == INTACT["kind"]
        return self.plan.label if is_intact else f"{self.plan.label} vs {self.against.label}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "plan": self.plan.label, "steps": str(self.plan.plan), "against": self.against.label,
            "measure": self.measure, "task": self.task,
        }  # fmt: skip


@dataclass(frozen=True)
class Hypothesis:
    """status: open, revised, or the last verdict on it in small letters."""

    id: str
    text: str
    scope: str
    probability: float
    parent: str = ""
    claim: AnomalyClaim | None = None
    status: str = "open"

    def to_dict(self) -> dict[str, Any]:
        """What is entered in the ledger: all but the status, which changes."""
        return {
            "id": self.id, "text": self.text, "scope": self.scope,
            "probability": self.probability, "parent": self.parent,
            "claim": self.claim.to_dict() if self.claim else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Registration:
    """A test fixed before its data. number: t, its place among all tests; alpha: its level, set by
    the decisions before it; power: chance of a confirmation by the exploratory spread, None where
    nothing was explored; rerun_of: the registration whose slot went to a placebo."""

    id: str
    number: int
    hypothesis: str
    subject: Subject
    metric: str
    prediction: Prediction
    probability: float
    units: tuple[str, ...]
    slice_id: str
    alpha: float
    power: float | None
    sha256: str = ""
    rerun_of: str = ""
    state: State = "open"
    result: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What an agent sees of it."""
        return {
            "id": self.id, "t": self.number, "hypothesis": self.hypothesis,
            **self.subject.to_dict(), "metric": self.metric,
            "prediction": self.prediction.to_dict(), "probability": self.probability,
            "n": len(self.units), "slice": self.slice_id, "alpha": self.alpha,
            "power": self.power, "state": self.state, "result": self.result,
            "sha256": self.sha256[:16],
        } | ({"rerun_of": self.rerun_of} if self.rerun_of else {})  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Differences by unit, with their means. registration: empty for an exploratory result."""

    id: str
    subject: Subject
    units: tuple[str, ...]
    values: Mapping[str, FloatArray]
    effects: Mapping[str, Effect]
    runs: tuple[str, ...]
    registration: str = ""
    judged: Judged | None = None
    is_placebo: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What an agent sees of it: no row, no unit."""
        shown = {
            "id": self.id,
            "status": "confirmatory" if self.registration else "exploratory",
            **self.subject.to_dict(),
            "n": len(self.units),
            "effects": {metric: effect.to_dict() for metric, effect in self.effects.items()},
        }
        if self.judged is not None:
            low, high = self.judged.test_low, self.judged.test_high
            p_value = self.judged.estimate.p_value
            shown |= {
                "registration": self.registration,
                "verdict": self.judged.verdict,
                "p_value": None if p_value != p_value else float(f"{p_value:.4g}"),
                "alpha": float(f"{self.judged.alpha:.4g}"),
                "test_interval": [_shown(low), _shown(high)],
            }
        return shown


@dataclass(frozen=True)
class Note:
    id: str
    kind: str
    text: str
    refs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "kind": self.kind, "text": self.text, "refs": list(self.refs)}


def _shown(value: float) -> float | None:
    return float(f"{value:.6g}") if abs(value) < float("inf") else None
