"""Whether an answer is what was asked for: one of the choices, or JSON that meets the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from interpflow.errors import UserError
from interpflow.llm.answers import Outcome, Reading
from interpflow.llm.asks import Ask
from interpflow.llm.requests import canonical_body

_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


@dataclass(frozen=True)
class Checked:
    """A reading judged against its ask. `why` names the rule that was broken, never the content."""

    outcome: Outcome
    data: Any = None
    why: str = ""


def check(ask: Ask, reading: Reading) -> Checked:
    """The outcome of a reading for this ask, with the parsed answer where it is ok.

    A call of a tool is an answer too, whatever the schema. Raises UserError for an ask whose schema
    is none.
    """
    if reading.outcome != "ok":
        return Checked(reading.outcome, None, reading.why)
    if reading.tool_calls or (not ask.choices and ask.schema is None):
        return Checked("ok")
    if ask.choices:
        chosen = _chosen(reading.text, ask.choices)
        return Checked("invalid", None, "none of the choices") if chosen is None else chosen
    return _by_schema(reading.text, ask.schema or {})


def check_schema(ask: Ask) -> None:
    """Raise UserError for an ask whose schema is none: before anything is bought."""
    if ask.schema is not None:
        _validator(canonical_body(ask.schema))


def _chosen(text: str, choices: tuple[str, ...]) -> Checked | None:
    """The choice that a text is: plain, as a JSON string, or the one value of a JSON object."""
    text = text.strip()
    if text in choices:
        return Checked("ok", text)
    value = _parsed(text)
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return Checked("ok", value) if isinstance(value, str) and value in choices else None


def _by_schema(text: str, schema: Mapping[str, Any]) -> Checked:
    value = _parsed(text.strip())
    if value is _NOTHING:
        return Checked("invalid", None, "no JSON")
    error = next(_validator(canonical_body(schema)).iter_errors(value), None)
    if error is None:
        return Checked("ok", value)
    # The rule and the place in the schema's own terms; the message would quote the answer.
    place = "/".join(str(part) for part in error.schema_path)
    return Checked("invalid", None, f"breaks the schema at {place}")


_NOTHING = object()


def _parsed(text: str) -> Any:
    fenced = _FENCED.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOTHING


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # NaN and Infinity are no JSON


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> Any:
    import jsonschema

    kind = jsonschema.Draft202012Validator
    content = json.loads(schema)
    try:
        kind.check_schema(content)
    except jsonschema.SchemaError as error:
        raise UserError(
            f"the schema of an ask is no JSON schema: {error.message}", where="Ask.schema"
        ) from None
    return kind(content)
