"""JSON schemas as services take them for structured output.

The grammars that hold a model to a schema know a part of JSON Schema only, and refuse the rest with
HTTP 400. What they do not know is moved to the description, which the model reads; the answer is
checked against the whole schema afterwards (`answer_checks`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# The one property of the object that an answer to a closed question is sent in.
CHOICE = "choice"
_KEPT = frozenset({
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "default", "definitions",
    "description", "enum", "format", "items", "properties", "required", "title", "type",
})  # fmt: skip
_FORMATS = frozenset({
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid",
})  # fmt: skip
_NAMED = ("$defs", "definitions", "properties")


def choice_schema(choices: tuple[str, ...]) -> dict[str, Any]:
    """An object whose one property is one of the choices."""
    return {
        "type": "object",
        "properties": {CHOICE: {"type": "string", "enum": list(choices)}},
        "required": [CHOICE],
        "additionalProperties": False,
    }


def sent_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with every object closed, oneOf as anyOf, and rules that grammars refuse in words.

    Of the item counts only `minItems` of 0 and 1 are rules that grammars know.
    """
    part: dict[str, Any] = {}
    in_words: list[str] = []
    for name, value in schema.items():
        if name == "oneOf":
            part["anyOf"] = [_sent(one) for one in value]
        elif name == "minItems" and value in (0, 1):
            part[name] = value
        elif name in _NAMED:
            part[name] = {key: _sent(one) for key, one in value.items()}
        elif name in ("items", "anyOf", "allOf"):
            part[name] = [_sent(one) for one in value] if isinstance(value, list) else _sent(value)
        elif name in _KEPT and (name != "format" or value in _FORMATS):
            part[name] = value
        elif not name.startswith("$"):
            in_words.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    if in_words:
        rules = "{" + ", ".join(sorted(in_words)) + "}"
        part["description"] = "\n\n".join(filter(None, [part.get("description", ""), rules]))
    if "properties" in part or part.get("type") == "object":
        part["additionalProperties"] = False
    return part


def is_strict(schema: Any) -> bool:
    """Whether every object requires all of its properties, as strict mode of OpenAI wants it."""
    if isinstance(schema, list):
        return all(is_strict(one) for one in schema)
    if not isinstance(schema, Mapping):
        return True
    parts = [one for name in _NAMED for one in schema.get(name, {}).values()]
    parts += [schema.get("items"), schema.get("anyOf"), schema.get("allOf")]
    required = set(schema.get("required", ()))
    return required >= set(schema.get("properties", {})) and is_strict(parts)


def _sent(value: Any) -> Any:
    return sent_schema(value) if isinstance(value, Mapping) else value
