"""The Messages wire format: an ask as a request's body, and a message as a reading.

Source: the types of the anthropic SDK 2.12 (`types/message_create_params.py`, `types/message.py`).
No sampling parameters: the API of 2026-10-21 answers 400 to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from interpflow.llm.answers import Outcome, RawResponse, Reading, ToolCall, Usage
from interpflow.llm.asks import Ask
from interpflow.llm.wire.schemas import choice_schema, sent_schema
from interpflow.llm.wire.service_failures import error_terms, request_id_in, term
from interpflow.llm.wire.values import model_name, unreadable, whole_number, without_surrogates

# A prefix shorter than the model's minimum (512 to 4,096 tokens) is not cached, without an error;
# one that is written and never read again costs a quarter more. Characters per token: about 4.
CACHED_FROM_CHARACTERS = 4 * 1024
_OUTCOMES: dict[str, Outcome] = {
    "end_turn": "ok",
    "stop_sequence": "ok",
    "tool_use": "ok",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "refusal": "refusal",
}


def message_body(ask: Ask, model: str, longest: int) -> dict[str, Any]:
    """The body of POST /v1/messages. `longest`: tokens, a limit on the ask's own `max_tokens`."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": min(ask.max_tokens, longest),
        "messages": [{"role": turn.speaker, "content": turn.content} for turn in ask.turns],
    }
    if ask.tools:
        body["tools"] = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.parameters),
            }
            for tool in ask.tools
        ]
        if ask.tool_choice in ("any", "none"):
            body["tool_choice"] = {"type": ask.tool_choice}
        elif ask.tool_choice != "auto":
            body["tool_choice"] = {"type": "tool", "name": ask.tool_choice}
    if ask.system:
        body["system"] = _system(ask.system)
    schema = choice_schema(ask.choices) if ask.choices else ask.schema and sent_schema(ask.schema)
    if schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def message_reading(raw: RawResponse) -> Reading:
    """What a raw response says. Never fails, whatever the bytes."""
    try:
        content = json.loads(raw.body)
    except (ValueError, RecursionError):
        return unreadable(raw, "the body is no JSON")
    if not isinstance(content, dict) or content.get("type") != "message":
        kind, _ = error_terms(content)
        return unreadable(raw, kind or "the body is no message")
    blocks = content.get("content")
    if not isinstance(blocks, list):
        return unreadable(raw, "the message has no content")
    stop = term(content.get("stop_reason"))
    outcome = _OUTCOMES.get(stop, "error")
    why = "" if outcome == "ok" else f"stop_reason {stop or 'missing'}"
    calls = tuple(_tool_calls(blocks))
    if outcome == "ok" and any(call is None for call in calls):
        outcome, why = "invalid", "a tool call without a name or an input"
    return Reading(
        outcome,
        without_surrogates("".join(_texts(blocks))),
        tuple(call for call in calls if call is not None),
        _usage(content.get("usage")),
        model_name(content.get("model")),
        request_id_in(raw.headers),
        why,
    )


def _system(text: str) -> str | list[dict[str, Any]]:
    if len(text) < CACHED_FROM_CHARACTERS:
        return text
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]


def _texts(blocks: list[Any]) -> list[str]:
    return [
        block["text"]
        for block in blocks
        if isinstance(block, dict)
        and block.get("type") == "text"
        and isinstance(block.get("text"), str)
    ]


def _tool_calls(blocks: list[Any]) -> list[ToolCall | None]:
    """None for a call that cannot be read."""
    found: list[ToolCall | None] = []
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "tool_use":
            name, given = block.get("name"), block.get("input")
            if isinstance(name, str) and isinstance(given, dict):
                found.append(ToolCall(str(block.get("id", "")), name, given))
            else:
                found.append(None)
    return found


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, Mapping):
        return Usage()
    hourly = usage.get("cache_creation")
    return Usage(
        input_tokens=whole_number(usage.get("input_tokens")),
        cache_write_tokens=whole_number(usage.get("cache_creation_input_tokens")),
        cache_read_tokens=whole_number(usage.get("cache_read_input_tokens")),
        output_tokens=whole_number(usage.get("output_tokens")),
        cache_write_1h_tokens=whole_number(hourly.get("ephemeral_1h_input_tokens"))
        if isinstance(hourly, Mapping)
        else 0,
    )
