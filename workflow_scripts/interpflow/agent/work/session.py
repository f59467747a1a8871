"""A session of an agent: actions in, bounded observations out, and the rules that end it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpflow.agent.laboratory import METRICS, Laboratory
from interpflow.agent.record.ledger import Ledger
from interpflow.agent.record.transcript import Cost, Exchange, Transcript
from interpflow.agent.rules.actions import Action, check_action, plain_action
from interpflow.agent.rules.slots import Pools, Slots
from interpflow.agent.work.budget import exhausted, limits, remaining
from interpflow.agent.work.closing import close, is_due
from interpflow.agent.work.exploration import compare, explore
from interpflow.agent.work.hypotheses import hypothesize, note, revise
from interpflow.agent.work.notebook import Notebook
from interpflow.agent.work.registration import preregister, run
from interpflow.agent.work.report import Claim, accepted_claims
from interpflow.config.identity import content_hash
from interpflow.config.layer_surgery import SurgeryAgent
from interpflow.errors import UserError

TRANSCRIPT = "transcript.jsonl"
LEDGER = "ledger.jsonl"
# Stopping rules beside the budget: verdicts in a row that decide nothing, without a revision; and
# turns in a row without an open hypothesis once there was one.
MOST_INCONCLUSIVE = 3
MOST_IDLE = 15
MOST_CLOSING = 6  # turns that a closing report may take
# What depends on what others have run meanwhile: no part of what a resumed session must find again.
_PASSING = ("cached", "forward_tokens")
_WHEN_CLOSING = ("list", "describe", "note", "report", "stop")

_ACTS: dict[str, Callable[[Notebook, Mapping[str, Any]], dict[str, Any]]] = {
    "explore": explore,
    "compare": compare,
    "hypothesize": hypothesize,
    "revise": revise,
    "note": note,
    "preregister": preregister,
    "run": run,
}


@dataclass(frozen=True)
class View:
    """What a policy decides by. Everything in it was an observation."""

    goal: str
    description: Mapping[str, Any]
    settings: SurgeryAgent
    history: tuple[Exchange, ...]
    budget: Mapping[str, Any]
    phase: str
    seed: int


class Session:
    """One agent's work on one model.

    directory: where transcript and ledger are kept, None: in memory only. A directory that holds a
    transcript is resumed: its actions are done again (results come from the laboratory's store) and
    must bring what they brought. Raises UserError where they do not.
    code: digest of the code that measures. clock: seconds, rising.
    """

    def __init__(
        self, settings: SurgeryAgent, laboratory: Laboratory, directory: Path | None, seed: int, *,
        code: str = "", clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._clock, self._started = clock, clock()
        self._transcript = Transcript(directory / TRANSCRIPT if directory else None)
        slots = Slots(settings, seed)
        self.book = Notebook(
            settings, laboratory, seed, code, laboratory.describe(),
            Ledger(directory / LEDGER if directory else None), slots, Pools(laboratory, seed),
            limits(settings.budget, slots.n_own / settings.budget.confirmatory),
        )  # fmt: skip
        self.history: list[Exchange] = []
        self.stopped = ""
        self.claims: list[Claim] = []
        self._errors = self._idle = self._closing = 0
        self._open()
        for exchange in self._transcript.recorded:
            self._again(exchange)
        if self.history:
            self._started = clock() - self.history[-1].at

    @property
    def ended(self) -> bool:
        return self.book.phase == "ended"

    def view(self) -> View:
        """The session as a policy sees it."""
        book = self.book
        return View(
            book.settings.goal, book.description, book.settings, tuple(self.history),
            remaining(book.limits, book.spent), book.phase, book.seed,
        )  # fmt: skip

    def act(self, action: Action, *, said: str = "", cost: Cost | None = None) -> dict[str, Any]:
        """Do an action. What fails is told as {"error", "where", "remedy"}; nothing is lost.

        said: what came with it; cost: what deciding on it cost.
        """
        if self.ended:
            raise UserError("the session has ended", where=f"agent, {self.stopped}")
        action = plain_action(action)
        at = round(self._clock() - self._started, 3)
        before = self.book.spent.forward_tokens
        cost = cost or Cost()
        observation = self._done(action, cost, at, None)
        used = self.book.spent.forward_tokens - before
        exchange = Exchange(action, observation, at, said, cost, used)
        self._transcript.append(exchange)
        self.history.append(exchange)
        return observation

    def _open(self) -> None:
        """The first record: what everything after it was planned under."""
        book = self.book
        opening = {
            "config": content_hash(book.settings.model_dump(mode="json")),
            "code": book.code,
            "seed": book.seed,
            "laboratory": content_hash(book.description),
            "placebos": book.slots.commitment,
            "slots": book.settings.budget.confirmatory,
        }
        book.ledger.append("opening", opening, 0.0)

    def _again(self, exchange: Exchange) -> None:
        """Do a recorded exchange again."""
        observation = self._done(exchange.action, exchange.cost, exchange.at, exchange)
        if _lasting(observation) != _lasting(exchange.observation):
            raise UserError(
                f"action {len(self.history) + 1} of the agent brings another result than it did",
                where=str(self.directory),
                remedy="remove this directory to let the agent begin anew, or bring back the "
                "settings and the store that it began with",
            )
        self.history.append(exchange)

    def _done(
        self, action: Action, cost: Cost, at: float, recorded: Exchange | None
    ) -> dict[str, Any]:
        book = self.book
        book.now = at
        before = book.spent.forward_tokens
        book.spent = book.spent.turn(cost, at)
        try:
            if recorded is not None and "error" in recorded.observation:
                raise _told(recorded.observation)
            check_action(action)
            observation = self._act(action)
            self._errors = 0
        except UserError as error:
            self._errors += 1
            observation = {
                "error": error.what, "where": error.where, "remedy": error.remedy,
                "errors_left": book.settings.max_errors - self._errors,
            }  # fmt: skip
        closing = self._end(action, observation, recorded)
        if closing:
            observation["closing"] = closing
        if recorded is not None:  # what is cached by now was run then
            charged = book.spent.forward_tokens - before
            book.spent = book.spent.run(
                recorded.forward_tokens - charged, exploring=action.name == "explore",
                confirmatory=False,
            )  # fmt: skip
        return {**observation, "budget": remaining(book.limits, book.spent), "phase": book.phase}

    def _act(self, action: Action) -> dict[str, Any]:
        book, name, given = self.book, action.name, action.arguments
        if book.phase == "closing" and name not in _WHEN_CLOSING:
            raise UserError(
                "the work is over, nothing more is run", where=name, remedy="report, or stop"
            )
        if name == "list":
            return book.listed(given["what"], given.get("offset", 0))
        if name == "describe":
            return self._described(given.get("id"))
        if name == "report":
            claims = accepted_claims(book, given["claims"])
            if is_due(book):
                return {"ok": True, "again": "placebos are told now: send the final report"}
            self.claims = claims
            return {"ok": True, "claims": [claim.to_dict() for claim in claims]}
        if name == "stop":
            return {"ok": True, "reason": given["reason"]}
        return _ACTS[name](book, given)

    def _described(self, id: str | None) -> dict[str, Any]:
        if id is not None:
            return self.book.found(id).to_dict()
        metrics = {
            measure: {m.name: f"{m.about} ({m.unit}; better: {m.better})" for m in some}
            for measure, some in METRICS.items()
        }
        return {**self.book.description, "metrics": metrics}

    def _end(
        self, action: Action, observation: dict[str, Any], recorded: Exchange | None
    ) -> dict[str, Any] | None:
        """Move on to closing, or end; what is told of it. What was recorded says why: what is
        cached by now would not use the budget up again."""
        book = self.book
        reported = action.name == "report" and "error" not in observation
        if book.phase == "working":
            reason = self._reason(action, observation, reported)
            if recorded is not None:
                reason = recorded.observation.get("closing", {}).get("reason", "")
            if not reason:
                return None
            self.stopped = reason
            final = reported and not is_due(book)
            told = close(book, reason)
            if final or reason == "errors":
                book.phase = "ended"
            return told
        self._closing += 1
        if (
            reported
            or (action.name == "stop" and "error" not in observation)
            or self._closing >= MOST_CLOSING
            or self._errors >= book.settings.max_errors
            or exhausted(book.settings.budget, book.spent, closing=True)
        ):
            book.phase = "ended"
        return None

    def _reason(self, action: Action, observation: Mapping[str, Any], reported: bool) -> str:
        """Why the work is over; "" while it is not."""
        book = self.book
        is_open = any(each.status == "open" for each in book.hypotheses.values())
        self._idle = 0 if is_open or not book.hypotheses else self._idle + 1
        if reported:
            return "report"
        if action.name == "stop" and "error" not in observation:
            return "stop"
        used_up = exhausted(book.limits, book.spent)
        if used_up:
            return f"budget: {used_up}"
        if book.slots.next_number > book.slots.n_own:
            return "budget: confirmatory"
        if book.inconclusive >= MOST_INCONCLUSIVE:
            return "inconclusive"
        if self._idle >= MOST_IDLE:
            return "no open hypothesis"
        return "errors" if self._errors >= book.settings.max_errors else ""


def _told(observation: Mapping[str, Any]) -> UserError:
    return UserError(observation["error"], where=observation["where"], remedy=observation["remedy"])


def _lasting(observation: Mapping[str, Any]) -> Any:
    """An observation as it is written, without what may differ."""
    kept = {key: value for key, value in observation.items() if key not in _PASSING}
    return json.loads(json.dumps(kept))
