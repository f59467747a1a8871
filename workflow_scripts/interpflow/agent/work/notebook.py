"""The working state of a session: records by their ids, what is spent, and runs of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interpflow.agent.laboratory import INTACT, METRICS, Laboratory, Measure, Measured
from interpflow.agent.record.ledger import Ledger
from interpflow.agent.record.records import Hypothesis, Note, Registration, Result, Subject
from interpflow.agent.rules.slots import Pools, Slots
from interpflow.agent.work.budget import Spent, remaining
from interpflow.config.layer_surgery import AgentBudget, SurgeryAgent
from interpflow.errors import UserError
from interpflow.plans.requests import NamedPlan

MOST_LISTED = 40


@dataclass
class Notebook:
    """Everything that actions read and change. `limits`: the budget as the agent is shown it;
    `now`: seconds since the agent began; `inconclusive`: such verdicts in a row; `phase`: working,
    closing (only a report may follow) or ended."""

    settings: SurgeryAgent
    laboratory: Laboratory
    seed: int
    code: str
    description: dict[str, Any]
    ledger: Ledger
    slots: Slots
    pools: Pools
    limits: AgentBudget
    spent: Spent = field(default_factory=Spent)
    now: float = 0.0
    phase: str = "working"
    inconclusive: int = 0
    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)
    registrations: dict[str, Registration] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    notes: dict[str, Note] = field(default_factory=dict)
    placebos: dict[str, Result] = field(default_factory=dict)

    @property
    def intact(self) -> NamedPlan:
        return self.laboratory.plan(INTACT)

    @property
    def open_registration(self) -> Registration | None:
        """The one test that is registered and not run."""
        return next((each for each in self.registrations.values() if each.state == "open"), None)

    def subject(self, arguments: Mapping[str, Any]) -> Subject:
        """The comparison that arguments name. Raises UserError for a plan or task there is not."""
        measure: Measure = arguments["measure"]
        task = self.checked_task(measure, arguments.get("task"))
        plan = self.laboratory.plan(arguments["plan"])
        against = arguments.get("against")
        return Subject(plan, self.laboratory.plan(against or INTACT), measure, task)

    def checked_task(self, measure: Measure, task: str | None) -> str | None:
        """The task of a measure; UserError where it is missing, unknown or needless."""
        tasks = self.description["tasks"]
        if measure == "answers" and task not in tasks:
            raise UserError(
                f"there is no task {task!r}" if task else "the measure answers needs a task",
                where="task", remedy=f"name one of {', '.join(tasks) or 'none, use text'}",
            )  # fmt: skip
        if measure == "text" and task:
            raise UserError("the measure text has no task", where="task", remedy="leave it out")
        return task

    def measured(
        self, subjects: Sequence[Subject], units: Sequence[str], *, exploring: bool = False,
        confirmatory: bool = False, allowed: int | None = None,
    ) -> Measured:  # fmt: skip
        """Rows of subjects that share measure and task. Raises UserError where the tokens that it
        would run exceed what is `allowed` (None: what is left)."""
        tokens = self.cost(subjects, units)
        left = remaining(self.limits, self.spent)
        most = left["exploring_tokens" if exploring else "forward_tokens"]
        if tokens > (most if allowed is None else allowed):
            raise UserError(
                f"this would run {tokens} tokens through the model, and {most} are left for it",
                where="budget",
                remedy="take fewer units or plans",
            )
        first = subjects[0]
        found = self.laboratory.measure(_plans(subjects), first.measure, first.task, units)
        self.spent = self.spent.run(
            found.forward_tokens, exploring=exploring, confirmatory=confirmatory
        )
        return found

    def cost(self, subjects: Sequence[Subject], units: Sequence[str]) -> int:
        """Tokens that `measured` would run; 0 where all is cached."""
        first = subjects[0]
        return self.laboratory.forward_tokens(_plans(subjects), first.measure, first.task, units)

    def found(self, id: str) -> Hypothesis | Registration | Result | Note:
        """The record of an id. Raises UserError for one there is not."""
        for records in (self.hypotheses, self.registrations, self.results, self.notes):
            if id in records:
                return records[id]
        raise UserError(f"there is no {id}", where="id", remedy="list what there is")

    def hypothesis(self, id: str) -> Hypothesis:
        """Raises UserError for an id that is none of a hypothesis."""
        if id not in self.hypotheses:
            raise UserError(
                f"there is no hypothesis {id}",
                where="hypothesis",
                remedy="hypothesize first, or list hypotheses",
            )
        return self.hypotheses[id]

    def next_id(self, letter: str) -> str:
        """H, R, X or N with the next number."""
        records = {
            "H": self.hypotheses, "R": self.registrations, "X": self.results, "N": self.notes,
        }[letter]  # fmt: skip
        return f"{letter}{len(records) + 1}"

    def metrics(self, measure: Measure) -> list[str]:
        return [metric.name for metric in METRICS[measure]]

    def listed(self, what: str, offset: int = 0) -> dict[str, Any]:
        """Records of one kind, a bounded number of them."""
        if what == "tasks":
            shown: list[Any] = [
                {"task": name, **about} for name, about in self.description["tasks"].items()
            ]
        elif what == "hypotheses":
            shown = [h.to_dict() | {"status": h.status} for h in self.hypotheses.values()]
        else:
            kept = {
                "registrations": self.registrations, "results": self.results, "notes": self.notes,
            }[what]  # fmt: skip
            shown = [record.to_dict() for record in kept.values()]
        return {"n": len(shown), "offset": offset, what: shown[offset : offset + MOST_LISTED]}


def _plans(subjects: Sequence[Subject]) -> list[NamedPlan]:
    """Distinct plans of both sides."""
    sides = [plan for subject in subjects for plan in (subject.plan, subject.against)]
    return list({str(plan.plan): plan for plan in sides}.values())
