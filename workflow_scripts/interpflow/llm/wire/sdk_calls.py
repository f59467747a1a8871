"""Calls through a service's SDK, one attempt each, with the frozen bytes of a request as the body.

The anthropic and the openai SDK are built alike; both send raw bytes by `client.post(content=)` and
hand the response over unparsed with `cast_to=httpx2.Response`. Their retries are off: ours are the
only ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from interpflow.llm.answers import RawResponse
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.wire.service_failures import kept_headers, named, status_failure

CONNECT_S = 10.0
CLOSE_S = 60.0
# The HTTP library looks through all connections of a pool at every call: with 200 in one pool that
# takes as long as the call itself, with 16 it is not to be seen.
CALLS_PER_POOL = 16


def parsed(body: bytes, host: str) -> dict[str, Any]:
    """A JSON object; raises ServiceFailure (passing) for anything else."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ServiceFailure("passing", f"{named(host)}: the response is no JSON object")
    return content


async def attempt(call: Callable[[], Awaitable[Any]], host: str, timeout_s: float | None) -> Any:
    """Await one SDK call; its exceptions become a ServiceFailure that does not hold on to them.

    An SDK's exception keeps the request, and with it the key: it is let go before ours is raised,
    so that no chain of exceptions leads to it.
    """
    failure = None
    try:
        async with asyncio.timeout(timeout_s):
            return await call()
    except Exception as error:
        failure = _failure(error, host, timeout_s)
        if failure is None:
            raise
    raise failure


def _failure(error: Exception, host: str, timeout_s: float | None) -> ServiceFailure | None:
    """None for an exception that is no failure of the service: a fault of ours."""
    import httpx2

    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        headers = getattr(getattr(error, "response", None), "headers", {})
        return status_failure(host, status, getattr(error, "body", None), headers)
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    if isinstance(cause, unsent):
        return ServiceFailure("passing", f"{named(host)}: no connection")
    if isinstance(error, TimeoutError) or isinstance(cause, httpx2.TimeoutException):
        within = f" within {timeout_s:g} s" if timeout_s else ""
        what = f"{named(host)}: no answer{within}"
        return ServiceFailure("passing", what, maybe_billed=True)
    if isinstance(cause, httpx2.HTTPError | OSError) or _broken(cause):
        what = f"{named(host)}: the connection was lost"
        return ServiceFailure("passing", what, maybe_billed=True)
    return None


def _broken(cause: BaseException | None) -> bool:
    """Errors of the layers below that the HTTP library lets through as they are."""
    return type(cause).__module__.partition(".")[0] in ("anyio", "httpcore2", "h11", "ssl")


@dataclass
class _Pool:
    client: Any
    n_calls: int = 0


class SdkCalls:
    """Calls to one host. Its connections belong to the event loop that first sends.

    `open_client` makes a client of the SDK (AsyncAnthropic, AsyncOpenAI) from the options of its
    HTTP client. Every method raises ServiceFailure, which quotes nothing sent or received.
    """

    def __init__(self, host: str, open_client: Callable[[dict[str, Any]], Any]) -> None:
        self.host = host
        self._open_client = open_client
        self._pools: list[_Pool] = []
        self._options: dict[str, Any] = {}

    async def post(
        self, path: str, body: bytes, timeout_s: float, headers: Mapping[str, Any] | None = None
    ) -> RawResponse:
        """The response to these bytes as received. timeout_s: for the whole call, in seconds."""
        sent_at = time.time()
        with self._client() as client:
            response = await attempt(
                lambda: client.post(path, content=body, **_terms(timeout_s, headers)),
                self.host,
                timeout_s,
            )
        kept = kept_headers(response.headers)
        return RawResponse(response.content, response.status_code, kept, sent_at, time.time())

    async def get(self, path: str, timeout_s: float) -> dict[str, Any]:
        """The parsed JSON object at a path."""
        with self._client() as client:
            response = await attempt(
                lambda: client.get(path, **_terms(timeout_s)), self.host, timeout_s
            )
        return parsed(response.content, self.host)

    async def lines(self, path: str, timeout_s: float) -> AsyncIterator[bytes]:
        """The lines at a path as they arrive. timeout_s: for each part, in seconds."""
        with self._client() as client:
            response = await attempt(
                lambda: client.get(path, stream=True, **_terms(timeout_s)), self.host, timeout_s
            )
            try:
                # Not by the HTTP library's lines: it also splits at U+2028, which JSON may hold.
                parts, rest = response.aiter_bytes(), b""
                while part := await attempt(lambda: anext(parts, b""), self.host, timeout_s):
                    *lines, rest = (rest + part).split(b"\n")
                    for line in filter(bytes.strip, lines):
                        yield line
                if rest.strip():
                    yield rest
            finally:
                await response.aclose()

    async def close(self) -> None:
        pools, self._pools = self._pools, []
        for pool in pools:
            await attempt(pool.client.close, self.host, CLOSE_S)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """The client with the fewest calls; a new one where all have enough."""
        pool = min(self._pools, key=lambda pool: pool.n_calls, default=None)
        if pool is None or pool.n_calls >= CALLS_PER_POOL:
            self._options = self._options or _http_options()
            pool = _Pool(self._open_client(self._options))
            self._pools.append(pool)
        pool.n_calls += 1
        try:
            yield pool.client
        finally:
            pool.n_calls -= 1


def _http_options() -> dict[str, Any]:
    """Options of the SDK's HTTP clients. They follow no redirects: a prompt goes to the host that
    the request's key names. Making the certificates' context takes longer than a call: one for all.
    """
    import httpx2

    # A line for every call at INFO would drown the progress lines; a level that was set stays.
    calls = logging.getLogger("httpx2")
    if calls.level == logging.NOTSET:
        calls.setLevel(logging.WARNING)
    return {"verify": httpx2.create_ssl_context(), "follow_redirects": False}


def _terms(timeout_s: float, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    import httpx2

    timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
    options = {"timeout": timeout, "max_retries": 0, "headers": dict(headers or {})}
    return {"cast_to": httpx2.Response, "options": options}
