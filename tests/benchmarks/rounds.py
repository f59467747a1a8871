"""Interleaved rounds: every implementation once, then all again, until their times agree."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interpflow.paths import PROJECT_DIR

# Rounds of one implementation that differ by more were disturbed by something else.
SPREAD = 0.15
# Of the rounds run, the quietest so many count.
ROUNDS = 3
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_MODE": "disabled",
    "TQDM_DISABLE": "1",
}


@dataclass
class Worker:
    """One implementation, loaded and waiting in its own process."""

    name: str
    process: subprocess.Popen
    note: str = ""
    load: dict[str, float] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def ask(self, line: str = "") -> dict[str, Any]:
        """Send a line, wait for the answer; a worker that fails is out of the further rounds."""
        if not self.error and line is not None and self.process.stdin:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline() if self.process.stdout else ""
        message = json.loads(answer) if answer else {"error": "the process ended"}
        self.error = message.get("error", "")
        return message

    def close(self) -> None:
        """End the process by closing its input."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def start(task: dict[str, Any], log: Path, python: str = sys.executable) -> Worker:
    """Start the worker of one implementation and wait until it has loaded."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(PROJECT_DIR), str(PROJECT_DIR / "workflow_scripts")])
    threads = str(task["threads"])
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": path}
    environment.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads))
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [python, "-m", "tests.benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=PROJECT_DIR,
        )
    worker = Worker(task["name"], process)
    ready = worker.ask(json.dumps(task))
    worker.note = ready.get("note", "")
    worker.load = ready.get("load", {})
    return worker


def seconds(one: dict[str, Any], clock: str = "cpu_s") -> float:
    """Time of a round, sampled parts scaled to the whole."""
    return sum(part[clock] * part["scale"] for part in one["parts"])


def quiet(times: list[float], count: int = ROUNDS) -> list[float]:
    """The `count` smallest: other processes can only add to a time."""
    return sorted(times)[:count]


def spread(times: list[float]) -> float:
    """(largest - smallest) / median."""
    return (max(times) - min(times)) / statistics.median(times) if times else 0.0


def measure(workers: list[Worker], at_most: int, clock: str = "cpu_s") -> None:
    """Interleaved rounds until each worker's quietest ROUNDS agree within SPREAD, or `at_most`.

    At least one round more than count: the first pays for what is done once per process.
    """
    for index in range(at_most):
        waiting = [worker for worker in workers if not worker.error]
        if index > ROUNDS and all(
            spread(quiet([seconds(r, clock) for r in worker.rounds])) <= SPREAD
            for worker in waiting
        ):
            return
        for worker in waiting:
            message = worker.ask("round")
            if not worker.error:
                worker.rounds.append(message)
