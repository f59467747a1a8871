"""A language model as the agent: tools in, one action at a time, within a bounded context."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from interpflow.agent.policies.policy import Decision
from interpflow.agent.record.transcript import Cost, Exchange
from interpflow.agent.rules.actions import ACTIONS, Action, tools
from interpflow.agent.work.session import View
from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.llm.answers import Answer
from interpflow.llm.asking import answer
from interpflow.llm.asks import Ask, Turn

# Exchanges that are sent whole: at least as many, and at most twice as many, so that the part
# before them changes rarely and a service's cache of it serves many turns.
WHOLE = 10
MOST_SHORT = 150  # earlier actions told in a line each
MOST_SHOWN = 16_000  # characters of one observation
MOST_SAID = 2_000  # characters that are kept of what is written beside a call
MAX_TOKENS = 2_000
TOO_LONG = f"(cut off after {MAX_TOKENS} tokens, nothing was called)"

SYSTEM = """You study one language model by running it under layer plans: its blocks skipped,
repeated, exchanged, scaled or ablated. You act only through the tools, one call at a time.

What counts is decided by rule, not by you:
- explore and compare use an exploration pool. They give ideas and confirm nothing.
- A claim needs a registered test: hypothesize, preregister with a prediction and the probability
  that it will be CONFIRMED, then run. Each test reads units that nothing has read before. State
  probabilities honestly: they are scored against what happens.
- Tests share a limited rate of false discoveries. A test that is unlikely to confirm costs level
  that a later one would have had.
- Some tests are placebos: their true effect is nothing. You are told at the end, when their tests
  are run again.
- In a report, numbers, blocks and names of plans stand in holes such as {{X3.delta_loss}},
  {{R1.plan}} or {{H2.claim}}; they are filled from results. A bare number fails it, and so does a
  claim that is stronger than its verdict.
- The budget is shown with every observation; the first part that is used up ends the work.
Tell several causes of one symptom apart before you register: a damage shows under many plans, and
its own repair helps most. Stop when nothing is worth a test."""


class LanguageModelPolicy:
    """The role `agent` played by a language model. Asked anew with the same history it sends the
    same request, so that an agent that was killed buys nothing twice."""

    def __init__(
        self, role: RoleModel, llm: LlmSettings, models: Mapping[str, ModelSettings] | None = None
    ) -> None:
        self.name = "agent"
        # An answer that is no call is the agent's error, not the run's: see `_decision`.
        self._llm = llm.model_copy(update={"max_failed_share": 1.0})
        self._role, self._models = role, models

    def next_action(self, view: View) -> Decision:
        """One call of the service. Raises UserError where it fails; the work can be resumed."""
        ask = Ask(
            f"turn {len(view.history)}", turns_of(view), SYSTEM, tools=tools(),
            tool_choice="any", max_tokens=MAX_TOKENS,
        )  # fmt: skip
        (given,) = answer([ask], self._role, self._llm, purpose="agent", models=self._models)
        return _decision(given)


def turns_of(view: View) -> tuple[Turn, ...]:
    """The conversation: the task, earlier actions in short, and the latest exchanges whole."""
    n = len(view.history)
    cut = max(0, (n // WHOLE - 1) * WHOLE)
    turns = [Turn("user", _opening(view, view.history[:cut]))]
    for place, exchange in enumerate(view.history[cut:], cut):
        turns += _exchange(exchange, f"call_{place}")
    return tuple(turns)


def _opening(view: View, earlier: tuple[Exchange, ...]) -> str:
    settings = view.settings
    task = {
        "goal": view.goal,
        "model": view.description,
        "smallest_effect": f"{settings.smallest_effect} nats per token, unless you state another",
        "false_discovery_rate": settings.alpha,
        "units_of_a_test": settings.n_units,
        "errors_in_a_row_that_end_the_work": settings.max_errors,
    }
    parts = [json.dumps(task, ensure_ascii=False, sort_keys=True)]
    if earlier:
        lines = [_in_short(exchange) for exchange in earlier[-MOST_SHORT:]]
        parts.append("Earlier actions, in short (describe or list tells more):")
        parts += lines
    return "\n".join(parts)


def _in_short(exchange: Exchange) -> str:
    """An exchange in a line: what was done and the ids that came of it."""
    found, given = exchange.observation, exchange.action.arguments
    name = exchange.action.name or "no action"
    if "error" in found:
        return f"- {name}: error: {str(found['error'])[:120]}"
    if "results" in found and isinstance(found["results"], list):
        shown = [f"{r['id']} {r['plan']} {_main(r)}" for r in found["results"] if "effects" in r]
        return f"- {name}: {'; '.join(shown)}"[:600]
    if "result" in found:
        result = found["result"]
        verdict = f" {result['verdict']}" if "verdict" in result else ""
        return f"- {name} {result.get('registration', '')}: {result['id']}{verdict} {_main(result)}"
    if "hypothesis" in found:
        return f"- {name} {found['hypothesis']['id']}: {found['hypothesis']['text'][:160]}"
    if "registration" in found:
        test = found["registration"]
        return f"- {name} {test['id']} of {test['hypothesis']}: {test['plan']}, {test['metric']}"
    return f"- {name} {json.dumps(given, ensure_ascii=False)[:120]}"


def _main(result: Mapping[str, Any]) -> str:
    """The first effect of a result."""
    metric, effect = next(iter(result["effects"].items()))
    return f"{metric} {effect['estimate']}"


def _exchange(exchange: Exchange, call: str) -> list[Turn]:
    said = exchange.said[:MOST_SAID].strip()
    observation = json.dumps(exchange.observation, ensure_ascii=False)
    if len(observation) > MOST_SHOWN:
        observation = observation[:MOST_SHOWN] + " … (cut; list and describe tell the rest)"
    if (
        exchange.action.name not in ACTIONS
    ):  # a service refuses calls of tools that it does not know
        return [Turn("assistant", said or "(no call)"), Turn("user", observation)]
    used = {
        "type": "tool_use", "id": call, "name": exchange.action.name,
        "input": dict(exchange.action.arguments),
    }  # fmt: skip
    texts = [{"type": "text", "text": said}] if said else []
    result = {"type": "tool_result", "tool_use_id": call, "content": observation}
    return [Turn("assistant", [*texts, used]), Turn("user", [result])]


def _decision(given: Answer) -> Decision:
    if given.outcome == "error":
        raise UserError(
            f"the agent's service did not answer: {given.why}",
            where="llm.roles.agent",
            remedy="run again: what was bought and run is kept, and the agent goes on from there",
        )
    usage = given.usage
    cost = Cost(usage.all_input_tokens + usage.output_tokens, given.cost_usd)
    said = given.text[:MOST_SAID]
    # A call may have been cut in its middle: what is left of it is not what was meant.
    if given.outcome != "ok" or not given.tool_calls:
        reason = TOO_LONG if given.outcome == "truncated" else given.why
        return Decision(Action(""), "\n".join(filter(None, (said, reason))), cost)
    call = given.tool_calls[0]
    return Decision(Action(call.name, _plain(call.arguments)), said, cost)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON holds them, so that a transcript read again is the same."""
    return json.loads(json.dumps(dict(arguments)))
