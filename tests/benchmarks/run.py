"""Time interpflow and its peers on the same work, interleaved: `python -m tests.benchmarks.run`.

Every implementation runs in its own process on one thread; times are CPU seconds. With --all or
--gpu the records land as JSON in tests/benchmarks/measured, from which `tests.benchmarks.page`
writes the reference page; a single run leaves its record in the scratch folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.paths import PROJECT_DIR
from tests.benchmarks.flops import naive_flops, necessary_flops, tight_flops
from tests.benchmarks.machine import machine, versions
from tests.benchmarks.peers.registry import REFERENCE, implementations
from tests.benchmarks.plan import GPU_DTYPES, GPU_SECTIONS, SECTIONS, gpu_name
from tests.benchmarks.rounds import Worker, measure, quiet, seconds, spread, start
from tests.benchmarks.shapes import checkpoint, scratch
from tests.benchmarks.works import PRESETS, SweepWork, Work, work

MEASURED = PROJECT_DIR / "tests/benchmarks/measured"
AT_MOST_ROUNDS = 6
log = logging.getLogger(__name__)


def main() -> None:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser().parse_args()
    if arguments.all or arguments.gpu:
        run_planned(arguments)
        return
    changes = json.loads(arguments.changes)
    name = arguments.name or "-".join([arguments.work, arguments.shape])
    run_one(
        name,
        arguments.work,
        arguments.shape,
        changes,
        arguments.only,
        device=arguments.device,
        dtype=arguments.dtype,
        at_most=arguments.rounds,
        threads=arguments.threads,
    )


def run_planned(arguments: argparse.Namespace) -> None:
    """Everything on the page, or its GPU part."""
    if arguments.gpu:
        planned = [
            (gpu_name(run, dtype), run, dtype)
            for dtype in GPU_DTYPES
            for section in GPU_SECTIONS
            for run in section.runs
        ]
    else:
        planned = [(run.name, run, "float32") for section in SECTIONS for run in section.runs]
    for name, run, dtype in planned:
        if arguments.name and not name.startswith(arguments.name):
            continue
        only = arguments.only or list(run.only) or None
        run_one(
            name,
            run.work,
            run.shape,
            run.changes,
            only,
            folder=MEASURED,
            at_most=arguments.rounds,
            device="cuda" if arguments.gpu else "cpu",
            dtype=dtype,
        )


def parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--work", choices=sorted(PRESETS), default="residual_sweep")
    found.add_argument("--shape", default="gpt2")
    found.add_argument("--changes", default="{}", help="JSON of fields of the work to change")
    found.add_argument("--only", nargs="+", help="names of implementations, all by default")
    found.add_argument("--name", help="name of the result; with --all, how it begins")
    found.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    found.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    found.add_argument("--rounds", type=int, default=AT_MOST_ROUNDS, help="at most so many")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--all", action="store_true", help="everything that the page shows")
    found.add_argument("--gpu", action="store_true", help="its part for a GPU")
    return found


def run_one(
    name: str,
    work_name: str,
    shape_name: str,
    changes: dict[str, Any],
    only: list[str] | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    at_most: int = AT_MOST_ROUNDS,
    threads: int = 1,
    options: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure one work with all (or the named) implementations; write and return the record."""
    chosen = work(work_name, shape_name, changes)
    directory = "" if shape_name == "7b" else str(checkpoint(chosen.shape))
    names = [n for n in implementations(chosen) if only is None or n in only]
    workers = []
    place = {"directory": directory, "device": device, "dtype": dtype}
    for implementation in names:
        task = {
            "name": implementation,
            "work": work_name,
            "shape": shape_name,
            "changes": changes,
            "options": (options or {}).get(implementation, {}),
            "place": place,
            "threads": threads,
            "values": str(values_file(name, implementation)),
        }
        worker = start(task, scratch() / "logs" / name / f"{implementation}.txt")
        log.info("%s: %s %s", name, implementation, worker.error or "is loaded")
        workers.append(worker)
    clock = "wall_s" if device == "cuda" else "cpu_s"
    measure(workers, at_most, clock)
    results = [result(name, worker, clock) for worker in workers]
    compare(name, results, REFERENCE[type(chosen)])
    record = {
        "name": name,
        "work": work_name,
        "shape": shape_name,
        "changes": changes,
        "n_layers": chosen.shape.n_layers,
        "settings": {k: v for k, v in asdict(chosen).items() if k != "shape"},
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "clock": clock,
        "machine": machine(device),
        "versions": versions(),
        **operations(chosen),
        "results": results,
    }
    folder = folder or scratch() / "records"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    report(record)
    return record


