"""Requests per second of the client of language-model services, and where its time goes.

    PYTHONPATH=workflow_scripts python -m tests.benchmarks.services_client \\
        [--provider anthropic] [--n 5000] [--concurrency 200]

The stub of tests/service_stub runs in its own process. Three works, in the order of what they add:
`sdk` sends the frozen requests through the provider alone (no store, no pacing); `client` buys them
with leases, reservations and durable answers; `stored` reads them again. Times are the wall clock
of this process and its CPU seconds over all threads; the start of the SDK is in none of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.llm.asking import answer
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.providers import open_provider
from tests.benchmarks.machine import machine
from tests.service_stub import ServiceStubProcess

KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai_compatible": "OPENAI_API_KEY"}
PROMPT = "Is each word of this list an animal? " + "dog table horse river " * 40
SCHEMA = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"type": "string"}}},
    "required": ["words"],
    "additionalProperties": False,
}


def main() -> None:
    """The command line; the records go to standard output as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--provider", choices=sorted(KEYS), default="anthropic")
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--progress", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO if arguments.progress else logging.WARNING)
    os.environ.setdefault(KEYS[arguments.provider], "no-key")
    with tempfile.TemporaryDirectory() as folder:
        records = measured(arguments, Path(folder))
    print(json.dumps({"machine": machine(), "works": records}, indent=1))


def measured(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One record per work."""
    asks = [
        Ask(f"a{i}", (Turn("user", f"{PROMPT}{i}"),), schema=SCHEMA, max_tokens=300)
        for i in range(arguments.n)
    ]
    prices = folder / "prices.csv"
    prices.write_text(
        "provider,model,host,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,"
        "valid_from,source\nstub,stub,,3,3.75,6,0.3,15,0.5,2026-01-01,made up\n"
    )
    llm = LlmSettings(
        store=str(folder / "answers.sqlite"), prices=str(prices), max_cost_usd=1e6,
        max_concurrency=arguments.concurrency,
    )  # fmt: skip
    stub = ServiceStubProcess(journal=folder / "bill", latency_s=arguments.latency_s)
    with stub:
        url = stub.url if arguments.provider == "anthropic" else stub.openai_url
        role = RoleModel(provider=arguments.provider, model="stub", base_url=url)
        asyncio.run(_sdk_alone(asks[:8], role, 8))  # imports
        works: dict[str, Callable[[], Any]] = {
            "sdk": lambda: asyncio.run(_sdk_alone(asks, role, arguments.concurrency)),
            "client": lambda: answer(asks, role, llm, purpose="client"),
            "stored": lambda: answer(asks, role, llm, purpose="stored"),
        }
        return [{"work": name} | _timed(work, arguments.n) for name, work in works.items()]


async def _sdk_alone(asks: Sequence[Ask], role: RoleModel, concurrency: int) -> None:
    provider = open_provider(role)
    requests = iter([provider.request(ask) for ask in asks])

    async def work() -> None:
        for request in requests:
            provider.read(await provider.send(request, 60))

    await asyncio.gather(*(work() for _ in range(concurrency)))
    await provider.close()


def _timed(work: Callable[[], Any], n: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "requests_per_s": round(n / wall, 1),
        "cpu_ms_per_request": round(1000 * cpu / n, 3),
        "wall_s": round(wall, 2),
    }


if __name__ == "__main__":
    main()
