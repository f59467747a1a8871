"""Failures of a service's SDK told apart by status and error type, never by an exception's class.

The SDKs' own exceptions quote the request's headers and the response's body, and both change their
classes between major versions. What is made here says the status and the type, and nothing else.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from interpflow.llm.failures import Kind, ServiceFailure, kind_of_status

# HTTP statuses of the error types of the Messages API, for errors that come without one.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# Money has run out: the services send these with 400, 402 or 429.
_SPENT = {
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
    "insufficient_quota",
    "linked_organization_spend_limit_reached",
    "linked_organization_billing_unavailable",
}
# Said by services that have no code for it; read here and never shown.
_FATAL_TEXT = re.compile(r"credit balance is too low|api key not valid|api key expired", re.I)
# A gateway that gave up, or a client taken for gone: the answer may still have been finished.
_MAYBE_FINISHED = frozenset({408, 499, 502, 504, 520, 522, 524})
_HEADER = re.compile(r"(x-)?request-id$|anthropic-ratelimit-|x-ratelimit-")
_TERM = re.compile(r"[A-Za-z0-9_.:-]{1,60}\Z")


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The request id and the rate limits, by lower-case name."""
    return {name.lower(): text for name, text in headers.items() if _HEADER.match(name.lower())}


def request_id_in(headers: Mapping[str, str]) -> str:
    return headers.get("request-id") or headers.get("x-request-id") or ""


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a service asks to wait: milliseconds first, then seconds or a date; else None.

    headers: lower-case names (or a mapping that ignores case). now: seconds since the epoch.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return max(moment - (time.time() if now is None else now), 0.0)


def term(value: Any) -> str:
    """A word of the service's own vocabulary as it is; "" for anything that could be content."""
    return value if isinstance(value, str) and _TERM.match(value) else ""


def error_terms(body: Any) -> tuple[str, str]:
    """(type, code) of an error object in either protocol, "" where it has none."""
    error = _error_in(body)
    details = error.get("details")
    nested = details.get("error_code") if isinstance(details, Mapping) else None
    return term(error.get("type")), term(nested) or term(error.get("code"))


def status_failure(host: str, status: int, body: Any, headers: Mapping[str, str]) -> ServiceFailure:
    """The failure that an HTTP response with an error status means. `body`: parsed JSON or text."""
    kind, code = error_terms(body)
    words = " ".join(dict.fromkeys(word for word in (str(status), kind, code) if word))
    return ServiceFailure(
        _kind(status, kind, code, body),
        f"{named(host)}: HTTP {words}",
        status=status,
        retry_after_s=retry_after_s(headers),
        maybe_billed=status in _MAYBE_FINISHED,
        request_id=request_id_in(headers),
    )


def named(host: str) -> str:
    """A service for a message: its host and port."""
    return urlsplit(host).netloc.rpartition("@")[2] or "the service"


def _kind(status: int, kind: str, code: str, body: Any) -> Kind:
    message = _error_in(body).get("message")
    spent = {kind, code} & _SPENT or (isinstance(message, str) and _FATAL_TEXT.search(message))
    if spent and 400 <= status < 500:
        return "fatal"
    if status == 499:
        return "passing"
    if status == 400 and STATUS_OF_TYPE.get(kind) in (401, 402, 403):
        return "fatal"
    return kind_of_status(status)


def _error_in(body: Any) -> Mapping[str, Any]:
    # Gemini's endpoint puts its error object into a list; some SDKs hand over its inside only.
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return {}
    inside = body.get("error")
    return inside if isinstance(inside, Mapping) else body
