"""Identities by content: hashes, splits and seeds that no order of execution can change."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

Split = Literal["discover", "develop", "confirm"]
SPLIT_SHARES: tuple[tuple[Split, float], ...] = (
    ("discover", 0.2),
    ("develop", 0.2),
    ("confirm", 0.6),
)
HASH_LENGTH = 16  # 64 bits: no collision to be expected among 10^8 ids


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:HASH_LENGTH]


def split_of(family_id: str) -> Split:
    """The split of a unit of inference, decided by its id alone."""
    share = int(hashlib.sha256(f"split:{family_id}".encode()).hexdigest()[:8], 16) / 0x100000000
    for name, width in SPLIT_SHARES:
        if share < width:
            return name
        share -= width
    return "confirm"


def derived_seed(root_seed: int, *names: object) -> int:
    """A 63-bit seed for one named purpose, independent of all others of the same root."""
    text = canonical_json([root_seed, *[str(name) for name in names]])
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 1
