"""The chat-completions wire format: an ask as a request's body, and a completion as a reading.

Source: the types of the openai SDK 3.54 (`types/chat/`), and what vLLM, llama.cpp and Gemini's
endpoint document of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from interpflow.errors import UserError
from interpflow.llm.answers import Outcome, RawResponse, Reading, ToolCall, Usage
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.wire.schemas import choice_schema, is_strict, sent_schema
from interpflow.llm.wire.service_failures import error_terms, request_id_in, term
from interpflow.llm.wire.values import model_name, unreadable, whole_number, without_surrogates

_OUTCOMES: dict[str, Outcome] = {
    "stop": "ok",
    "tool_calls": "ok",
    "function_call": "ok",
    "length": "truncated",
    "content_filter": "refusal",
}


def chat_body(ask: Ask, model: str, longest: int, limit_name: str) -> dict[str, Any]:
    """The body of POST /chat/completions.

    longest: tokens, a limit on the ask's own `max_tokens`. limit_name: what the server calls that
    limit. The seed is the sample's index: where a server obeys it, samples are draws that can be
    made again. Raises UserError for content blocks that have no counterpart.
    """
    messages = [{"role": "system", "content": ask.system}] if ask.system else []
    for turn in ask.turns:
        messages += _messages(turn)
    body: dict[str, Any] = {
        "model": model,
        limit_name: min(ask.max_tokens, longest),
        "messages": messages,
        "seed": ask.sample,
    }
    if ask.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                },
            }
            for tool in ask.tools
        ]
        if ask.tool_choice != "auto":
            named = {"type": "function", "function": {"name": ask.tool_choice}}
            body["tool_choice"] = {"any": "required", "none": "none"}.get(ask.tool_choice, named)
    schema = choice_schema(ask.choices) if ask.choices else ask.schema and sent_schema(ask.schema)
    if schema:
        form = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def chat_reading(raw: RawResponse) -> Reading:
    """What a raw response says. Never fails, whatever the bytes."""
    try:
        content = json.loads(raw.body)
    except (ValueError, RecursionError):
        return unreadable(raw, "the body is no JSON")
    choices = content.get("choices") if isinstance(content, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    said = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(said, dict):
        kind, code = error_terms(content)
        return unreadable(raw, kind or code or "the body is no completion")
    stop = first.get("finish_reason")
    # Some servers name no reason for an answer that simply ended.
    outcome = "ok" if stop is None else _OUTCOMES.get(term(stop), "error")
    why = "" if outcome == "ok" else f"finish_reason {term(stop)}"
    if outcome == "ok" and said.get("refusal"):
        outcome, why = "refusal", "refusal"
    calls = tuple(_tool_calls(said.get("tool_calls")))
    if outcome == "ok" and any(call is None for call in calls):
        outcome, why = "invalid", "a tool call whose arguments are no JSON object"
    return Reading(
        outcome,
        without_surrogates(_text(said.get("content"))),
        tuple(call for call in calls if call is not None),
        _usage(content.get("usage")),
        model_name(content.get("model")),
        request_id_in(raw.headers),
        why,
    )


def _messages(turn: Turn) -> list[dict[str, Any]]:
    """A turn's messages: results of tools are messages of their own, before what the user says."""
    if isinstance(turn.content, str):
        return [{"role": turn.speaker, "content": turn.content}]
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for block in turn.content:
        kind = block.get("type")
        if kind == "text":
            texts.append(block["text"])
        elif kind == "tool_use" and turn.speaker == "assistant":
            arguments = json.dumps(block["input"], ensure_ascii=False, sort_keys=True)
            function = {"name": block["name"], "arguments": arguments}
            calls.append({"id": block["id"], "type": "function", "function": function})
        elif kind == "tool_result" and turn.speaker == "user":
            said = _result_text(block.get("content", ""))
            results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": said})
        else:
            raise _no_counterpart(kind)
    own: dict[str, Any] = {"role": turn.speaker, "content": "\n".join(texts)}
    if calls:
        own["tool_calls"] = calls
        own["content"] = own["content"] or None
    return results + ([own] if texts or calls else [])


def _result_text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    other = [block.get("type") for block in content if block.get("type") != "text"]
    if other:
        raise _no_counterpart(other[0])
    return "\n".join(block["text"] for block in content)


def _no_counterpart(kind: Any) -> UserError:
    return UserError(
        f"the provider openai_compatible cannot send content of the type {term(kind)!r} here",
        where="Turn.content",
        remedy="use text, tool_use (assistant) and tool_result (user) blocks",
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _tool_calls(calls: Any) -> Iterator[ToolCall | None]:
    """None for a call that cannot be read."""
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield None
            continue
        given = _arguments(function.get("arguments"))
        if given is None:
            yield None
        else:
            yield ToolCall(str(call.get("id", "")), function["name"], given)


def _arguments(given: Any) -> dict[str, Any] | None:
    """Null where they cannot be read. A tool without parameters is called with "" by some."""
    try:
        content = json.loads(given or "{}") if isinstance(given, str | None) else given
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _usage(usage: Any) -> Usage:
    """Cached tokens are part of `prompt_tokens`. What the total has beyond prompt and completion is
    reasoning that some endpoints (Gemini's) bill as output without counting it there."""
    if not isinstance(usage, Mapping):
        return Usage()
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, Mapping) else {}
    prompt = whole_number(usage.get("prompt_tokens"))
    read = min(whole_number(details.get("cached_tokens")), prompt)
    written = min(whole_number(details.get("cache_write_tokens")), prompt - read)
    beyond_prompt = whole_number(usage.get("total_tokens")) - prompt
    return Usage(
        input_tokens=prompt - read - written,
        cache_write_tokens=written,
        cache_read_tokens=read,
        output_tokens=max(whole_number(usage.get("completion_tokens")), beyond_prompt),
    )
