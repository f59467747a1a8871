"""Each fault of a service through the real SDKs, and what is made of it."""

from __future__ import annotations

import asyncio
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from interpflow.config.llm import RoleModel
from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.providers import Provider, open_provider
from interpflow.llm.wire.service_failures import retry_after_s, status_failure
from tests.service_stub import Faults, ServiceStub, digest_of
from tests.service_stub.http_wire import HttpReply

KEY = "sk-secret-key-0123456789"
PROMPT = "a private prompt"
ASK = Ask("a", (Turn("user", PROMPT),))
BOTH = pytest.mark.parametrize("service", ["anthropic", "openai_compatible"])


def _provider(service: str, stub: ServiceStub) -> Provider:
    url = stub.url if service == "anthropic" else stub.openai_url
    return open_provider(
        RoleModel.model_validate(
            {"provider": service, "model": "claude-x", "base_url": url, "api_key_env": "STUB_KEY"}
        )
    )


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)


def _sent(provider: Provider, timeout_s: float = 5.0, times: int = 1) -> RawResponse:
    async def send() -> RawResponse:
        try:
            for _ in range(times):
                raw = await provider.send(provider.request(ASK), timeout_s)
            return raw
        finally:
            await provider.close()

    return asyncio.run(send())


def _failed(provider: Provider, timeout_s: float = 5.0) -> ServiceFailure:
    with pytest.raises(ServiceFailure) as caught:
        _sent(provider, timeout_s)
    failure = caught.value
    shown = "".join(traceback.format_exception(failure)) + repr(failure)
    assert KEY not in shown
    assert PROMPT not in str(failure)
    # Nothing leads back to the SDK's exception, which holds the request and its headers.
    assert failure.__context__ is None
    assert failure.__cause__ is None
    return failure


@BOTH
@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("429", "limited", 429), ("500", "passing", 500), ("503", "passing", 503),
        ("529", "passing", 529), ("400", "bad_request", 400), ("401", "fatal", 401),
        ("402", "fatal", 402), ("403", "fatal", 403), ("404", "bad_request", 404),
    ],
)  # fmt: skip
def test_error_statuses(service: str, fault: str, kind: str, status: int) -> None:
    with ServiceStub(Faults(script=[fault])) as stub:
        failure = _failed(_provider(service, stub))
        assert (failure.kind, failure.status) == (kind, status)
        assert not failure.maybe_billed
        assert not stub.billed
        assert failure.retry_after_s is None
        assert failure.request_id == "req_00000001"
        assert len(stub.requests) == 1  # the SDK's own retries are off


@BOTH
def test_the_message_says_host_status_and_type(service: str) -> None:
    with ServiceStub(Faults(script=["401"])) as stub:
        failure = _failed(_provider(service, stub))
    kind = "authentication_error" if service == "anthropic" else "invalid_request_error"
    assert failure.what.startswith(f"{stub.url.removeprefix('http://')}: HTTP 401 {kind}")


@BOTH
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7.0), ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5)],
)
def test_told_to_wait(service: str, headers: dict[str, str], seconds: float) -> None:
    faults = Faults(script=["429_retry_after"], limited_headers=headers)
    with ServiceStub(faults) as stub:
        failure = _failed(_provider(service, stub))
    assert (failure.kind, failure.retry_after_s) == ("limited", seconds)


def test_a_wait_until_a_date_and_nonsense() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert retry_after_s({"retry-after": later}, now.timestamp()) == 90.0
    assert retry_after_s({"retry-after": later}, now.timestamp() + 1000) == 0.0
    for text in ("soon", "", "nan", "inf", "Mon, 99 Foo"):
        assert retry_after_s({"retry-after": text}, 0.0) is None
    assert retry_after_s({"retry-after": "-3"}, 0.0) == 0.0


@BOTH
def test_a_connection_that_breaks_in_the_middle_was_billed(service: str) -> None:
    with ServiceStub(Faults(script=["disconnect"])) as stub:
        failure = _failed(_provider(service, stub))
        assert (failure.kind, failure.status, failure.maybe_billed) == ("passing", 0, True)
        assert sum(stub.billed.values()) == 1


@BOTH
def test_a_connection_that_breaks_before_an_answer_may_have_been_billed(service: str) -> None:
    with ServiceStub(Faults(script=["drop"])) as stub:
        failure = _failed(_provider(service, stub))
    assert (failure.kind, failure.maybe_billed) == ("passing", True)


@BOTH
def test_a_time_limit(service: str) -> None:
    with ServiceStub(Faults(script=["slow"], slow_s=5.0)) as stub:
        failure = _failed(_provider(service, stub), timeout_s=0.3)
        assert sum(stub.billed.values()) == 1
    assert (failure.kind, failure.maybe_billed) == ("passing", True)
    assert "0.3 s" in failure.what


