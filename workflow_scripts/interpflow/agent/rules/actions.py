"""What an agent can do: typed actions with JSON schemas, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from interpflow.agent.laboratory import MEASURES, METRICS
from interpflow.agent.rules.claims import KINDS
from interpflow.errors import UserError
from interpflow.llm.asks import Tool
from interpflow.plans.requests import request_schema

MOST_UNITS = 32  # of an exploration
MOST_PLANS = 16  # of one exploration
MOST_TEXT = 1000
MOST_NUMBER = 1e15  # in any argument
MOST_CLAIMS = 20
STRENGTHS = ("confirmed", "direction_only", "refuted", "inconclusive", "exploratory")
NOTES = ("observation", "interpretation", "question", "deviation")
LISTED = ("hypotheses", "registrations", "results", "notes", "tasks")

_TEXT = {"type": "string", "minLength": 1, "maxLength": MOST_TEXT}
_ID = {"type": "string", "pattern": "^[A-Z][0-9]+$"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_PLAN = {**request_schema(), "description": "a layer plan"}
_MEASURE = {"enum": list(MEASURES), "description": "text: loss on neutral documents; answers: task"}
_TASK = {"type": "string", "description": "of the measure answers"}
_METRIC = {"enum": sorted({metric.name for some in METRICS.values() for metric in some})}
_CLAIM = {
    "type": "object",
    "description": "the hypothesis as data. no_op: skipping the block changes the loss by less "
    "than the smallest effect; duplicated: skipping it lowers the loss; swapped: exchanging two "
    "blocks lowers it; scaled: multiplying what the block writes by the factor lowers it. Such a "
    "hypothesis is decided by exactly this test",
    "properties": {
        "kind": {"enum": list(KINDS)},
        "blocks": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "maxItems": 2,
        },
        "factor": {"type": "number"},
    },
    "required": ["kind", "blocks"],
    "additionalProperties": False,
}
_PREDICTION = {
    "type": "object",
    "description": "of the metric's mean difference, plan minus against: sign with "
    "smallest_effect, or within [low, high]. expected: the effect you expect, for the power check",
    "properties": {
        "sign": {"enum": ["increase", "decrease"]},
        "smallest_effect": {"type": "number", "exclusiveMinimum": 0},
        "within": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "expected": {"type": "number"},
    },
    "additionalProperties": False,
}
_REFS = {"type": "array", "items": _ID, "maxItems": 20}
_CLAIMED = {
    "type": "object",
    "properties": {
        "text": {
            **_TEXT,
            "description": "a sentence without digits or number words: numbers stand in holes such "
            "as {{X3.delta_loss}}, {{X3.n}}, {{X3.plan}} or {{H2.claim}}, filled from the store",
        },
        "refs": {**_REFS, "minItems": 1, "description": "registrations and results it rests on"},
        "strength": {"enum": list(STRENGTHS), "description": "at most what the verdicts allow"},
    },
    "required": ["text", "refs", "strength"],
    "additionalProperties": False,
}

# name -> (what it is for, its arguments, those that it needs)
ACTIONS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "list": (
        "List what there is, newest last. Free.",
        {"what": {"enum": list(LISTED)}, "offset": {"type": "integer", "minimum": 0}},
        ("what",),
    ),
    "describe": (
        "The model, its tasks and metrics; or one hypothesis, registration or result. Free.",
        {"id": _ID},
        (),
    ),
    "explore": (
        "Run plans on a few units of the exploration pool. Results are stamped exploratory and "
        "never confirm anything.",
        {
            "plans": {"type": "array", "items": _PLAN, "minItems": 1, "maxItems": MOST_PLANS},
            "measure": _MEASURE,
            "task": _TASK,
            "n": {"type": "integer", "minimum": 2, "maximum": MOST_UNITS},
        },
        ("plans", "measure"),
    ),
    "hypothesize": (
        "Enter a hypothesis; its text is never changed. probability: that it is true.",
        {"text": _TEXT, "scope": _TEXT, "probability": _SHARE, "parent": _ID, "claim": _CLAIM},
        ("text", "scope", "probability"),
    ),
    "preregister": (
        "Fix a test of a hypothesis on units never seen before it is run. One at a time: run it, "
        "or give replaces to withdraw it (its level stays spent). probability: that the verdict "
        "will be CONFIRMED.",
        {
            "hypothesis": _ID,
            "plan": _PLAN,
            "against": {**_PLAN, "description": "another plan; left out: the intact model"},
            "measure": _MEASURE,
            "task": _TASK,
            "metric": _METRIC,
            "prediction": _PREDICTION,
            "probability": _SHARE,
            "n": {"type": "integer", "minimum": 8, "maximum": 100_000},
            "replaces": _ID,
            "accept_low_power": {"type": "boolean", "description": "register at power below 0.8"},
        },
        ("hypothesis", "plan", "measure", "metric", "prediction", "probability"),
    ),
    "run": (
        "Run a registered test: the only way to a confirmatory result.",
        {"registration": _ID},
        ("registration",),
    ),
    "compare": (
        "Difference of two exploratory results (first minus second), paired by unit.",
        {"results": {"type": "array", "items": _ID, "minItems": 2, "maxItems": 2}},
        ("results",),
    ),
    "note": (
        "Write down an observation, interpretation, question or deviation from what was planned. "
        "All but questions need refs.",
        {"kind": {"enum": list(NOTES)}, "text": _TEXT, "refs": _REFS},
        ("kind", "text"),
    ),
    "revise": (
        "Replace a hypothesis by a new one; the old keeps its verdict, an open registration of it "
        "is withdrawn.",
        {"parent": _ID, "text": _TEXT, "reason": _TEXT, "probability": _SHARE, "claim": _CLAIM},
        ("parent", "text", "reason"),
    ),
    "report": (
        "The final report. Before it, tests still due are run and you are asked once more.",
        {"claims": {"type": "array", "items": _CLAIMED, "maxItems": MOST_CLAIMS}},
        ("claims",),
    ),
    "stop": ("End the work; a report may follow.", {"reason": _TEXT}, ("reason",)),
}


@dataclass(frozen=True)
class Action:
    """One action; a name that is none is answered with an error."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON of the action."""
        return {"name": self.name, "arguments": dict(self.arguments)}


