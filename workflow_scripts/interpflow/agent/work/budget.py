"""What an agent may spend and has spent; the first that is used up ends its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from interpflow.agent.record.transcript import Cost
from interpflow.config.layer_surgery import AgentBudget

# The language model's part of the budget that is kept for the closing report.
CLOSING_SHARE = 0.1
# Share of the forward tokens that may be explored with.
EXPLORING_SHARE = 0.3


@dataclass(frozen=True)
class Spent:
    """Used so far, in the terms of AgentBudget; `exploring`: forward tokens explored with."""

    confirmatory: int = 0
    turns: int = 0
    forward_tokens: int = 0
    llm_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    exploring: int = 0

    def turn(self, cost: Cost, seconds: float) -> Spent:
        """After one more action at this time."""
        return replace(
            self,
            turns=self.turns + 1,
            llm_tokens=self.llm_tokens + cost.llm_tokens,
            cost_usd=self.cost_usd + cost.usd,
            seconds=max(seconds, self.seconds),
        )

    def run(self, forward_tokens: int, *, exploring: bool, confirmatory: bool) -> Spent:
        """After tokens were newly run."""
        return replace(
            self,
            forward_tokens=self.forward_tokens + forward_tokens,
            exploring=self.exploring + (forward_tokens if exploring else 0),
            confirmatory=self.confirmatory + confirmatory,
        )


def limits(budget: AgentBudget, own_share: float) -> AgentBudget:
    """What the agent itself may use: of confirmatory runs and forward tokens `own_share`, as the
    rest is for tests that are run again after a placebo."""
    return budget.model_copy(
        update={
            "confirmatory": max(1, round(budget.confirmatory * own_share)),
            "forward_tokens": max(1, int(budget.forward_tokens * own_share)),
        }
    )


def remaining(budget: AgentBudget, spent: Spent) -> dict[str, Any]:
    """What is left of each, as the agent is shown."""
    left = {
        field.name: max(0, getattr(budget, field.name) - getattr(spent, field.name))
        for field in fields(Spent)
        if field.name != "exploring"
    }
    explored = int(budget.forward_tokens * EXPLORING_SHARE) - spent.exploring
    return {
        **left,
        "cost_usd": round(left["cost_usd"], 4),
        "seconds": round(left["seconds"]),
        "exploring_tokens": max(0, min(explored, left["forward_tokens"])),
    }


def exhausted(budget: AgentBudget, spent: Spent, *, closing: bool = False) -> str:
    """Which part is used up, or "". A language model's part is so a little before its end, for the
    report; closing: only its very end counts."""
    kept = 0.0 if closing else CLOSING_SHARE
    used: Callable[[str], float] = lambda name: getattr(spent, name)  # noqa: E731
    for name in ("llm_tokens", "cost_usd"):
        if used(name) > 0 and used(name) >= getattr(budget, name) * (1 - kept):
            return name
    if closing:
        return ""
    for name in ("confirmatory", "turns", "forward_tokens", "seconds"):
        if used(name) >= getattr(budget, name):
            return name
    return ""
