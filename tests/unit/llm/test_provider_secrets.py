"""The key appears nowhere; prompts and answers in no message and in no log at default level."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.config.load import parse_config
from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse
from interpflow.llm.asking import answer
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.providers import open_provider
from interpflow.paths import PROJECT_DIR
from tests.service_stub import Faults, ServiceStub

KEY = "sk-ant-secret-0123456789abcdef"
PROMPT = "thepromptthatnobodyshallsee"
ANSWER = "theanswerthatnobodyshallsee"
FAULTS = ("429", "429_retry_after", "500", "529", "400", "401", "402", "403", "404", "drop",
          "disconnect", "slow", "malformed", "max_tokens", "refusal", "ok")  # fmt: skip
BOTH = pytest.mark.parametrize("service", ["anthropic", "openai_compatible"])


@pytest.fixture(autouse=True)
def _http_log() -> Iterator[None]:
    """The HTTP library's own lines too, which providers keep quiet otherwise."""
    before = logging.getLogger("httpx2").level
    logging.getLogger("httpx2").setLevel(logging.DEBUG)
    yield
    logging.getLogger("httpx2").setLevel(before)


def _role(service: str, stub: ServiceStub) -> RoleModel:
    url = stub.url if service == "anthropic" else stub.openai_url
    return RoleModel.model_validate(
        {"provider": service, "model": "claude-x", "base_url": url, "api_key_env": "STUB_KEY"}
    )


def _everything_said(service: str, stub: ServiceStub) -> tuple[list[str], list[RawResponse]]:
    """Messages of all failures with their tracebacks, and the responses that came back."""
    said: list[str] = []
    responses: list[RawResponse] = []

    async def work() -> None:
        provider = open_provider(_role(service, stub))
        said.append(repr(provider))
        request = provider.request(Ask("a", (Turn("user", PROMPT),)))
        assert KEY.encode() not in request.body
        for _ in FAULTS:
            try:
                responses.append(await provider.send(request, 0.5))
            except ServiceFailure as failure:
                said.append("".join(traceback.format_exception(failure)) + repr(vars(failure)))
        said.extend(repr((raw.headers, provider.read(raw).why)) for raw in responses)
        await provider.close()

    asyncio.run(work())
    return said, responses


@BOTH
def test_no_key_even_in_logs_at_debug_and_no_content_by_default(
    service: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)
    # Errors of this stub quote the request's body.
    faults = Faults(script=FAULTS, slow_s=1.5)
    with caplog.at_level(logging.DEBUG), ServiceStub(faults, answer=lambda body: ANSWER) as stub:
        said, responses = _everything_said(service, stub)
    assert len(stub.requests) == len(FAULTS)
    assert len(responses) == 4
    assert len(said) == 1 + len(FAULTS)
    at_debug = [_whole(record) for record in caplog.records]
    assert any("openai" in record.name or "anthropic" in record.name for record in caplog.records)
    by_default = [_whole(record) for record in caplog.records if record.levelno >= logging.INFO]
    for text in said + at_debug + [str(raw.headers) for raw in responses]:
        assert KEY not in text
    for text in said + by_default:
        assert PROMPT not in text
        assert ANSWER not in text


def _cells(path: Path) -> bytes:
    """Every cell of every table, unpacked."""
    cells: list[bytes] = []
    with sqlite3.connect(path) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                cells += [_unpacked(c) if isinstance(c, bytes) else str(c).encode() for c in row]
    return b"\n".join(cells)


def _unpacked(cell: bytes) -> bytes:
    try:
        return zlib.decompress(cell)
    except zlib.error:
        return cell


def _whole(record: logging.LogRecord) -> str:
    return logging.Formatter("%(name)s %(message)s").format(record) + repr(record.args)


@BOTH
def test_no_key_in_the_store(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("STUB_KEY", KEY)
    prices = tmp_path / "prices.csv"
    prices.write_text(
        "model,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,valid_from\n"
        "claude-x,1,1,1,1,1,0.5,2020-01-01\n"
    )
    llm = LlmSettings(
        store=str(tmp_path / "answers.sqlite"), prices=str(prices), max_cost_usd=10.0,
        max_failed_share=1.0,
    )  # fmt: skip
    asks = [Ask(str(n), (Turn("user", f"{PROMPT} {n}"),)) for n in range(6)]
    faults = Faults(script=["400", "malformed", "max_tokens", "refusal"])
    with caplog.at_level(logging.DEBUG), ServiceStub(faults, answer=lambda body: ANSWER) as stub:
        answers = answer(asks, _role(service, stub), llm, purpose="test")
    assert {one.outcome for one in answers} >= {"ok", "truncated", "refusal"}
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    stored = _cells(tmp_path / "answers.sqlite")
    assert PROMPT.encode() in stored
    assert ANSWER.encode() in stored
    assert KEY.encode() not in files + stored
    for record in caplog.records:
        assert KEY not in _whole(record)
        assert record.levelno < logging.INFO or PROMPT not in _whole(record)
        assert record.levelno < logging.INFO or ANSWER not in _whole(record)


@BOTH
def test_a_wrong_key_is_not_shown_to_the_user(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)
    llm = LlmSettings(store=str(tmp_path / "answers.sqlite"), max_cost_usd=10.0,
                      prices=_free(tmp_path))  # fmt: skip
    with ServiceStub(key="sk-another") as stub, pytest.raises(Exception, match="401") as caught:
        answer([Ask("a", (Turn("user", PROMPT),))], _role(service, stub), llm, purpose="test")
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert "STUB_KEY" in str(caught.value)
    assert PROMPT not in str(caught.value)


@pytest.mark.parametrize("key", [KEY, "AIzaSyA0secret1234", "sk_live_0123"])
def test_a_key_written_where_its_variable_is_named_is_not_shown(key: str) -> None:
    role = {"provider": "anthropic", "model": "claude-x", "api_key_env": key}
    with pytest.raises(UserError, match=r"llm\.roles\.proposer\.api_key_env") as caught:
        parse_config({"models": {}, "llm": {"roles": {"proposer": role}}})
    assert "not the key itself" in str(caught.value)
    assert key not in "".join(traceback.format_exception(caught.value))


def _free(folder: Path) -> str:
    path = folder / "prices.csv"
    path.write_text(
        "model,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,valid_from\n"
        "claude-x,0,0,0,0,0,1,2020-01-01\n"
    )
    return str(path)


def test_sdks_are_imported_only_when_something_is_sent() -> None:
    code = (
        "import sys\n"
        "import interpflow.llm.providers.anthropic, interpflow.llm.providers.openai_compatible\n"
        "from interpflow.config.llm import RoleModel\n"
        "from interpflow.llm.asks import Ask, Turn\n"
        "from interpflow.llm.providers import open_provider\n"
        "p = open_provider(RoleModel(provider='anthropic', model='m', api_key_env='K'))\n"
        "p.request(Ask('a', (Turn('user', 'x'),)))\n"
        "print({'anthropic', 'openai', 'httpx2', 'torch'} & set(sys.modules))"
    )
    environment: dict[str, Any] = {
        **os.environ, "K": "sk-1", "PYTHONPATH": str(PROJECT_DIR / "workflow_scripts"),
    }  # fmt: skip
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "set()"