def plain_action(action: Action) -> Action:
    """The action as a file of JSON can hold it, and as its schema means it.

    JSON allows what files and sums do not take: lone halves of surrogate pairs become U+FFFD; a
    number that is not finite, or beyond MOST_NUMBER, becomes its text, which no schema takes for a
    number; 8.0 where JSON schema sees an integer becomes 8.
    """
    return Action(_plain(action.name), _plain(dict(action.arguments)))


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema of an action's arguments."""
    _, arguments, needed = ACTIONS[name]
    return {
        "type": "object",
        "properties": arguments,
        "required": list(needed),
        "additionalProperties": False,
    }


def tools() -> tuple[Tool, ...]:
    """All actions as tools of a language model."""
    return tuple(Tool(name, about, schema_of(name)) for name, (about, _, _) in ACTIONS.items())


def check_action(action: Action) -> None:
    """Raise UserError, in words that an agent can act on, for an action that breaks its schema."""
    if action.name not in ACTIONS:
        raise UserError(
            f"there is no action {action.name[:40]!r}" if action.name else "no action was called",
            where="action",
            remedy=f"call one of {', '.join(ACTIONS)}",
        )
    arguments = dict(action.arguments)
    errors = list(_validator(action.name).iter_errors(arguments))
    if errors:
        error = min(errors, key=lambda each: len(each.absolute_path))
        place = ".".join(map(str, error.absolute_path))
        raise UserError(
            error.message[:300],
            where=f"{action.name}{f'.{place}' if place else ''}",
            remedy="call the action again with arguments that meet its schema",
        )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not -MOST_NUMBER <= value <= MOST_NUMBER:  # NaN too
        return str(value) if isinstance(value, float) else f"{'-' if value < 0 else ''}huge"
    return int(value) if isinstance(value, float) and value.is_integer() else value


@lru_cache(maxsize=len(ACTIONS))
def _validator(name: str) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(schema_of(name))
