"""Random streams that depend on the root seed, the rule and its wildcards, and on nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np


def stable_hash(rule: str, wildcards: Mapping[str, object] | None = None) -> int:
    """64-bit prefix of the SHA-256 of a rule name and its wildcards (order of keys irrelevant)."""
    parts = {str(key): str(value) for key, value in (wildcards or {}).items()}
    text = json.dumps([rule, parts], sort_keys=True, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def seed_sequence(
    root_seed: int, rule: str, wildcards: Mapping[str, object] | None = None
) -> np.random.SeedSequence:
    """The seed sequence of one job; parallel order of jobs cannot change it."""
    return np.random.SeedSequence([root_seed, stable_hash(rule, wildcards)])


def spawn_seeds(
    root_seed: int, rule: str, wildcards: Mapping[str, object] | None = None, count: int = 1
) -> tuple[int, ...]:
    """`count` independent integer seeds (63 bits, so that they fit a signed column) for one job."""
    children = seed_sequence(root_seed, rule, wildcards).spawn(count)
    return tuple(int(child.generate_state(1, np.uint64)[0] >> np.uint64(1)) for child in children)