def values_file(name: str, implementation: str) -> Path:
    """Where an implementation's numbers are kept until they are compared."""
    folder = scratch() / "values" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{implementation.replace(' ', '_')}.npy"


def result(name: str, worker: Worker, clock: str) -> dict[str, Any]:
    """What is recorded of one implementation, its worker ended."""
    values_file(name, worker.name).unlink(missing_ok=True)
    answer = {} if worker.error else worker.ask("values")
    worker.close()
    times = [seconds(one, clock) for one in worker.rounds]
    found: dict[str, Any] = {"implementation": worker.name, "note": worker.note}
    if not times:
        return {**found, "error": worker.error}
    kept = quiet(times)
    found |= {
        "seconds": statistics.median(kept),
        "rounds": [round(t, 4) for t in times],
        "spread": round(spread(kept), 4),
        "run_seconds": round(sum(p[clock] for p in worker.rounds[-1]["parts"]), 4),
        "load_cpu_s": round(worker.load.get("cpu_s", 0.0), 2),
        "peak_rss_mib": round(max(one["peak_rss_mib"] for one in worker.rounds)),
        "facts": answer.get("facts", {}),
    }
    if "peak_gpu_mib" in worker.rounds[0]:
        found["peak_gpu_mib"] = round(max(one["peak_gpu_mib"] for one in worker.rounds))
    if worker.error:
        found["error"] = worker.error
    return found


def compare(name: str, results: list[dict[str, Any]], reference: str) -> None:
    """Add the largest absolute difference from the reference's numbers, and their scale."""
    file = values_file(name, reference)
    if not file.exists():
        return
    expected = np.load(file)
    for found in results:
        mine = values_file(name, found["implementation"])
        if not mine.exists():
            continue
        values = np.load(mine)
        if values.shape != expected.shape or values.size == 0:
            continue
        both = ~np.isnan(values) & ~np.isnan(expected)
        found["compared"] = int(both.sum())
        found["max_difference"] = float(np.abs(values - expected)[both].max(initial=0.0))
        found["largest_value"] = float(np.abs(expected[both]).max(initial=0.0))


def operations(chosen: Work) -> dict[str, Any]:
    """Operations of a sweep, in FLOP."""
    if not isinstance(chosen, SweepWork):
        return {}
    size = chosen.size()
    return {
        "flops": {
            "naive": naive_flops(chosen.shape, size),
            "last_logits": naive_flops(chosen.shape, size, logits=1),
            "necessary": necessary_flops(chosen.shape, size),
            "tight": tight_flops(chosen.shape, size),
        }
    }


def report(record: dict[str, Any]) -> None:
    """The record in the log, one line per implementation."""
    for found in record["results"]:
        if "seconds" not in found:
            log.info("%-30s failed: %s", found["implementation"], found["error"])
            continue
        log.info(
            "%-30s %8.3f s  spread %3.0f %%  %6d MiB  difference %s %s %s",
            found["implementation"],
            found["seconds"],
            100 * found["spread"],
            found["peak_rss_mib"],
            found.get("max_difference", "-"),
            found["note"],
            found["facts"] or "",
        )


if __name__ == "__main__":
    main()
