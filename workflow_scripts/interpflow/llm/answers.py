"""What came back: the raw response as it is stored, and what is read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Outcome = Literal["ok", "truncated", "refusal", "invalid", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# Only these satisfy a read; of the others the record is kept and the question stays open.
FINAL_OUTCOMES: frozenset[Outcome] = frozenset({"ok", "truncated", "refusal"})


@dataclass(frozen=True)
class Usage:
    """Tokens of one response in the four buckets that are billed apart.

    `cache_write_1h_tokens` are those of `cache_write_tokens` that were written for an hour, at a
    higher price.
    """

    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    cache_write_1h_tokens: int = 0

    @property
    def all_input_tokens(self) -> int:
        return self.input_tokens + self.cache_write_tokens + self.cache_read_tokens


@dataclass(frozen=True)
class RawResponse:
    """A response's body as received, durable before anything is read from it.

    `headers` are the request id and the rate-limit headers only. `sent_at` and `received_at` are
    seconds since the epoch. `channel` is "sync", or the id of the batch.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent_at: float = 0.0
    received_at: float = 0.0
    channel: str = "sync"


@dataclass(frozen=True)
class ToolCall:
    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a provider reads from a raw response; derived, never stored in its place."""

    outcome: Outcome
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    model: str = ""
    request_id: str = ""
    why: str = ""  # of an outcome other than ok: in the service's terms, without any content


@dataclass(frozen=True)
class Answer:
    """The answer to an ask.

    `data` is the parsed answer where the ask has a schema or choices (for choices the chosen one),
    null where the outcome is not ok. `cost_usd` is what its purchase cost, 0 for a stored one only
    if it cost nothing: see `from_store`.
    """

    id: str
    key: str
    outcome: Outcome
    text: str
    data: Any
    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    cost_usd: float
    model: str
    from_store: bool
    why: str = ""
