"""CPU seconds and peak memory of a piece of work in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def cpu_seconds() -> float:
    """User and system time of this process, all its threads, and its finished children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def timed(function: Callable[[], object], synchronize: Callable[[], None] | None = None) -> dict:
    """Run once: CPU seconds and wall seconds. `synchronize` waits for the device."""
    if synchronize:
        synchronize()
    wall, cpu = time.perf_counter(), cpu_seconds()
    function()
    if synchronize:
        synchronize()
    return {"cpu_s": cpu_seconds() - cpu, "wall_s": time.perf_counter() - wall}


def reset_peak_memory() -> None:
    """Let the peak start at what is resident now (on Linux; elsewhere it covers the process)."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return


def peak_memory_mib() -> float:
    """Largest resident set since the last reset."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
