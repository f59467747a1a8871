"""Freed memory stays with the process while asked for, and goes back afterwards."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from interpflow.paths import PROJECT_DIR

PROGRAM = """
import resource
import torch
from interpflow.engine.passes.freed_pages import freed_pages_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):  # ten of 12 MiB at a time: more than the C library ever keeps
        parts = [torch.empty(3 * 2**20).fill_(1.0) for _ in range(10)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

torch.set_num_threads(1)
faults()
before = faults()
with freed_pages_kept(), freed_pages_kept():
    faults()
    inside, held = faults(), resident()
after = resident()
print(before, inside, held - after)
"""


# Where something happens to lie on top of the heap, nothing is given back in the first place.
ATTEMPTS = 8


def measured() -> tuple[int, int, int]:
    """Faults without it, faults inside, bytes given back; in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        env={**clean, "PYTHONPATH": str(PROJECT_DIR / "workflow_scripts")},
    )  # fmt: skip
    before, inside, returned = map(int, done.stdout.split())
    return before, inside, returned


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_pages_are_handed_out_once_and_given_back() -> None:
    runs = (measured() for _ in range(ATTEMPTS))
    telling = next((run for run in runs if run[0] > 20_000), None)
    assert telling, "without it pages come anew in every round"
    _, inside, returned = telling
    assert inside < 2_000
    assert returned > 40 << 20
