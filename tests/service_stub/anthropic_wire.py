"""The Messages API as the stub speaks it: what it refuses, and the message it sends."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.service_stub.replies import Reply, tokens_in

API_VERSION = "2026-10-21"
KNOWN = {
    "model", "max_tokens", "messages", "system", "stop_sequences", "thinking", "tools",
    "tool_choice", "output_config", "cache_control", "metadata", "service_tier",
}  # fmt: skip
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 500: "api_error", 503: "api_error", 529: "overloaded_error",
}  # fmt: skip
REFUSED_KEYWORDS = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "maxItems", "uniqueItems", "minProperties", "maxProperties",
}  # fmt: skip
STOPS = {"ok": "end_turn", "max_tokens": "max_tokens", "refusal": "refusal"}
CACHED_FROM = 1024  # tokens; shorter prefixes are not cached, silently
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")


def error_body(status: int, message: str, request_id: str) -> bytes:
    """The message quotes what was sent, as the real ones sometimes do."""
    error = {"type": TYPES.get(status, "api_error"), "message": message}
    return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()


def objection(body: Any) -> str:
    """Why the API would refuse a body with 400; "" if it would not."""
    if not isinstance(body, dict):
        return "the body is no object"
    if unknown := set(body) - KNOWN:
        return f"{sorted(unknown)[0]}: Extra inputs are not permitted"
    for name in ("model", "max_tokens", "messages"):
        if not body.get(name):
            return f"{name}: Field required"
    for message in body["messages"]:
        if message.get("role") not in ("user", "assistant") or not message.get("content"):
            return "messages: wrong role or empty content"
    if body["messages"][0]["role"] != "user":
        return "messages: first message must use the user role"
    if body["messages"][-1]["role"] != "user":
        return "This model does not support assistant message prefill"
    schema = schema_of(body)
    return _schema_objection(schema) if schema else ""


def _schema_objection(schema: Any) -> str:
    if isinstance(schema, list):
        return next((why for part in schema if (why := _schema_objection(part))), "")
    if not isinstance(schema, dict):
        return ""
    if refused := REFUSED_KEYWORDS & set(schema):
        return f"output_config.format.schema: {sorted(refused)[0]} is not supported"
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return "output_config.format.schema: additionalProperties must be false"
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("anyOf")]
    return _schema_objection([part for part in parts if part is not None])


def batch_objection(body: Any) -> str:
    requests = body.get("requests") if isinstance(body, dict) else None
    if not requests:
        return "requests: Field required"
    ids = [row.get("custom_id", "") for row in requests]
    if len(set(ids)) < len(ids):
        return "requests: custom_id must be unique"
    if not all(_CUSTOM_ID.match(one) for one in ids):
        return "requests: custom_id has a wrong form"
    return ""


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return ((body.get("output_config") or {}).get("format") or {}).get("schema")


def forced_tool(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    choice = body.get("tool_choice") or {}
    for tool in body.get("tools") or []:
        if choice.get("type") == "any" or choice.get("name") == tool["name"]:
            return tool["name"], tool["input_schema"]
    return None


def input_tokens(body: Mapping[str, Any]) -> int:
    parts = [body.get("system", ""), body.get("tools", ""), body["messages"]]
    return sum(tokens_in(part if isinstance(part, str) else json.dumps(part)) for part in parts)


def message(body: Mapping[str, Any], digest: str, reply: Reply, cached: set[str]) -> dict[str, Any]:
    """A Message object. `cached` holds the prefixes that were written to the cache so far."""
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    for n, (name, given) in enumerate(reply.tool_calls):
        content.append(
            {"type": "tool_use", "id": f"toolu_{digest[:8]}{n}", "name": name, "input": dict(given)}
        )
    stop = "tool_use" if reply.tool_calls and reply.stop == "ok" else STOPS[reply.stop]
    out = sum(tokens_in(json.dumps(block)) for block in content)
    return {
        "id": f"msg_{digest[:24]}", "type": "message", "role": "assistant",
        "model": body["model"], "content": content, "stop_reason": stop, "stop_sequence": None,
        "usage": {**_input_usage(body, cached), "output_tokens": min(out, body["max_tokens"])},
    }  # fmt: skip


def _input_usage(body: Mapping[str, Any], cached: set[str]) -> dict[str, int]:
    total = input_tokens(body)
    usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    system = body.get("system")
    marked = isinstance(system, list) and any("cache_control" in block for block in system)
    prefix = json.dumps([body["model"], body.get("tools"), system], sort_keys=True)
    n = tokens_in(prefix)
    if marked and n >= CACHED_FROM:
        n = min(n, total)
        name = "cache_read_input_tokens" if prefix in cached else "cache_creation_input_tokens"
        cached.add(prefix)
        usage[name] = n
        total -= n
    return {"input_tokens": total, **usage}
