"""A whole request, frozen as bytes before it is first sent, and the key it is stored under."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

KEY_VERSION = 1
# Larger than any sample's index, so that no two draws share a seed; all fit 31 bits.
SEED_STEP = 1_000_003


@dataclass(frozen=True)
class Request:
    """Everything a service's answer can depend on, and which draw of it is wanted.

    `body` is the canonical JSON of the whole body. `host` is the base URL without credentials;
    `betas` are the beta headers. Nothing else enters the key: not the API key, not time limits, not
    whether it is sent alone or in a batch. `ask_again` counts the times a stored answer was set
    aside on purpose (an answer that met no schema, asked again).
    """

    provider: str
    model: str
    endpoint: str
    host: str
    api_version: str
    betas: tuple[str, ...]
    body: bytes
    sample: int = 0
    ask_again: int = 0

    @cached_property
    def key(self) -> str:
        """64 hex digits: also fit as the `custom_id` of a batch entry."""
        digest = hashlib.sha256()
        head = {
            "version": KEY_VERSION,
            "provider": self.provider,
            "endpoint": self.endpoint,
            "host": self.host,
            "api_version": self.api_version,
            "betas": sorted(self.betas),
            "sample": self.sample,
            "ask_again": self.ask_again,
        }
        digest.update(canonical_body(head))
        digest.update(b"\n")
        digest.update(self.body)
        return digest.hexdigest()

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.body)

    def again(self, n: int) -> Request:
        """The same question asked anew for the n-th time; 0 is this request itself.

        A seed in the body moves on: under the old one a server would give the same answer.
        """
        if n == 0:
            return self
        content = self.content
        if "seed" not in content:
            return replace(self, ask_again=n)
        content["seed"] += n * SEED_STEP
        return replace(self, ask_again=n, body=canonical_body(content))


def canonical_body(body: Mapping[str, Any]) -> bytes:
    """One spelling per body: sorted keys, no spaces, UTF-8 as it is; NaN raises ValueError."""
    text = json.dumps(
        _plain(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value == 0 and math.copysign(1, value) < 0:
        return 0.0
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
