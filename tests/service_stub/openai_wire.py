"""Chat completions and completions as the stub speaks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.service_stub.replies import Reply, tokens_in

CODES = {401: "invalid_api_key", 402: "insufficient_quota", 404: "model_not_found"}
STOPS = {"ok": "stop", "max_tokens": "length", "refusal": "stop"}


def error_body(status: int, message: str) -> bytes:
    kind = {429: "requests", 500: "server_error"}.get(status, "invalid_request_error")
    error = {"message": message, "type": kind, "param": None, "code": CODES.get(status)}
    return json.dumps({"error": error}).encode()


def objection(body: Any, path: str) -> str:
    """Why a body would be refused with 400; "" if it would not."""
    if not isinstance(body, dict) or not body.get("model"):
        return "you must provide a model parameter"
    needed = "messages" if path.endswith("chat/completions") else "prompt"
    if not body.get(needed):
        return f"'{needed}' is required"
    for turn in body.get("messages", []):
        if turn.get("role") not in ("system", "developer", "user", "assistant", "tool"):
            return "messages: wrong role"
        if turn["role"] == "tool" and not turn.get("tool_call_id"):
            return "messages: a tool message needs a tool_call_id"
        if isinstance(turn.get("content"), list):
            for block in turn["content"]:
                if block.get("type") != "text":
                    return "messages: unknown content type"
    return ""


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")


def forced_tool(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    choice = body.get("tool_choice")
    name = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    for tool in body.get("tools") or []:
        if choice == "required" or name == tool["function"]["name"]:
            return tool["function"]["name"], tool["function"]["parameters"]
    return None


def completion(
    body: Mapping[str, Any], digest: str, reply: Reply, cached: set[str], path: str
) -> dict[str, Any]:
    """A chat completion or a completion. A prompt that was seen before is read from the cache."""
    prompt = json.dumps(body.get("messages") or body.get("prompt"))
    n_in, n_out = tokens_in(prompt), tokens_in(reply.text + json.dumps(reply.tool_calls))
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 10**6
    usage = {
        "prompt_tokens": n_in, "completion_tokens": min(n_out, limit),
        "total_tokens": n_in + min(n_out, limit),
        "prompt_tokens_details": {"cached_tokens": n_in // 2 if prompt in cached else 0},
    }  # fmt: skip
    cached.add(prompt)
    head = {"id": f"cmpl-{digest[:24]}", "model": body["model"], "created": 0, "usage": usage}
    if not path.endswith("chat/completions"):
        choice = {"index": 0, "text": reply.text, "finish_reason": STOPS[reply.stop]}
        return {**head, "object": "text_completion", "choices": [choice]}
    calls = [
        {"id": f"call_{digest[:8]}{n}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(given)}}
        for n, (name, given) in enumerate(reply.tool_calls)
    ]  # fmt: skip
    refused = reply.stop == "refusal"
    said = {
        "role": "assistant",
        "content": None if refused or calls else reply.text,
        "refusal": (reply.text or "I cannot help with that") if refused else None,
        **({"tool_calls": calls} if calls else {}),
    }
    stop = "tool_calls" if calls and reply.stop == "ok" else STOPS[reply.stop]
    choice = {"index": 0, "message": said, "finish_reason": stop}
    return {**head, "object": "chat.completion", "choices": [choice]}
