"""A service within the process, for tests of the client: scripted failures, every bill counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.llm.answers import RawResponse, Reading, Usage
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.calls.pacing import Clock
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.requests import Request, canonical_body

# Waits of minutes pass in milliseconds.
SPEED = 500.0
FAST = Clock(now=lambda: time.monotonic() * SPEED, sleep=lambda s: asyncio.sleep(s / SPEED))
ROLE = RoleModel(provider="openai_compatible", model="stand-in", base_url="http://stand.in")

Reply = str | dict[str, Any] | ServiceFailure
Script = Callable[[Request, int], Reply]


@dataclass(frozen=True)
class FlatPrice:
    """One dollar per output token, nothing for input."""

    id: str = "flat"

    def cost(self, usage: Usage, batch: bool = False) -> float:
        return float(usage.output_tokens)

    def upper_bound(self, input_tokens: int, max_tokens: int, batch: bool = False) -> float:
        return float(max_tokens)


class StandIn:
    """`script(request, n)`: the reply to the n-th attempt (from 0) of a request.

    A text is an answer of `tokens` output tokens; a dictionary is the whole body.
    """

    stored = True
    priced = False

    def __init__(self, script: Script, *, seconds: float = 0.0, tokens: int = 7) -> None:
        self.script, self.seconds, self.tokens = script, seconds, tokens
        self.sent: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.closed = False

    def request(self, ask: Ask) -> Request:
        body = {
            "messages": [[turn.speaker, turn.content] for turn in ask.turns],
            "max_tokens": ask.max_tokens, "choices": list(ask.choices), "schema": ask.schema,
        }  # fmt: skip
        return Request(
            "stand_in", "stand-in", "/answers", "http://stand.in", "", (), canonical_body(body),
            ask.sample,
        )  # fmt: skip

    async def send(self, request: Request, timeout_s: float) -> RawResponse:
        n, self.sent[request.key] = self.sent[request.key], self.sent[request.key] + 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.script(request, n)
            if isinstance(reply, ServiceFailure):
                self.billed[request.key] += reply.maybe_billed
                raise reply
            self.billed[request.key] += 1
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        return self.response(reply)

    def response(self, reply: str | dict[str, Any]) -> RawResponse:
        body = {"text": reply} if isinstance(reply, str) else reply
        return RawResponse(json.dumps({"tokens": self.tokens} | body).encode(), received_at=1.0)

    def read(self, raw: RawResponse) -> Reading:
        body = json.loads(raw.body)
        return Reading(
            body.get("outcome", "ok"), body.get("text", ""),
            usage=Usage(input_tokens=1, output_tokens=body["tokens"]), model="stand-in-1",
        )  # fmt: skip

    def estimated_input_tokens(self, request: Request) -> int:
        return len(request.body)

    async def close(self) -> None:
        self.closed = True


class StandInModel(StandIn):
    """A model on this machine: answers many requests together."""

    def send_all(self, requests: Sequence[Request]) -> Iterable[tuple[Request, RawResponse]]:
        for request in reversed(requests):
            reply = self.script(request, self.sent[request.key])
            assert not isinstance(reply, ServiceFailure)
            self.sent[request.key] += 1
            yield request, self.response(reply)


def asks(n: int, **more: Any) -> list[Ask]:
    return [Ask(f"a{i}", (Turn("user", f"prompt {i}"),), **more) for i in range(n)]


def text_of(request: Request) -> str:
    return request.content["messages"][0][1]


def settings(folder: Path, **more: Any) -> LlmSettings:
    return LlmSettings(store=str(folder / "answers.sqlite"), **more)
