"""What the stub does with a request: faults, refusals, answers, bills."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.service_stub import anthropic_wire, openai_wire
from tests.service_stub.batches import Batches
from tests.service_stub.billing import Billing, digest_of
from tests.service_stub.faults import FaultPlan, Faults
from tests.service_stub.http_wire import HttpReply, HttpRequest
from tests.service_stub.replies import Answerer, Reply, reply_to

COMPLETIONS = ("/v1/messages", "/v1/chat/completions", "/v1/completions")
STATUSES = {
    "429": 429, "429_retry_after": 429, "500": 500, "503": 503, "529": 529, "400": 400,
    "401": 401, "402": 402, "403": 403, "404": 404,
}  # fmt: skip


@dataclass(frozen=True)
class StubSettings:
    """`key`: the only API key accepted; null: any, and none. `latency_s`: before every answer.

    `headers`: added to every answer of a model (such as rate limits). `batch_polls`: retrievals of
    a batch until it has ended. Models: any; "retired-..." and "deprecated-..." are what they are
    called, and "unknown-..." is not found.
    """

    faults: Faults = field(default_factory=Faults)
    answer: Answerer | None = None
    key: str | None = None
    journal: Path | str | None = None
    latency_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    batch_polls: int = 1


class Service:
    """The stub without its sockets. `requests` holds every request as it arrived."""

    def __init__(self, settings: StubSettings) -> None:
        self.settings = settings
        self.plan = FaultPlan(settings.faults)
        self.billing = Billing(settings.journal)
        self.batches = Batches(settings.batch_polls)
        self.requests: list[HttpRequest] = []
        self._cached: set[str] = set()
        self._ids = itertools.count(1)

    def handle(self, request: HttpRequest) -> HttpReply:
        if request.path == "/stub/state":
            return HttpReply(200, json.dumps(self.state()).encode())
        self.requests.append(request)
        request_id = f"req_{next(self._ids):08d}"
        if not self._allowed(request):
            return self._error(request, 401, request_id)
        reply = self._routed(request, request_id)
        return replace(reply, headers={"request-id": request_id, **reply.headers})

    def state(self) -> dict[str, Any]:
        return {"requests": len(self.requests), "billed": len(self.billing.entries)}

    def _routed(self, request: HttpRequest, request_id: str) -> HttpReply:
        path = request.path
        if request.method == "POST" and path in COMPLETIONS:
            return self._completion(request, request_id)
        if request.method == "POST" and path == "/v1/messages/count_tokens":
            body = {"max_tokens": 1, **json.loads(request.body)}
            if anthropic_wire.objection(body):
                return self._error(request, 400, request_id, anthropic_wire.objection(body))
            counted = {"input_tokens": anthropic_wire.input_tokens(body)}
            return HttpReply(200, json.dumps(counted).encode())
        if path.startswith("/v1/messages/batches"):
            return self._batch(request, request_id)
        if request.method == "GET" and path.startswith("/v1/models/"):
            return self._model(request, path.removeprefix("/v1/models/"), request_id)
        return self._error(request, 404, request_id, "no such path")

    def _completion(self, request: HttpRequest, request_id: str) -> HttpReply:
        claude = request.path == "/v1/messages"
        try:
            body = json.loads(request.body)
        except ValueError:
            return self._error(request, 400, request_id, "no JSON")
        if claude:
            why = anthropic_wire.objection(body)
            if request.headers.get("anthropic-version") != anthropic_wire.API_VERSION:
                why = "anthropic-version: header is required"
        else:
            why = openai_wire.objection(body, request.path)
        if why:
            return self._error(request, 400, request_id, why)
        if str(body["model"]).startswith("unknown-"):
            return self._error(request, 404, request_id, f"model: {body['model']}")
        digest = digest_of(body)
        fault = self.plan.for_call(digest)
        if fault == "drop":
            return HttpReply(500, b"", cut_at=-1)
        if fault in STATUSES:
            extra = self.settings.faults.limited_headers if fault == "429_retry_after" else {}
            reply = self._error(request, STATUSES[fault], request_id)
            return replace(reply, headers={**reply.headers, **extra})
        content = self._answered(request.path, body, digest, fault)
        self.billing.bill(digest, fault)
        return self._sent(content, fault)

    def _answered(self, path: str, body: dict[str, Any], digest: str, fault: str) -> dict[str, Any]:
        wire = anthropic_wire if path == "/v1/messages" else openai_wire
        reply = reply_to(
            body, digest, self.settings.answer, wire.schema_of(body), wire.forced_tool(body)
        )
        if fault == "max_tokens":
            reply = Reply(reply.text[: len(reply.text) // 2], stop="max_tokens")
        elif fault == "refusal":
            reply = Reply(stop="refusal")
        if path == "/v1/messages":
            return anthropic_wire.message(body, digest, reply, self._cached)
        return openai_wire.completion(body, digest, reply, self._cached, path)

    def _sent(self, content: dict[str, Any], fault: str) -> HttpReply:
        body = json.dumps(content, ensure_ascii=False).encode()
        delay = self.settings.latency_s
        if fault == "slow":
            delay += self.settings.faults.slow_s
        if fault == "malformed":
            body = body[: len(body) // 2]
        cut = len(body) // 2 if fault == "disconnect" else None
        return HttpReply(200, body, self.settings.headers, delay, cut)

    def _batch(self, request: HttpRequest, request_id: str) -> HttpReply:
        rest = request.path.removeprefix("/v1/messages/batches").strip("/")
        if request.method == "POST" and not rest:
            return self._create_batch(request, request_id)
        if request.method == "GET" and not rest:
            return HttpReply(200, json.dumps(self.batches.page(request.query)).encode())
        name, _, tail = rest.partition("/")
        batch = self.batches.all.get(name) if tail else self.batches.poll(name)
        if batch is None or (tail and not batch.ended):
            return self._error(request, 404, request_id, "no such batch")
        if tail:
            lines = self.batches.results(batch)
            return HttpReply(200, lines, {"content-type": "application/x-jsonl"})
        return HttpReply(200, json.dumps(self.batches.described(batch)).encode())

    def _create_batch(self, request: HttpRequest, request_id: str) -> HttpReply:
        body = json.loads(request.body)
        fault = self.plan.for_create()
        if why := anthropic_wire.batch_objection(body):
            return self._error(request, 400, request_id, why)
        if fault in STATUSES:
            return self._error(request, STATUSES[fault], request_id)
        batch = self.batches.create(body["requests"], self._row)
        reply = HttpReply(200, json.dumps(self.batches.described(batch)).encode())
        return replace(reply, cut_at=10) if fault == "lost" else reply

    def _row(self, custom_id: str, params: dict[str, Any], batch_id: str) -> dict[str, Any]:
        kind = self.plan.for_row(custom_id)
        if anthropic_wire.objection(params):
            kind = "errored_invalid"
        if kind.startswith("errored"):
            status = 400 if kind == "errored_invalid" else 500
            error = json.loads(anthropic_wire.error_body(status, "the row failed", "req_row"))
            return {"type": "errored", "error": error}
        if kind != "succeeded":
            return {"type": kind}
        digest = digest_of(params)
        self.billing.bill(digest, "ok", batch_id)
        content = self._answered("/v1/messages", params, digest, "ok")
        content["usage"]["service_tier"] = "batch"
        return {"type": "succeeded", "message": content}

    def _model(self, request: HttpRequest, name: str, request_id: str) -> HttpReply:
        if name.startswith("unknown-"):
            return self._error(request, 404, request_id, f"model: {name}")
        stage = next((s for s in ("retired", "deprecated") if name.startswith(s)), "active")
        past = None if stage == "active" else "2026-01-01T00:00:00Z"
        info = {
            "id": name, "type": "model", "object": "model", "display_name": name,
            "created_at": "2026-01-01T00:00:00Z", "lifecycle": stage, "deprecated_at": past,
            "retires_at": past and "2026-12-31T00:00:00Z", "max_input_tokens": 200_000,
            "max_tokens": 64_000,
        }  # fmt: skip
        return HttpReply(200, json.dumps(info).encode())

    def _allowed(self, request: HttpRequest) -> bool:
        if self.settings.key is None:
            return True
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.settings.key in (given, request.headers.get("x-api-key"))

    def _error(
        self, request: HttpRequest, status: int, request_id: str, message: str = ""
    ) -> HttpReply:
        """An error in the protocol's own form. Like real ones it may quote what was sent."""
        message = message or f"status {status} to {request.body[:200].decode(errors='replace')}"
        chat = "completions" in request.path
        body = (
            openai_wire.error_body(status, message)
            if chat
            else anthropic_wire.error_body(status, message, request_id)
        )
        return HttpReply(status, body)
