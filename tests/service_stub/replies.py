"""What the stub answers: from the test's own function, or made from the body alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer in full. `tool_calls`: (name, input) pairs. `stop`: ok, max_tokens or refusal."""

    text: str = ""
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    stop: str = "ok"


# The body as it came over the wire -> the text, an object (sent as JSON text), or a Reply.
Answerer = Callable[[dict[str, Any]], "str | dict[str, Any] | Reply"]


def reply_to(
    body: dict[str, Any], digest: str, answer: Answerer | None, schema: Mapping[str, Any] | None,
    forced_tool: tuple[str, Mapping[str, Any]] | None,
) -> Reply:  # fmt: skip
    """The reply to a body. `forced_tool`: name and schema of the tool that must be called."""
    if answer is not None:
        given = answer(body)
        if isinstance(given, Reply):
            return given
        return Reply(given if isinstance(given, str) else json.dumps(given))
    draw = random.Random(digest)
    if forced_tool is not None:
        return Reply(tool_calls=((forced_tool[0], instance_of(forced_tool[1], draw)),))
    if schema is not None:
        return Reply(json.dumps(instance_of(schema, draw)))
    return Reply(f"answer {digest[:12]}")


def instance_of(schema: Mapping[str, Any], draw: random.Random) -> Any:
    """Some value that meets a schema of the plain kind (no references)."""
    if "enum" in schema:
        return draw.choice(list(schema["enum"]))
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return instance_of(draw.choice(list(schema["anyOf"])), draw)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        parts = schema.get("properties", {})
        return {name: instance_of(part, draw) for name, part in parts.items()}
    if kind == "array":
        n = max(schema.get("minItems", 1), 1)
        return [instance_of(schema.get("items", {"type": "string"}), draw) for _ in range(n)]
    plain = {
        "string": lambda: f"word{draw.randrange(1000)}",
        "integer": lambda: draw.randint(schema.get("minimum", 0), schema.get("maximum", 9)),
        "number": lambda: round(draw.random(), 3),
        "boolean": lambda: draw.random() < 0.5,
    }
    return plain[kind]() if kind in plain else None


def tokens_in(text: str) -> int:
    """The stub's tokenizer: a token per four characters."""
    return (len(text) + 3) // 4
