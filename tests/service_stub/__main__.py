"""The stub as a process of its own, for load and for tests that kill.

    python -m tests.service_stub --port-file PORT --journal BILLED [--faults JSON]

`--faults` holds the fields of Faults. The port is written to the port file once connections are
accepted; a stub started again with the same `--port` and journal goes on counting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from importlib import import_module
from pathlib import Path

from tests.service_stub.faults import Faults
from tests.service_stub.service import Service, StubSettings
from tests.service_stub.stub import Listener


async def _serve(settings: StubSettings, port: int, port_file: Path) -> None:
    listener = Listener(Service(settings), port)
    await listener.up()
    part = port_file.with_suffix(".part")
    part.write_text(str(listener.port))
    os.replace(part, port_file)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=None)
    parser.add_argument("--faults", type=json.loads, default={})
    parser.add_argument("--answer", default=None, help="module:function")
    parser.add_argument("--key", default=None)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--headers", type=json.loads, default={})
    parser.add_argument("--batch-polls", type=int, default=1)
    args = parser.parse_args()
    answer = None
    if args.answer:
        module, _, name = args.answer.partition(":")
        answer = getattr(import_module(module), name)
    settings = StubSettings(
        Faults(**args.faults), answer, args.key, args.journal, args.latency_s, args.headers,
        args.batch_polls,
    )  # fmt: skip
    asyncio.run(_serve(settings, args.port, args.port_file))


if __name__ == "__main__":
    main()
