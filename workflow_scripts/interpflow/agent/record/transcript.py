"""The transcript: every action, what it cost and what came back, one JSON line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from interpflow.agent.record.lines import append_line, read_lines
from interpflow.agent.rules.actions import Action


@dataclass(frozen=True)
class Cost:
    """What deciding on an action cost: tokens and dollars of a language model."""

    llm_tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Exchange:
    """An action and its observation. at: seconds since the agent began; said: what a language
    model wrote beside its call; forward_tokens: newly run through the model under study."""

    action: Action
    observation: Mapping[str, Any]
    at: float = 0.0
    said: str = ""
    cost: Cost = field(default_factory=Cost)
    forward_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A line of the transcript."""
        return {
            "at": round(self.at, 3),
            "said": self.said,
            "action": self.action.to_dict(),
            "cost": asdict(self.cost),
            "forward_tokens": self.forward_tokens,
            "observation": dict(self.observation),
        }


class Transcript:
    """Exchanges that were recorded in a file (none without a path), and those to come."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.recorded = [_exchange(line) for line in read_lines(path)] if path else []

    def append(self, exchange: Exchange) -> None:
        """On the disk when this returns."""
        if self._path:
            append_line(self._path, exchange.to_dict())


def _exchange(line: Mapping[str, Any]) -> Exchange:
    action = Action(line["action"]["name"], line["action"]["arguments"])
    return Exchange(
        action, line["observation"], line["at"], line["said"], Cost(**line["cost"]),
        line["forward_tokens"],
    )  # fmt: skip
