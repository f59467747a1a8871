"""What a service's headers say of its rate limits, and how long they make us wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

# anthropic-ratelimit-requests-remaining; x-ratelimit-remaining-requests
_ANTHROPIC = re.compile(r"anthropic-ratelimit-([a-z-]+)-(limit|remaining|reset)$")
_OPENAI = re.compile(r"x-ratelimit-(limit|remaining|reset)-([a-z-]+)$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Load:
    """What one call takes of the limits: itself, its input tokens, its longest answer."""

    input_tokens: int = 0
    max_tokens: int = 0

    def of(self, name: str) -> float:
        """What it takes of the limit `name`, as the services name their limits."""
        if name.startswith("requests"):
            return 1
        if name.startswith("input-tokens"):
            return self.input_tokens
        if name.startswith("output-tokens"):
            return self.max_tokens
        if name.startswith("tokens"):
            return self.input_tokens + self.max_tokens
        return 0


def limits_in(headers: Mapping[str, str], received_at: float) -> dict[str, tuple[float, ...]]:
    """Limit name -> (limit, remaining, seconds to reset), of the complete and legible ones.

    `received_at`: seconds since the epoch, for resets given as a time (RFC 3339); others are
    seconds or durations such as 6m0s and 17ms.
    """
    found: dict[str, dict[str, float]] = {}
    for header, text in headers.items():
        header = header.lower()
        if match := _ANTHROPIC.match(header):
            name, part = match[1], match[2]
        elif match := _OPENAI.match(header):
            name, part = match[2], match[1]
        else:
            continue
        value = _seconds(text, received_at) if part == "reset" else _number(text)
        if value is not None:
            found.setdefault(name, {})[part] = value
    return {
        name: (parts["limit"], parts["remaining"], parts["reset"])
        for name, parts in found.items()
        if len(parts) == 3
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _seconds(text: str, received_at: float) -> float | None:
    text = text.strip()
    if (number := _number(text)) is not None:
        return max(number, 0.0)
    parts = _DURATION.findall(text)
    if parts and "".join(a + b for a, b in parts) == text:
        return sum(float(amount) * _UNIT_S[unit] for amount, unit in parts)
    try:
        reset = datetime.fromisoformat(text)
    except ValueError:
        return None
    if reset.tzinfo is None:
        reset = reset.replace(tzinfo=UTC)
    return max(reset.timestamp() - received_at, 0.0)


class Bucket:
    """One limit as last reported, less what was sent since, plus what has flowed back since.

    Both services refill without pause and report when the bucket will be full again. A reported
    rest of 0 is waited out until then (a service with fixed windows gives nothing back before).
    After the reset nothing is known until the next report: no request waits for ever, not even
    one larger than the limit.
    """

    def __init__(self, limit: float, remaining: float, reset_s: float, now: float) -> None:
        self.limit, self.remaining = limit, remaining
        self.reported_at, self.reset_at = now, now + reset_s
        self.sent = 0.0

    def wait_s(self, need: float, now: float) -> float:
        """Seconds until `need` can be sent."""
        if need <= 0 or now >= self.reset_at:
            return 0.0
        if self.remaining <= 0:
            return self.reset_at - now
        refill = (self.limit - self.remaining) / (self.reset_at - self.reported_at)
        have = self.remaining - self.sent + refill * (now - self.reported_at)
        if have >= need:
            return 0.0
        left = self.reset_at - now
        return min((need - have) / refill, left) if refill > 0 else left
