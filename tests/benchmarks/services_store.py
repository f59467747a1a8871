"""What a record of the store costs: time, room on the disk, and what its choices are worth.

    PYTHONPATH=workflow_scripts python -m tests.benchmarks.services_store [--n 2000] [--folder .]

A purchase is what the client does for each call: lease, reserve, keep the raw response, settle. It
is timed with a transaction for each step; with 64 purchases gathered in each transaction, as the
client does at many calls in flight; with synchronous NORMAL instead of FULL; with bodies as they
came instead of deflated; and by 8 processes at once. `sync` is what the disk itself takes to make
one write durable. Rounds of all variants are interleaved and the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interpflow.llm.answers import RawResponse, Usage
from interpflow.llm.bought import store as store_module
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.store import Store, open_store
from interpflow.llm.requests import Request, canonical_body
from tests.benchmarks.machine import machine

ROUNDS = 5
TOGETHER = 64
N_JOBS = 8
WORDS = [f"{a}{b}{c}" for a in "bcdfgl" for b in ("an", "er", "il", "ou") for c in "stkm"]
VARIANTS = {
    "alone": {},
    "together": {"together": TOGETHER},
    "alone, NORMAL": {"synchronous": "NORMAL"},
    "together, NORMAL": {"together": TOGETHER, "synchronous": "NORMAL"},
    "alone, not deflated": {"level": 0},
    "together, not deflated": {"together": TOGETHER, "level": 0},
}


def main() -> None:
    """The command line; the records go to standard output as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=2000, help="purchases per round")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        path, number = arguments.job
        with open_store(path) as store:
            purchase(store, Budget(store, 1e6), pairs(arguments.n, int(number)), 1)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(json.dumps(measured(Path(folder), arguments.n), indent=1))


def measured(folder: Path, n: int) -> dict[str, Any]:
    """Milliseconds per record, bytes per record."""
    bought = pairs(n, 0)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    sizes: dict[str, float] = {}
    reads: list[float] = []
    for n_round in range(ROUNDS):
        for name, options in VARIANTS.items():
            path = folder / f"{name}-{n_round}.sqlite"
            with variant(path, **{k: v for k, v in options.items() if k != "together"}) as store:
                budget = Budget(store, 1e6)
                seconds = timed(purchase, store, budget, bought, options.get("together", 1))
                times[name].append(1000 * seconds / n)
                if name == "alone":
                    keys = [request.key for request, _ in bought]
                    reads.append(1000 * timed(store.find, keys) / n)
            sizes[name] = round(path.stat().st_size / n)
            path.unlink()
    raw = statistics.mean(len(request.body) + len(response.body) for request, response in bought)
    return {
        "machine": machine(),
        "n": n,
        "sync_ms": median([1000 * sync_seconds(folder) for _ in range(100)]),
        "purchase_ms": {name: median(values) for name, values in times.items()},
        "read_ms": median(reads),
        "bytes_of_bodies": round(raw),
        "bytes_on_disk": sizes,
        "jobs_at_once_ms": round(
            1000 * jobs_at_once(folder, n // N_JOBS) / (n // N_JOBS * N_JOBS), 3
        ),
    }


def pairs(n: int, seed: int) -> list[tuple[Request, RawResponse]]:
    """Requests and responses of the size of a validation of 40 words."""
    rng = random.Random(seed)
    return [_pair(rng) for _ in range(n)]


def _pair(rng: random.Random) -> tuple[Request, RawResponse]:
    words = [rng.choice(WORDS) for _ in range(40)]
    prompt = (
        "You are given a list of words and a category. Say of each word, by itself, whether it "
        "belongs to the category in ordinary English use, and be strict in cases of doubt.\n"
    )
    question = f"{prompt}{rng.getrandbits(64)} {' '.join(words)}"
    body = {
        "model": "m",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": question}],
    }
    answer = [{"word": word, "member": rng.random() < 0.5} for word in words]
    response = {
        "id": f"msg_{rng.getrandbits(96):024x}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": json.dumps({"words": answer})}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 400, "output_tokens": 300},
    }
    request = Request("anthropic", "m", "messages", "https://h", "v", (), canonical_body(body))
    return request, RawResponse(json.dumps(response).encode(), headers={"request-id": "req_1"})


def purchase(
    store: Store, budget: Budget, bought: list[tuple[Request, RawResponse]], together: int
) -> None:
    """Buy `together` at a time, step by step as the client does."""
    for start in range(0, len(bought), together):
        some = bought[start : start + together]
        with store.together() if together > 1 else _apart():
            store.claim([request.key for request, _ in some], "benchmark")
        with store.together() if together > 1 else _apart():
            for request, _ in some:
                budget.reserve(request.key, 0.01)
        with store.together() if together > 1 else _apart():
            for request, response in some:
                store.keep(request, response)
        with store.together() if together > 1 else _apart():
            for request, _ in some:
                store.settle(
                    request.key, "ok", Usage(400, 0, 0, 300), 0.004, "p", "req_1", "m", 1, ""
                )


@contextmanager
def _apart() -> Iterator[None]:
    yield


@contextmanager
def variant(path: Path, level: int = 1, synchronous: str = "FULL") -> Iterator[Store]:
    """A store that makes another choice."""
    chosen, store_module.DEFLATE_LEVEL = store_module.DEFLATE_LEVEL, level
    try:
        with open_store(path) as store:
            store._connection.execute(f"PRAGMA synchronous = {synchronous}")
            yield store
    finally:
        store_module.DEFLATE_LEVEL = chosen


def jobs_at_once(folder: Path, n: int) -> float:
    """Wall seconds of as many jobs that buy into one store, less those of one that buys nothing."""
    path = folder / "shared.sqlite"
    command = [sys.executable, "-m", "tests.benchmarks.services_store"]

    def run(n_jobs: int, n_each: int) -> None:
        jobs = [
            subprocess.Popen([*command, "--n", str(n_each), "--job", str(path), str(i)])
            for i in range(1, n_jobs + 1)
        ]
        if any(job.wait() for job in jobs):
            raise RuntimeError("a job failed")

    return timed(run, N_JOBS, n) - timed(run, N_JOBS, 0)


def sync_seconds(folder: Path) -> float:
    """Of a write of a page and its fsync."""
    file = os.open(folder / "page", os.O_CREAT | os.O_WRONLY)
    try:
        os.write(file, os.urandom(4096))
        return timed(os.fsync, file)
    finally:
        os.close(file)


def timed(work, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    main()