@BOTH
def test_a_service_that_is_down_and_comes_back(service: str) -> None:
    with ServiceStub() as stub:
        _sent(_provider(service, stub))
        stub.down()
        failure = _failed(_provider(service, stub))
        assert (failure.kind, failure.maybe_billed) == ("passing", False)
        stub.up()
        assert _sent(_provider(service, stub)).status == 200


@BOTH
@pytest.mark.parametrize(
    ("fault", "outcome", "why"),
    [
        ("malformed", "error", "the body is no JSON"),
        ("max_tokens", "truncated", {"anthropic": "max_tokens", "openai_compatible": "length"}),
        ("refusal", "refusal", "refusal"),
    ],
)
def test_answers_that_are_billed_but_not_ok(
    service: str, fault: str, outcome: str, why: str | dict[str, str]
) -> None:
    with ServiceStub(Faults(script=[fault])) as stub:
        provider = _provider(service, stub)
        reading = provider.read(_sent(provider))
        assert sum(stub.billed.values()) == 1
    assert reading.outcome == outcome
    assert (why if isinstance(why, str) else why[service]) in reading.why


@BOTH
def test_an_answer_whole_and_the_frozen_bytes_on_the_wire(service: str) -> None:
    with ServiceStub(key=KEY, headers={"anthropic-ratelimit-requests-remaining": "9",
                                       "set-cookie": "a=b"}) as stub:  # fmt: skip
        provider = _provider(service, stub)
        raw = _sent(provider)
        request = provider.request(ASK)
        assert stub.requests[0].body == request.body
        assert stub.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert stub.billed == {digest_of(request.body): 1}
    assert set(raw.headers) == {"request-id", "anthropic-ratelimit-requests-remaining"}
    assert 0 < raw.sent_at <= raw.received_at
    reading = provider.read(raw)
    assert isinstance(reading, Reading)
    assert (reading.outcome, reading.request_id) == ("ok", "req_00000001")
    assert reading.text.startswith("answer ")
    assert reading.model == "claude-x"
    assert reading.usage.output_tokens > 0
    assert provider.estimated_input_tokens(request) >= reading.usage.all_input_tokens


@BOTH
def test_a_provider_serves_one_event_loop_after_another(service: str) -> None:
    with ServiceStub() as stub:
        provider = _provider(service, stub)
        assert _sent(provider, times=2).status == 200
        assert _sent(provider, times=2).status == 200


SPENT = {"error_code": "enforced_spend_limit_reached"}


def _body(kind: str, **more: object) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": "m", **more}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, _body("rate_limit_error", details=SPENT),
         "fatal"),
        (429, _body("rate_limit_error", details={"error_code": "ramp_limit_exceeded"}),
         "limited"),
        (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}, "fatal"),
        (429, {"type": "requests", "code": "rate_limit_exceeded"}, "limited"),
        (400, _body("invalid_request_error", message="Your credit balance is too low to go"),
         "fatal"),
        (400, [{"error": {"code": 400, "message": "API key not valid. Pass a valid API key.",
                          "status": "INVALID_ARGUMENT"}}], "fatal"),
        (400, _body("invalid_request_error"), "bad_request"),
        (413, "text", "bad_request"), (418, None, "bad_request"), (499, None, "passing"),
        (408, None, "passing"), (307, b"x", "bad_request"), (520, "<html>", "passing"),
    ],
)  # fmt: skip
def test_kinds_by_status_and_type(status: int, body: object, kind: str) -> None:
    assert status_failure("https://user:pw@h:1/v1", status, body, {}).kind == kind


def test_what_could_be_content_is_not_repeated() -> None:
    assert "\n" not in status_failure("http://h", 400, {"error": {"type": "odd\n"}}, {}).what
    body = {"error": {"type": "you said: my secret", "code": "x" * 80, "message": "my secret"}}
    failure = status_failure("https://user:pw@h:1/v1", 400, body, {})
    assert failure.what == "h:1: HTTP 400"


@pytest.mark.parametrize("status", [502, 504, 408])
def test_a_gateway_that_gave_up_may_have_been_billed(status: int) -> None:
    assert status_failure("https://h", status, None, {}).maybe_billed


def test_redirects_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceStub() as other, ServiceStub() as stub:
        reply = HttpReply(307, b"", {"location": f"{other.url}/v1/messages"})
        monkeypatch.setattr(stub.service, "_routed", lambda request, request_id: reply)
        failure = _failed(_provider("anthropic", stub))
        assert failure.status == 307
        assert not other.requests
