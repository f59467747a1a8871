"""Asks as request bodies and bodies as readings, in both wire formats."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.answers import OUTCOMES, RawResponse, Reading, ToolCall, Usage
from interpflow.llm.asks import Ask, Tool, Turn
from interpflow.llm.bought.prices import Price, Rates
from interpflow.llm.bought.store import open_store
from interpflow.llm.calls.answer_checks import check
from interpflow.llm.providers import Provider, open_provider
from interpflow.llm.requests import Request
from interpflow.llm.wire.anthropic_messages import (
    CACHED_FROM_CHARACTERS,
    message_body,
    message_reading,
)
from interpflow.llm.wire.openai_chat import chat_body, chat_reading
from interpflow.llm.wire.schemas import choice_schema, is_strict, sent_schema
from interpflow.llm.wire.service_address import checked_base_url, key_in
from tests.service_stub import Reply, ServiceStub

TURNS = (Turn("user", "How many?"),)
SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0, "maximum": 9},
        "words": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "minimum": {"oneOf": [{"type": "null"}, {"type": "object", "properties": {}}]},
    },
    "required": ["n", "words", "minimum"],
}
TOOL = Tool("count", "Counts words.", {"type": "object", "properties": {"n": {"type": "integer"}}})
BOTH = pytest.mark.parametrize("service", ["anthropic", "openai_compatible"])


def _provider(service: str, stub: ServiceStub, **more: Any) -> Provider:
    url = stub.url if service == "anthropic" else stub.openai_url
    values = {"provider": service, "model": "claude-x", "base_url": url, "api_key_env": "STUB_KEY"}
    return open_provider(RoleModel.model_validate({**values, **more}))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "sk-secret")


def _answers(provider: Provider, *asks: Ask) -> list[Reading]:
    async def work() -> list[Reading]:
        try:
            return [provider.read(await provider.send(provider.request(ask), 5.0)) for ask in asks]
        finally:
            await provider.close()

    return asyncio.run(work())


@BOTH
def test_choices_and_schemas_come_back_as_they_were_asked(service: str) -> None:
    asks = [Ask(str(n), TURNS, choices=("CORRECT", "INCORRECT"), sample=n) for n in range(4)]
    with ServiceStub() as stub:
        readings = _answers(_provider(service, stub), *asks, Ask("s", TURNS, schema=SCHEMA))
    checked = [check(ask, reading) for ask, reading in zip(asks, readings[:4], strict=True)]
    assert all(one.outcome == "ok" and one.data in asks[0].choices for one in checked)
    final = check(Ask("s", TURNS, schema=SCHEMA), readings[4])
    assert (final.outcome, set(final.data)) == ("ok", {"n", "words", "minimum"})


def test_a_schema_is_sent_closed_and_without_what_grammars_refuse() -> None:
    sent = sent_schema(SCHEMA)
    assert sent["additionalProperties"] is False
    parts = sent["properties"]
    assert parts["n"] == {"type": "integer", "description": "{maximum: 9, minimum: 0}"}
    assert "maxItems" not in parts["words"]
    assert parts["minimum"]["anyOf"][1]["additionalProperties"] is False
    assert SCHEMA["properties"]["n"] == {"type": "integer", "minimum": 0, "maximum": 9}
    jsonschema.Draft202012Validator.check_schema(sent)
    assert is_strict(sent)
    assert not is_strict(sent_schema({"type": "object", "properties": {"a": {}}}))
    assert is_strict(choice_schema(("a", "b")))


def test_the_messages_body() -> None:
    ask = Ask("a", TURNS, system="Be brief.", max_tokens=5000, tools=(TOOL,), tool_choice="count")
    assert message_body(ask, "m", 4096) == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "How many?"}],
        "system": "Be brief.",
        "tools": [
            {"name": "count", "description": "Counts words.", "input_schema": TOOL.parameters}
        ],
        "tool_choice": {"type": "tool", "name": "count"},
    }
    assert message_body(Ask("a", TURNS, tools=(TOOL,)), "m", 9).get("tool_choice") is None
    assert message_body(Ask("a", TURNS, tools=(TOOL,), tool_choice="any"), "m", 9)[
        "tool_choice"
    ] == {"type": "any"}
    assert "temperature" not in message_body(Ask("a", TURNS), "m", 9)


def test_the_chat_body() -> None:
    ask = Ask("a", TURNS, system="Be brief.", max_tokens=7, sample=3, tools=(TOOL,),
              tool_choice="any", choices=("a", "b"))  # fmt: skip
    body = chat_body(ask, "m", 4096, "max_tokens")
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["seed"], body["tool_choice"]) == (7, 3, "required")
    assert body["tools"][0]["function"]["parameters"] == TOOL.parameters
    form = body["response_format"]["json_schema"]
    assert form == {"name": "answer", "schema": choice_schema(("a", "b")), "strict": True}
    named = chat_body(Ask("a", TURNS, tools=(TOOL,), tool_choice="count"), "m", 9, "max_tokens")
    assert named["tool_choice"] == {"type": "function", "function": {"name": "count"}}


@BOTH
def test_a_tool_is_called_and_its_result_goes_back(service: str) -> None:
    talk = (
        Turn("user", "Count."),
        Turn("assistant", [
            {"type": "text", "text": "I will."},
            {"type": "tool_use", "id": "t1", "name": "count", "input": {"n": 3}},
        ]),
        Turn("user", [
            {"type": "tool_result", "tool_use_id": "t1",
             "content": [{"type": "text", "text": "three"}]},
            {"type": "text", "text": "And again."},
        ]),
    )  # fmt: skip
    ask = Ask("a", talk, tools=(TOOL,), tool_choice="any")
    answer = Reply("thinking", tool_calls=(("count", {"n": 4}),))
    with ServiceStub(answer=lambda body: answer) as stub:
        (reading,) = _answers(_provider(service, stub), ask)
        body = json.loads(stub.requests[0].body)
    assert reading.outcome == "ok"
    assert [(call.name, call.arguments) for call in reading.tool_calls] == [("count", {"n": 4})]
    assert reading.tool_calls[0].id
    if service == "openai_compatible":
        assert [message["role"] for message in body["messages"]] == [
            "user", "assistant", "tool", "user",
        ]  # fmt: skip
        call = body["messages"][1]["tool_calls"][0]
        assert (call["id"], json.loads(call["function"]["arguments"])) == ("t1", {"n": 3})
        assert body["messages"][2] == {"role": "tool", "tool_call_id": "t1", "content": "three"}


def test_content_without_a_counterpart_is_named() -> None:
    ask = Ask("a", (Turn("user", [{"type": "image", "source": "private"}]),))
    with pytest.raises(UserError, match="'image'") as caught:
        chat_body(ask, "m", 9, "max_tokens")
    assert "private" not in str(caught.value)


def test_a_long_system_prompt_is_cached_and_all_buckets_are_read() -> None:
    system = "Rules. " * CACHED_FROM_CHARACTERS
    asks = [Ask(str(n), (Turn("user", f"Item {n}"),), system=system) for n in range(2)]
    with ServiceStub() as stub:
        first, second = (reading.usage for reading in _answers(
            _provider("anthropic", stub), *asks))  # fmt: skip
    assert first.cache_write_tokens > 4096
    assert first.cache_read_tokens == 0
    assert second.cache_read_tokens == first.cache_write_tokens
    assert first.all_input_tokens == second.all_input_tokens
    body = message_body(asks[0], "m", 9)
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert isinstance(message_body(Ask("a", TURNS, system="short"), "m", 9)["system"], str)


@BOTH
def test_requests_are_the_same_bytes_for_the_same_ask_and_others_for_others(service: str) -> None:
    with ServiceStub() as stub:
        provider = _provider(service, stub)
        ask = Ask("a", TURNS, item={"task": "x"})
        request = provider.request(ask)
        assert request.key == provider.request(Ask("b", TURNS)).key
        others = [
            Ask("a", TURNS, sample=1), Ask("a", TURNS, system="s"), Ask("a", TURNS, max_tokens=2),
            Ask("a", TURNS, choices=("a",)), Ask("a", TURNS, tools=(TOOL,)),
            Ask("a", TURNS, tools=(TOOL,), tool_choice="none"),
        ]  # fmt: skip
        keys = {provider.request(other).key for other in others}
        assert len(keys | {request.key}) == len(others) + 1
        assert _provider(service, stub, model="other").request(ask).key != request.key
        assert request.host == (stub.url if service == "anthropic" else stub.openai_url)
        assert b"task" not in request.body


@BOTH
def test_a_question_asked_anew_has_another_key_and_another_seed(service: str) -> None:
    with ServiceStub() as stub:
        first = _provider(service, stub).request(Ask("a", TURNS, sample=2))
    again = [first.again(n) for n in range(4)]
    assert again[0] is first
    assert len({request.key for request in again}) == 4
    seeds = {json.loads(request.body).get("seed") for request in again}
    assert len(seeds) == (1 if service == "anthropic" else 4)
    assert again[1].again(0) is again[1]


def _chat(message: Any, reason: Any = "stop", usage: Any = None) -> bytes:
    choice = {"message": message, "finish_reason": reason}
    return json.dumps({"model": "org/m", "choices": [choice], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (_chat({"content": "x"}), "ok"), (_chat({"content": "x"}, None), "ok"),
        (_chat({"content": "x"}, "length"), "truncated"),
        (_chat({"content": "x"}, "content_filter"), "refusal"),
        (_chat({"content": None, "refusal": "no"}), "refusal"),
        (_chat({"content": "x"}, "insane"), "error"), (_chat({"content": "x"}, 3), "error"),
        (_chat("x"), "error"), (b'{"error": {"type": "server_error"}}', "error"),
        (b'{"choices": []}', "error"), (b"[]", "error"), (b"", "error"), (b"\xff", "error"),
        (_chat({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]},
               "tool_calls"), "invalid"),
        (_chat({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": ""}}]},
               "tool_calls"), "ok"),
    ],
)  # fmt: skip
def test_outcomes_of_completions(body: bytes, outcome: str) -> None:
    assert chat_reading(RawResponse(body)).outcome == outcome


@pytest.mark.parametrize(
    ("stop", "outcome"),
    [
        ("end_turn", "ok"), ("stop_sequence", "ok"), ("tool_use", "ok"), ("refusal", "refusal"),
        ("max_tokens", "truncated"), ("model_context_window_exceeded", "truncated"),
        ("pause_turn", "error"), ("the secret", "error"), (None, "error"),
    ],
)  # fmt: skip
def test_outcomes_of_messages(stop: str | None, outcome: str) -> None:
    body = {"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": stop}
    reading = message_reading(RawResponse(json.dumps(body).encode()))
    assert reading.outcome == outcome
    assert "secret" not in reading.why


def test_buckets_of_completions() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 130,
             "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10}}  # fmt: skip
    reading = chat_reading(RawResponse(_chat({"content": "x"}, "stop", usage)))
    assert reading.usage == Usage(30, 10, 60, 30)
    assert reading.model == "org/m"
    strange = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 50}}
    assert chat_reading(RawResponse(_chat({"content": "x"}, usage=strange))).usage == Usage(
        0, 0, 5, 0
    )


def test_no_count_of_tokens_is_too_much_for_the_books(tmp_path: Path) -> None:
    """A server that reports nonsense must not stop every later run at the same answer."""
    usage = {"prompt_tokens": 2**53 - 1, "completion_tokens": 2**31 - 1, "total_tokens": 2**53 - 1}
    said = {"message": {"content": "x"}, "finish_reason": "stop"}
    raw = RawResponse(json.dumps({"choices": [said], "usage": usage}).encode())
    reading = chat_reading(raw)
    price = Price("p", (Rates(0, 100.0, 100.0, 100.0, 100.0, 500.0),), 0.5)
    request = Request("openai_compatible", "m", "/c", "http://h", "", (), b"{}")
    with open_store(tmp_path / "answers.sqlite") as store:
        store.keep(request, raw)
        cost = price.cost(reading.usage)
        store.settle(request.key, "ok", reading.usage, cost, "p", "", "m", 1, "")
        assert store.find([request.key])[request.key].cost_usd == pytest.approx(cost)


def test_lone_surrogates_are_replaced() -> None:
    blocks = b'[{"type":"text","text":"a\\ud800b"}]'
    body = b'{"type":"message","stop_reason":"end_turn","content":%b}' % blocks
    assert message_reading(RawResponse(body)).text == "a\ufffdb"
    assert chat_reading(RawResponse(_chat({"content": "a\ud800b \U0001f600"}))).text == (
        "a\ufffdb \U0001f600"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["message", "text", "tool_use", "end_turn", "stop", "length"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["type", "content", "stop_reason", "text", "usage", "input_tokens", "choices",
             "message", "finish_reason", "tool_calls", "function", "arguments", "name", "input",
             "id", "error", "prompt_tokens", "prompt_tokens_details", "cached_tokens",
             "cache_creation", "model", "refusal", "details"]
        ),
        inner, max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip
MESSAGE = st.fixed_dictionaries(
    {"type": st.just("message"), "content": JSON, "stop_reason": JSON | st.just("end_turn")},
    optional={"usage": JSON, "model": JSON},
)
COMPLETION = st.fixed_dictionaries(
    {"choices": st.lists(
        st.fixed_dictionaries({"message": JSON, "finish_reason": JSON}) | JSON, max_size=2)},
    optional={"usage": JSON, "model": JSON},
)  # fmt: skip
BODIES = st.binary(max_size=200) | (JSON | MESSAGE | COMPLETION).map(
    lambda value: json.dumps(value).encode()
)


@settings(max_examples=150, deadline=None)
@given(BODIES, st.sampled_from([200, 400, 500]))
@pytest.mark.parametrize("read", [message_reading, chat_reading])
def test_no_bytes_make_reading_fail(read: Any, body: bytes, status: int) -> None:
    reading = read(RawResponse(body, status))
    assert reading.outcome in OUTCOMES
    reading.text.encode()
    assert min(vars(reading.usage).values()) >= 0
    assert all(isinstance(call, ToolCall) for call in reading.tool_calls)
    assert (reading.outcome == "ok") == (reading.why == "")


@pytest.mark.parametrize("read", [message_reading, chat_reading])
def test_deep_and_huge_json_is_an_error(read: Any) -> None:
    for body in (b"[" * 200_000, b'{"a":' * 50_000, b"1" * 10_000, b"NaN", "{}".encode("utf-16")):
        assert read(RawResponse(body)).outcome == "error"


@pytest.mark.parametrize(
    "url", ["", "api.host", "ftp://h", "https://u:p@h", "https://h/v1?key=s3cret", "http://[1",
            "http://h:99999", "https://"]
)  # fmt: skip
def test_addresses_that_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(UserError) as caught:
        checked_base_url(url, "llm.roles")
    assert "s3cret" not in str(caught.value)


def test_addresses_have_one_spelling() -> None:
    assert checked_base_url("http://LocalHost:8000/v1/", "w") == "http://localhost:8000/v1"


@pytest.mark.parametrize("key", [None, "", " \n", "two words", "sk-\u2026", "a\nb"])
def test_a_key_that_cannot_be_sent(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUB_KEY")
    if key is not None:
        monkeypatch.setenv("STUB_KEY", key)
    settings_of = RoleModel(provider="anthropic", model="claude-x", api_key_env="STUB_KEY")
    with pytest.raises(UserError, match="STUB_KEY") as caught:
        open_provider(settings_of)
    assert "llm.roles" in str(caught.value)
    assert "two words" not in str(caught.value)
    monkeypatch.setenv("STUB_KEY", " sk-1\n")
    assert key_in("STUB_KEY", "w") == "sk-1"


def test_the_key_of_openai_goes_to_openai_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    with ServiceStub() as stub:
        _answers(_provider("openai_compatible", stub, api_key_env=None), Ask("a", TURNS))
        assert "authorization" not in stub.requests[0].headers
        assert json.loads(stub.requests[0].body)["max_tokens"] == 1024
    own = RoleModel(
        provider="openai_compatible", model="gpt-x", base_url="https://api.openai.com/v1"
    )
    assert b"max_completion_tokens" in open_provider(own).request(Ask("a", TURNS)).body
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        open_provider(own)


def test_the_environment_changes_neither_host_nor_version_nor_betas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(
        "ANTHROPIC_CUSTOM_HEADERS", "anthropic-version: 2023-06-01\nanthropic-beta: a-1"
    )
    with ServiceStub() as stub:
        _answers(_provider("anthropic", stub), Ask("a", TURNS))
        headers = stub.requests[0].headers
    assert headers["anthropic-version"] == "2026-10-21"
    assert "anthropic-beta" not in headers


def test_the_environments_openai_account_goes_to_no_other_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-private")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer sk-openai\nOpenAI-Beta: x")
    with ServiceStub() as stub:
        for variable in ("STUB_KEY", None):
            _answers(_provider("openai_compatible", stub, api_key_env=variable), Ask("a", TURNS))
        own, none = (request.headers for request in stub.requests)
    assert own["authorization"] == f"Bearer {os.environ['STUB_KEY']}"
    assert "authorization" not in none
    assert not {"openai-organization", "openai-project", "openai-beta"} & {*own, *none}
