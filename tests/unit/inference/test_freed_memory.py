from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a process of its own: what a process has freed before decides what it keeps.
FAULTS = """
import resource, torch
torch.set_num_threads(1)
from interpflow.inference.freed_memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
def one():
    states = [torch.ones(3 * 2**20) for _ in range(4)]
for _ in range(5):
    one()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    one()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these limits")
def test_memory_is_asked_for_once():
    def faults(kept: bool) -> int:
        command = [sys.executable, "-c", FAULTS.format(kept=kept)]
        places = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run(command, capture_output=True, check=True, text=True, env=places)
        return int(ended.stdout)

    assert 10 * faults(kept=True) < faults(kept=False)
