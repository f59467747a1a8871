"""The stand-in service itself, and the providers' many connections to it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from interpflow.config.llm import RoleModel
from interpflow.llm.asks import Ask, Tool, Turn
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.providers import open_provider
from interpflow.llm.wire.sdk_calls import CALLS_PER_POOL
from tests.service_stub import Faults, ServiceStub, ServiceStubProcess, billed_in, digest_of
from tests.service_stub.faults import FaultPlan

BOTH = pytest.mark.parametrize("service", ["anthropic", "openai_compatible"])
TOOL = Tool("count", "Counts.", {"type": "object", "properties": {"n": {"type": "integer"}}})
ASKS = [
    Ask("plain", (Turn("user", "one é \U0001f600"),)),
    Ask("closed", (Turn("user", "two"),), system="Rules. " * 1000, choices=("a", "b")),
    Ask("tool", (Turn("user", "three"), Turn("assistant", "yes"), Turn("user", "go")),
        tools=(TOOL,), tool_choice="count"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "sk-secret")


def _role(service: str, stub: ServiceStub | ServiceStubProcess) -> RoleModel:
    url = stub.url if service == "anthropic" else stub.openai_url
    return RoleModel.model_validate(
        {"provider": service, "model": "claude-x", "base_url": url, "api_key_env": "STUB_KEY"}
    )


@BOTH
def test_the_bytes_say_what_the_sdk_itself_would_send(service: str) -> None:
    async def sdk_sends(body: dict[str, Any]) -> None:
        if service == "anthropic":
            async with anthropic.AsyncAnthropic(api_key="k", base_url=stub.url) as client:
                message = await client.messages.create(**body)
                assert message.type == "message"
                assert message.usage.output_tokens > 0
        else:
            async with openai.AsyncOpenAI(api_key="k", base_url=stub.openai_url) as client:
                completion = await client.chat.completions.create(**body)
                assert completion.choices[0].message.role == "assistant"

    with ServiceStub() as stub:
        provider = open_provider(_role(service, stub))
        for ask in ASKS:
            request = provider.request(ask)
            asyncio.run(sdk_sends(request.content))
            assert json.loads(stub.requests[-1].body) == request.content
            assert stub.requests[-1].path.endswith(request.endpoint)
        assert stub.billed == {digest_of(provider.request(ask).body): 1 for ask in ASKS}


@BOTH
def test_a_hundred_calls_in_flight_over_small_pools(service: str) -> None:
    async def work() -> list[int]:
        provider = open_provider(_role(service, stub))
        requests = [provider.request(Ask(str(n), (Turn("user", f"{n}"),))) for n in range(100)]
        await asyncio.gather(*(provider.send(request, 20.0) for request in requests))
        pools = provider._calls._pools  # type: ignore[attr-defined]
        sizes = [len(pool.client._client._transport._pool.connections) for pool in pools]
        assert all(pool.n_calls == 0 for pool in pools)
        await provider.close()
        return sizes

    with ServiceStub(latency_s=0.3) as stub:
        sizes = asyncio.run(work())
        assert len(stub.billed) == 100
    assert len(sizes) == -(-100 // CALLS_PER_POOL)
    assert max(sizes) <= CALLS_PER_POOL


def test_faults_do_not_depend_on_the_order_of_arrival() -> None:
    rates = {"429": 0.1, "500": 0.1, "disconnect": 0.1, "refusal": 0.05}
    digests = [digest_of({"n": n}) for n in range(2000)]
    plans = []
    for seed in range(2):
        plan = FaultPlan(Faults(rates=rates))
        shuffled = list(digests)
        random.Random(seed).shuffle(shuffled)
        plans.append({digest: plan.for_call(digest) for digest in shuffled})
    assert plans[0] == plans[1]
    shares = Counter(plans[0].values())
    assert all(abs(shares[kind] / 2000 - rate) < 0.03 for kind, rate in rates.items())
    again = FaultPlan(Faults(rates=rates, seed=1))
    assert {digest: again.for_call(digest) for digest in digests} != plans[0]


def test_a_burst_of_overload_and_a_script() -> None:
    plan = FaultPlan(Faults(rates={"529": 1.0}, script=["ok", "401"], burst=3))
    assert [plan.for_call("d") for _ in range(5)] == ["ok", "401", "529", "529", "529"]
    with pytest.raises(ValueError, match="no such faults"):
        Faults(rates={"530": 0.1})


def test_what_the_services_refuse_the_stub_refuses() -> None:
    body = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    refused = [
        {**body, "temperature": 0.0},
        {**body, "messages": []},
        {**body, "output_config": {"format": {"type": "json_schema", "schema": schema}}},
    ]
    with ServiceStub() as stub, httpx2.Client(base_url=stub.url) as client:
        version = {"anthropic-version": "2026-10-21"}
        assert client.post("/v1/messages", json=body, headers=version).status_code == 200
        assert client.post("/v1/messages", json=body).status_code == 400
        for one in refused:
            reply = client.post("/v1/messages", json=one, headers=version)
            assert (reply.status_code, reply.json()["error"]["type"]) == (
                400, "invalid_request_error",
            )  # fmt: skip
        twice = {"requests": [{"custom_id": "a", "params": body}] * 2}
        assert client.post("/v1/messages/batches", json=twice).status_code == 400
        assert sum(stub.billed.values()) == 1


def test_a_stub_that_is_killed_keeps_its_bill(tmp_path: Path) -> None:
    journal = tmp_path / "billed.jsonl"
    ask = Ask("a", (Turn("user", "x"),))

    async def send() -> int:
        provider = open_provider(_role("anthropic", stub))
        try:
            return (await provider.send(provider.request(ask), 10.0)).status
        finally:
            await provider.close()

    with ServiceStubProcess(Faults(script=["ok"]), journal=journal) as stub:
        assert asyncio.run(send()) == 200
        port = stub.port
        stub.kill()
        with pytest.raises(ServiceFailure):
            asyncio.run(send())
        stub.start()
        assert stub.port == port
        assert asyncio.run(send()) == 200
        assert list(stub.billed.values()) == [2]
    assert [entry["fault"] for entry in billed_in(journal)] == ["ok", "ok"]
