"""Message Batches, token counts and model checks through the real SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.batches.service import BatchService
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.providers.anthropic import AnthropicProvider, provider
from tests.service_stub import Faults, ServiceStub, digest_of

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")


def _with(
    stub: ServiceStub,
    work: Callable[[AnthropicProvider], Awaitable[T]],
    model: str = "claude-x",
) -> T:
    async def run() -> T:
        opened = provider(RoleModel(provider="anthropic", model=model, base_url=stub.url))
        try:
            return await work(opened)
        finally:
            await opened.close()

    return asyncio.run(run())


def _asks(n: int) -> list[Ask]:
    return [Ask(str(i), (Turn("user", f"Item {i} é\u2028"),)) for i in range(n)]


async def _rows(opened: AnthropicProvider, name: str) -> dict[str, tuple[str, RawResponse | None]]:
    return {key: (kind, raw) async for key, kind, raw in opened.batch_results(name)}


def test_a_batch_from_creation_to_results() -> None:
    asks = _asks(20)

    async def work(opened: AnthropicProvider) -> None:
        assert isinstance(opened, BatchService)
        requests = [opened.request(ask) for ask in asks]
        name = await opened.create_batch(requests)
        state = await opened.batch_state(name)
        assert (state.ended, state.counts["processing"]) == (False, 20)
        state = await opened.batch_state(name)
        assert (state.ended, state.counts["succeeded"]) == (True, 20)
        rows = await _rows(opened, name)
        assert set(rows) == {request.key for request in requests}
        for request in requests:
            kind, raw = rows[request.key]
            assert kind == "succeeded"
            assert raw is not None
            assert (raw.channel, raw.status) == (name, 200)
            # The same body that a single call brings, but for the tier that it names.
            alone = json.loads((await opened.send(request, 5.0)).body)
            together = json.loads(raw.body)
            assert together["usage"].pop("service_tier") == "batch"
            assert together == alone
            assert opened.read(raw).outcome == "ok"
        assert stub.billed == {digest_of(request.body): 2 for request in requests}

    # An answer with a line separator that is none in JSONL.
    answer = lambda body: "one\u2028two\x85three"  # noqa: E731
    with ServiceStub(answer=answer, batch_polls=2) as stub:
        _with(stub, work)


def test_rows_that_expired_or_failed() -> None:
    rates = {"expired": 0.3, "errored": 0.2, "errored_invalid": 0.2, "canceled": 0.1}

    async def work(opened: AnthropicProvider) -> None:
        requests = [opened.request(ask) for ask in _asks(60)]
        name = await opened.create_batch(requests)
        state = await opened.batch_state(name)
        rows = await _rows(opened, name)
        kinds = [kind for kind, _ in rows.values()]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            kind: n for kind, n in state.counts.items() if n
        }
        assert set(kinds) == {"succeeded", "expired", "errored", "canceled"}
        statuses = {raw.status for kind, raw in rows.values() if kind == "errored" and raw}
        assert statuses == {400, 500}
        for kind, raw in rows.values():
            assert (raw is None) == (kind in ("expired", "canceled"))
            if kind == "errored" and raw:
                reading = opened.read(raw)
                assert reading.outcome == "error"
                assert reading.why in ("invalid_request_error", "api_error")
        assert sum(stub.billed.values()) == kinds.count("succeeded")

    with ServiceStub(Faults(row_rates=rates)) as stub:
        _with(stub, work)


def test_a_creation_whose_connection_broke_is_found_again() -> None:
    async def work(opened: AnthropicProvider) -> None:
        before = time.time()
        requests = [opened.request(ask) for ask in _asks(3)]
        with pytest.raises(ServiceFailure) as caught:
            await opened.create_batch(requests)
        assert (caught.value.kind, caught.value.maybe_billed) == ("passing", True)
        with pytest.raises(ServiceFailure) as caught:
            await opened.create_batch(requests)
        assert (caught.value.kind, caught.value.maybe_billed) == ("limited", False)
        (found,) = await opened.batches_since(before)
        assert found.n == 3
        assert before <= found.created_at <= time.time()
        await opened.batch_state(found.id)
        assert set(await _rows(opened, found.id)) == {request.key for request in requests}
        assert await opened.batches_since(time.time() + 1) == []

    with ServiceStub(Faults(create_script=["lost", "429"])) as stub:
        _with(stub, work)


def test_all_pages_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from interpflow.llm.providers import anthropic

    monkeypatch.setattr(anthropic, "MOST_PER_PAGE", 3)

    async def work(opened: AnthropicProvider) -> None:
        names = [await opened.create_batch([opened.request(ask)]) for ask in _asks(7)]
        found = await opened.batches_since(0)
        assert [one.id for one in found] == names[::-1]
        middle = found[3].created_at
        assert [one.id for one in await opened.batches_since(middle)] == names[:2:-1]

    with ServiceStub() as stub:
        _with(stub, work)


def test_results_that_are_gone() -> None:
    async def work(opened: AnthropicProvider) -> None:
        for call in (_rows(opened, "msgbatch_gone"), opened.batch_state("../../models/x")):
            with pytest.raises(ServiceFailure) as caught:
                await call
            assert caught.value.status == 404

    with ServiceStub() as stub:
        _with(stub, work)
        assert stub.requests[-1].path.startswith("/v1/messages/batches/")


@pytest.mark.parametrize(
    "lines", [b"no json\n", b'{"custom_id": "a"}\n', b'{"custom_id":"a","result":{"type":"new"}}']
)
def test_results_that_cannot_be_read_are_not_skipped(
    lines: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(opened: AnthropicProvider) -> None:
        name = await opened.create_batch([opened.request(_asks(1)[0])])
        await opened.batch_state(name)
        monkeypatch.setattr(stub.service.batches, "results", lambda batch: lines)
        with pytest.raises(ServiceFailure):
            await _rows(opened, name)

    with ServiceStub() as stub:
        _with(stub, work)


def test_a_thousand_rows_are_streamed() -> None:
    async def work(opened: AnthropicProvider) -> int:
        name = await opened.create_batch([opened.request(ask) for ask in _asks(1000)])
        await opened.batch_state(name)
        return len(await _rows(opened, name))

    with ServiceStub(answer=lambda body: "word " * 200) as stub:
        assert _with(stub, work) == 1000


def test_tokens_are_counted_by_the_service_and_bounded_by_us() -> None:
    ask = Ask("a", (Turn("user", "Some words to count. " * 50),), system="Rules.")

    async def work(opened: AnthropicProvider) -> tuple[int, int, int]:
        request = opened.request(ask)
        used = opened.read(await opened.send(request, 5.0)).usage.all_input_tokens
        return await opened.count_tokens(request), used, opened.estimated_input_tokens(request)

    with ServiceStub() as stub:
        counted, used, bound = _with(stub, work)
        assert sum(stub.billed.values()) == 1
    assert counted == used < bound


def test_models_that_are_unknown_retired_or_deprecated(caplog: pytest.LogCaptureFixture) -> None:
    def checked(model: str) -> Any:
        return _with(stub, lambda opened: opened.check_model(), model)

    with ServiceStub() as stub:
        checked("claude-x")
        assert not caplog.records
        with pytest.raises(UserError, match="knows no model unknown-1"):
            checked("unknown-1")
        with pytest.raises(UserError, match="retired"):
            checked("retired-1")
        with caplog.at_level(logging.WARNING):
            checked("deprecated-1")
    assert "deprecated-1 is deprecated; it retires on 2026-12-31" in caplog.text
    with ServiceStub(key="other") as stub, pytest.raises(ServiceFailure) as caught:
        checked("claude-x")
    assert caught.value.kind == "fatal"
