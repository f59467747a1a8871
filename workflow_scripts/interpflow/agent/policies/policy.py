"""What a policy is, and policies that are written down as a course of actions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from interpflow.agent.policies.sentences import sentence
from interpflow.agent.record.transcript import Cost
from interpflow.agent.rules.actions import MOST_CLAIMS, Action
from interpflow.agent.work.session import View

# Yields actions, is sent their observations; ends when it has nothing more to do.
Course = Generator[Action, Mapping[str, Any], None]


@dataclass(frozen=True)
class Decision:
    """The next action, with what was said beside it and what deciding cost."""

    action: Action
    said: str = ""
    cost: Cost = field(default_factory=Cost)


class Policy(Protocol):
    """Decides by what was observed only: with the same view it decides the same."""

    name: str

    def next_action(self, view: View) -> Decision: ...


class CoursePolicy:
    """A policy that follows a course. Resumed, it goes the recorded part again first."""

    def __init__(self, name: str, course: Callable[[View], Course]) -> None:
        self.name = name
        self._begin = course
        self._course: Course | None = None
        self._seen = 0

    def next_action(self, view: View) -> Decision:
        """The next step; a report of what was confirmed when the work is over, then stop."""
        if view.phase == "closing":
            return Decision(closing_action(view))
        action: Action | None = None
        if self._course is None:
            self._course, self._seen = self._begin(view), 0
            action = next(self._course, None)
        for exchange in view.history[self._seen :]:
            try:
                action = self._course.send(exchange.observation)
            except StopIteration:
                action = None
        self._seen = len(view.history)
        return Decision(action or Action("stop", {"reason": "the course is done"}))


def closing_action(view: View) -> Action:
    """The final report: what was noted of looking, and every confirmed test as a claim; stop after
    a report that was refused."""
    last = view.history[-1]
    if last.action.name == "report" and "error" in last.observation:
        return Action("stop", {"reason": "the report was refused"})
    placebos = {told["registration"]: told.get("rerun", "") for told in _told(view)}
    predictions = {
        found["id"]: found["prediction"]
        for exchange in view.history
        if (found := exchange.observation.get("registration"))
    }
    predictions |= {again: predictions[first] for first, again in placebos.items() if again}
    claims = [
        {
            "text": sentence(result, predictions[result["registration"]]),
            "refs": [result["registration"]],
            "strength": "confirmed",
        }
        for result in _results(view)
        if result.get("verdict") == "CONFIRMED" and result["registration"] not in placebos
    ]
    return Action("report", {"claims": (_observed(view) + claims)[:MOST_CLAIMS]})


def _observed(view: View) -> list[dict[str, Any]]:
    """Observations that were noted, as exploratory claims."""
    return [
        {"text": given["text"], "refs": given["refs"], "strength": "exploratory"}
        for exchange in view.history
        if exchange.action.name == "note" and "error" not in exchange.observation
        and (given := exchange.action.arguments)["kind"] == "observation"
    ]  # fmt: skip


def _results(view: View) -> list[Mapping[str, Any]]:
    """Results of registered tests, those run again after a placebo at the end."""
    found: list[Mapping[str, Any]] = []
    for exchange in view.history:
        if exchange.action.name == "run" and "result" in exchange.observation:
            found.append(exchange.observation["result"])
    return found + [told["result"] for told in _told(view) if "result" in told]


def _told(view: View) -> list[Mapping[str, Any]]:
    """What the end of the work told of placebos."""
    return [
        told
        for exchange in view.history
        for told in exchange.observation.get("closing", {}).get("placebos", ())
    ]
