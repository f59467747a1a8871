"""What the stub has billed: in memory, and in a file that outlives any kill."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def digest_of(body: Mapping[str, Any] | bytes) -> str:
    """sha256 of a body's canonical JSON, 64 hex digits: that of a frozen request body."""
    content = json.loads(body) if isinstance(body, bytes) else body
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def billed_in(path: Path | str) -> list[dict[str, Any]]:
    """Entries of a journal: digest, time, fault ("ok": the answer was sent whole), batch."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return [json.loads(line) for line in lines]


class Billing:
    """One line per completion billed. One write each: whole lines, whoever is killed."""

    def __init__(self, path: Path | str | None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else None
        self.entries: list[dict[str, Any]] = billed_in(path) if path else []

    def bill(self, digest: str, fault: str, batch: str | None = None) -> None:
        entry = {"digest": digest, "time": time.time(), "fault": fault, "batch": batch}
        if self._file is not None:
            os.write(self._file, json.dumps(entry).encode() + b"\n")
        self.entries.append(entry)

    def counts(self) -> Counter[str]:
        return Counter(entry["digest"] for entry in list(self.entries))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
