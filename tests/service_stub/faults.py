"""Which request meets which fault: drawn by rate from a seed, or listed one by one."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# What a call can meet. Those after "billed" are paid for, whether or not they arrive.
UNBILLED = (
    "429", "429_retry_after", "500", "503", "529", "drop", "400", "401", "402", "403", "404",
)  # fmt: skip
BILLED = ("ok", "disconnect", "slow", "malformed", "max_tokens", "refusal")
ROWS = ("succeeded", "errored", "errored_invalid", "expired", "canceled")


@dataclass(frozen=True)
class Faults:
    """A deterministic plan of faults.

    `rates`: fault -> share of the calls, drawn from the seed, the body and how often that body was
    seen, so the order of arrival does not matter. `script`: the first calls one by one, by arrival
    ("ok" or a fault); then the rates hold. A drawn 529 is followed by `burst` - 1 more on whatever
    arrives next. `limited_headers`: of a "429_retry_after". `slow_s`: delay of a "slow", which is
    answered and billed.
    `create_script`: the first creations of batches one by one: "ok", "lost" (created, but the
    connection breaks), "500", "429". `row_rates`: share of the batch rows that end as errored
    (api_error), errored_invalid (invalid_request_error), expired or canceled, drawn like the rates.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    script: Sequence[str] = ()
    seed: int = 0
    burst: int = 3
    limited_headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after": "1"})
    slow_s: float = 2.0
    create_script: Sequence[str] = ()
    row_rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = ({*self.rates, *self.script} - {*UNBILLED, *BILLED}) | (
            set(self.row_rates) - set(ROWS)
        )
        if unknown or sum(self.rates.values()) > 1 or sum(self.row_rates.values()) > 1:
            raise ValueError(f"no such faults, or shares over 1: {sorted(unknown)}")


class FaultPlan:
    """The state of a plan: what was met so far."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._script = deque(faults.script)
        self._create_script = deque(faults.create_script)
        self._seen: Counter[str] = Counter()
        self._rows_seen: Counter[str] = Counter()
        self._burst_left = 0

    def for_call(self, digest: str) -> str:
        if self._script:
            return self._script.popleft()
        if self._burst_left:
            self._burst_left -= 1
            return "529"
        self._seen[digest] += 1
        drawn = _drawn(self.faults.rates, f"{self.faults.seed}:{digest}:{self._seen[digest]}")
        if drawn == "529":
            self._burst_left = self.faults.burst - 1
        return drawn or "ok"

    def for_create(self) -> str:
        return self._create_script.popleft() if self._create_script else "ok"

    def for_row(self, custom_id: str) -> str:
        self._rows_seen[custom_id] += 1
        text = f"row:{self.faults.seed}:{custom_id}:{self._rows_seen[custom_id]}"
        return _drawn(self.faults.row_rates, text) or "succeeded"


def _drawn(rates: Mapping[str, float], text: str) -> str | None:
    digest = hashlib.sha256(text.encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    for kind, share in rates.items():
        if u < share:
            return kind
        u -= share
    return None
