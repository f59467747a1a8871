"""Anthropic's Messages API through its SDK, alone or in Message Batches."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.asks import Ask
from interpflow.llm.batches.service import BatchState, BatchSummary, RowKind
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.requests import Request, canonical_body
from interpflow.llm.wire.anthropic_messages import message_body, message_reading
from interpflow.llm.wire.sdk_calls import SdkCalls, parsed
from interpflow.llm.wire.service_address import checked_base_url, key_in
from interpflow.llm.wire.service_failures import STATUS_OF_TYPE, error_terms, named
from interpflow.llm.wire.values import most_input_tokens

logger = logging.getLogger(__name__)

BASE_URL = "https://api.anthropic.com"
KEY_VARIABLE = "ANTHROPIC_API_KEY"
# Frozen here and not left to the SDK: it is part of every request's key.
API_VERSION = "2026-10-21"
MESSAGES = "/v1/messages"
BATCHES = "/v1/messages/batches"
SHORT_CALL_S = 60.0
CREATE_S = 600.0
MOST_PER_PAGE = 100
_ROWS: dict[str, RowKind] = {
    "succeeded": "succeeded", "errored": "errored", "canceled": "canceled", "expired": "expired",
}  # fmt: skip


def provider(settings: RoleModel) -> AnthropicProvider:
    """Raises UserError for a missing key or an address that is none."""
    where = "llm.roles, provider anthropic"
    host = checked_base_url(settings.base_url or BASE_URL, f"{where}, base_url")
    key = key_in(settings.api_key_env or KEY_VARIABLE, f"{where}, api_key_env")
    return AnthropicProvider(settings, host.removesuffix("/v1"), key)


class AnthropicProvider:
    """One Claude model. Its connections belong to the event loop that first sends."""

    stored = True
    priced = True

    def __init__(self, settings: RoleModel, host: str, key: str) -> None:
        self.model = settings.model or ""
        self.host = host
        self._longest = settings.max_tokens
        self._calls = SdkCalls(host, partial(_opened, host, key))

    def request(self, ask: Ask) -> Request:
        body = canonical_body(message_body(ask, self.model, self._longest))
        return Request(
            "anthropic", self.model, MESSAGES, self.host, API_VERSION, (), body, ask.sample
        )

    async def send(self, request: Request, timeout_s: float) -> RawResponse:
        return await self._calls.post(MESSAGES, request.body, timeout_s)

    def read(self, raw: RawResponse) -> Reading:
        return message_reading(raw)

    def estimated_input_tokens(self, request: Request) -> int:
        """A bound, for prose about four times too much; `count_tokens` asks the service."""
        return most_input_tokens(request.body)

    async def count_tokens(self, request: Request, timeout_s: float = SHORT_CALL_S) -> int:
        """Input tokens of a request as the service counts them; free. Raises ServiceFailure."""
        content = request.content
        del content["max_tokens"]
        body = canonical_body(content)
        raw = await self._calls.post(f"{MESSAGES}/count_tokens", body, timeout_s)
        counted = parsed(raw.body, self.host).get("input_tokens")
        if not isinstance(counted, int):
            raise ServiceFailure("passing", f"{named(self.host)}: no count of tokens came back")
        return counted

    async def check_model(self, timeout_s: float = SHORT_CALL_S) -> None:
        """Raise UserError for a model that is unknown or retired; log what is deprecated.

        Raises ServiceFailure where the service cannot be asked.
        """
        where = "llm.roles, provider anthropic, model"
        try:
            path = f"/v1/models/{quote(self.model, safe='')}"
            info = await self._calls.get(path, timeout_s)
        except ServiceFailure as failure:
            if failure.status != 404:
                raise
            info = None
        if info is None:
            raise UserError(
                f"{named(self.host)} knows no model {self.model}",
                where=where,
                remedy="give a model id as the service lists it",
            )
        retires = str(info.get("retires_at") or "a day not yet named")[:10]
        if info.get("lifecycle") == "retired":
            raise UserError(
                f"the model {self.model} is retired", where=where, remedy="name another model"
            )
        if info.get("lifecycle") == "deprecated":
            logger.warning("the model %s is deprecated; it retires on %s", self.model, retires)

    async def create_batch(self, requests: Sequence[Request]) -> str:
        rows = (
            b'{"custom_id":"%b","params":%b}' % (request.key.encode(), request.body)
            for request in requests
        )
        body = b'{"requests":[' + b",".join(rows) + b"]}"
        raw = await self._calls.post(BATCHES, body, CREATE_S)
        name = _json(raw.body).get("id")
        if not isinstance(name, str) or not name:
            # It was created all the same: only its name is lost.
            what = f"{named(self.host)}: the new batch has no id"
            raise ServiceFailure("passing", what, maybe_billed=True)
        return name

    async def batch_state(self, batch_id: str) -> BatchState:
        path = f"{BATCHES}/{quote(batch_id, safe='')}"
        batch = await self._calls.get(path, SHORT_CALL_S)
        return BatchState(batch.get("processing_status") == "ended", _counts(batch))

    async def batches_since(self, time: float) -> list[BatchSummary]:
        found: list[BatchSummary] = []
        after = ""
        while True:
            path = f"{BATCHES}?limit={MOST_PER_PAGE}" + (f"&after_id={after}" if after else "")
            page = await self._calls.get(path, SHORT_CALL_S)
            batches = [one for one in page.get("data") or [] if isinstance(one, dict)]
            recent = [one for one in map(self._summary, batches) if one.created_at >= time]
            found += recent
            # Newest first: a page that reaches back before `time` is the last one needed.
            after = quote(str(page.get("last_id") or ""), safe="")
            if len(recent) < len(batches) or not page.get("has_more") or not after:
                return found

    async def batch_results(
        self, batch_id: str
    ) -> AsyncIterator[tuple[str, RowKind, RawResponse | None]]:
        # The address is made here and not taken from the batch: the key goes to this host only.
        path = f"{BATCHES}/{quote(batch_id, safe='')}/results"
        async for line in self._calls.lines(path, SHORT_CALL_S):
            row = parsed(line, self.host)
            result = row.get("result")
            if not isinstance(result, dict) or result.get("type") not in _ROWS:
                raise ServiceFailure("passing", f"{named(self.host)}: a result cannot be read")
            kind = _ROWS[result["type"]]
            yield str(row.get("custom_id")), kind, _row(kind, result, batch_id)

    async def close(self) -> None:
        await self._calls.close()

    def _summary(self, batch: dict[str, Any]) -> BatchSummary:
        try:
            created = datetime.fromisoformat(str(batch.get("created_at")))
        except ValueError:
            what = f"{named(self.host)}: a batch without the time of its creation"
            raise ServiceFailure("passing", what) from None
        if created.tzinfo is None:
            created = created.replace(tzinfo=UTC)
        n = sum(_counts(batch).values())
        return BatchSummary(str(batch.get("id", "")), created.timestamp(), n)


def _opened(host: str, key: str, http_options: dict[str, Any]) -> Any:
    import anthropic

    headers: dict[str, Any] = {
        "anthropic-version": API_VERSION,
        # Betas of the environment (ANTHROPIC_CUSTOM_HEADERS) would change answers unseen by keys.
        "anthropic-beta": anthropic.omit,
    }
    return anthropic.AsyncAnthropic(
        api_key=key,
        base_url=host,
        max_retries=0,
        default_headers=headers,
        http_client=anthropic.DefaultAsyncHttpxClient(**http_options),
    )


def _counts(batch: dict[str, Any]) -> dict[str, int]:
    counts = batch.get("request_counts")
    if not isinstance(counts, dict):
        return {}
    return {name: n for name, n in counts.items() if isinstance(n, int)}


def _row(kind: RowKind, result: dict[str, Any], batch_id: str) -> RawResponse | None:
    if kind == "succeeded":
        return RawResponse(_bytes(result.get("message")), channel=batch_id)
    if kind == "errored":
        error = result.get("error")
        status = STATUS_OF_TYPE.get(error_terms(error)[0], 500)
        return RawResponse(_bytes(error), status, channel=batch_id)
    return None


def _bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
