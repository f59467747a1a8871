"""The stub as a child process, started and ended by a test."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.service_stub.billing import billed_in
from tests.service_stub.faults import Faults

REPOSITORY = Path(__file__).resolve().parents[2]
STARTS_WITHIN_S = 20.0


class ServiceStubProcess:
    """ServiceStub in its own process: `answer` is "module:function". The journal is always kept.

    `kill()` ends it at once, `start()` brings it back on the same port with the same journal; its
    batches and the state of its fault plan are lost.
    """

    def __init__(
        self, faults: Faults | None = None, *, journal: Path | str, answer: str | None = None,
        key: str | None = None, latency_s: float = 0.0, headers: dict[str, str] | None = None,
        batch_polls: int = 1,
    ) -> None:  # fmt: skip
        self.journal = Path(journal)
        self._options = [
            "--faults", json.dumps(asdict(faults or Faults())),
            "--journal", str(self.journal), "--latency-s", str(latency_s),
            "--headers", json.dumps(headers or {}), "--batch-polls", str(batch_polls),
        ]  # fmt: skip
        self._options += ["--answer", answer] if answer else []
        self._options += ["--key", key] if key else []
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServiceStubProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def billed_entries(self) -> list[dict[str, Any]]:
        return billed_in(self.journal)

    @property
    def billed(self) -> Counter[str]:
        return Counter(entry["digest"] for entry in self.billed_entries)

    def start(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            port_file = Path(folder) / "port"
            command = [sys.executable, "-m", "tests.service_stub", "--port-file", str(port_file)]
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._options], cwd=REPOSITORY
            )
            deadline = time.monotonic() + STARTS_WITHIN_S
            while not port_file.exists():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the stub did not start")
                time.sleep(0.01)
            self.port = int(port_file.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
