"""One attempt through a service's SDK, with the frozen bytes of a request as its body.

The anthropic and the openai SDK are built alike; both send raw bytes by `client.post(content=)` and
hand the response over unparsed with `cast_to=httpx2.Response`. Their retries are off: ours are the
only ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.service_failures import kept_headers, named, status_failure

CONNECT_S = 10.0
MOST_CONNECTIONS = 1000
_KEY = re.compile(r"[\x21-\x7e]+\Z")


def key_in(variable: str, where: str) -> str:
    """The API key in an environment variable. Raises UserError where there is none to send."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {variable} holds no API key",
            where=where,
            remedy=f"export {variable}=..., or name another variable in api_key_env, or use the "
            "provider offline",
        )
    if not _KEY.match(key):
        # Sent as it is, the HTTP library would refuse the header and quote it.
        raise UserError(
            f"the environment variable {variable} holds characters that no API key has",
            where=where,
            remedy=f"export {variable}=... with the key alone",
        )
    return key


def checked_base_url(url: str, where: str) -> str:
    """A base URL without a slash at its end. Raises UserError for none, or one with a password."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fit, parts = False, urlsplit("")
    if not fit:
        raise UserError(
            "the address of the service is no http or https URL",
            where=where,
            remedy="give it as https://host/path",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "the address of the service holds a name, a password or a query",
            where=where,
            remedy="put the key into an environment variable and name it in api_key_env",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def http_client(sdk: Any) -> Any:
    """The SDK's own HTTP client for many calls at once, all of them to the one host.

    It follows no redirects: a prompt goes to the host that the request's key names.
    """
    import httpx2

    # A line for every call at INFO would drown the progress lines; a level that was set stays.
    calls = logging.getLogger("httpx2")
    if calls.level == logging.NOTSET:
        calls.setLevel(logging.WARNING)
    return sdk.DefaultAsyncHttpxClient(
        limits=httpx2.Limits(
            max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS
        ),
        follow_redirects=False,
    )


async def posted(
    client: Any, path: str, body: bytes, host: str, timeout_s: float,
    headers: dict[str, Any] | None = None,
) -> RawResponse:  # fmt: skip
    """POST the bytes once and return the response as received.

    client: an AsyncAnthropic or AsyncOpenAI. timeout_s: for the whole call, in seconds. Raises
    ServiceFailure; what it says quotes nothing that was sent or received.
    """
    import httpx2

    sent_at = time.time()
    response = await attempt(
        lambda: client.post(
            path, content=body, cast_to=httpx2.Response, options=_options(timeout_s, headers)
        ),
        host,
        timeout_s,
    )
    return RawResponse(
        response.content, response.status_code, kept_headers(response.headers), sent_at, time.time()
    )


async def got(
    client: Any, path: str, host: str, timeout_s: float, headers: dict[str, Any] | None = None
) -> Any:
    """GET once; the parsed JSON. Raises ServiceFailure, also for a body that is no JSON."""
    import httpx2

    response = await attempt(
        lambda: client.get(path, cast_to=httpx2.Response, options=_options(timeout_s, headers)),
        host,
        timeout_s,
    )
    return parsed(response.content, host)


async def result_lines(
    client: Any, path: str, host: str, timeout_s: float, headers: dict[str, Any] | None = None
) -> AsyncIterator[bytes]:
    """GET and yield the body's lines as they arrive. timeout_s: for each part. Raises
    ServiceFailure, also in the middle."""
    import httpx2

    response = await attempt(
        lambda: client.get(
            path, cast_to=httpx2.Response, options=_options(timeout_s, headers), stream=True,
        ),
        host,
        timeout_s,
    )  # fmt: skip
    try:
        # Not by the HTTP library's lines: it also splits at U+2028, which JSON strings may hold.
        parts, rest = response.aiter_bytes(), b""
        while (part := await attempt(lambda: anext(parts, None), host, timeout_s)) is not None:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line
        if rest.strip():
            yield rest
    finally:
        await response.aclose()


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


def _options(timeout_s: float, headers: dict[str, Any] | None) -> dict[str, Any]:
    import httpx2

    return {
        "timeout": httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
        "headers": headers or {},
        "max_retries": 0,
    }
