"""One implementation in a process of its own: loads once, then runs a round per line it reads.

Started by `run`; it speaks JSON lines. What a library prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np


def main() -> None:
    """Read the task from the first line, answer with one line per round, end with the input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    try:
        serve(task, answers)
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}) + "\n")
        raise


def serve(task: dict[str, Any], answers: TextIO) -> None:
    """Prepare the job, say so, and run it once for every further line."""
    import torch

    from tests.benchmarks.clock import peak_memory_mib, reset_peak_memory, timed
    from tests.benchmarks.job import Place
    from tests.benchmarks.peers.registry import prepared
    from tests.benchmarks.works import work

    torch.set_num_threads(int(task["threads"]))
    place = Place(**task["place"])
    chosen = work(task["work"], task["shape"], task["changes"])
    load = timed(lambda: task.update(job=prepared(task["name"], chosen, place, task["options"])))
    job = task["job"]
    send(answers, {"ready": True, "load": load, "note": job.note})
    cuda = place.device == "cuda"
    synchronize = torch.cuda.synchronize if cuda else None
    for line in sys.stdin:
        if line.strip() == "values":
            np.save(Path(task["values"]), job.values())
            send(answers, {"facts": job.facts()})
            continue
        reset_peak_memory()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        parts = []
        for part in job.parts:
            parts.append({"name": part.name, "scale": part.scale, **timed(part.run, synchronize)})
        memory = {"peak_rss_mib": peak_memory_mib()}
        if cuda:
            memory["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
        send(answers, {"parts": parts, **memory})


def send(answers: TextIO, message: dict[str, Any]) -> None:
    """One line of JSON."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
