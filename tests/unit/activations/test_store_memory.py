"""Writing more prompts takes no more memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from interpflow.paths import PROJECT_DIR

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from interpflow.activations import ActivationWriter, SiteRecord, plan_store
n_prompts, tokens, batch = int(sys.argv[2]), 16, 64
sites = [SiteRecord("embed", 256, "float16"), SiteRecord("resid_post.L0", 256, "float16")]
ids = [f"{i:08x}" for i in range(n_prompts)]
plan = plan_store(ids, [tokens] * n_prompts, sites, shard_tokens=2048)
state = np.ones((batch * tokens, 256), np.float32)
with ActivationWriter(Path(sys.argv[1]), plan) as writer:
    for prompts in writer.remaining():
        for start in range(prompts.start, prompts.stop, batch):
            chosen = ids[start : min(start + batch, prompts.stop)]
            rows = len(chosen) * tokens
            writer.append(chosen, {site.site: state[:rows] for site in sites},
                          {"token_position": np.arange(rows) % tokens})
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_a_shard(tmp_path) -> None:
    def peak_kb(n_prompts: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / str(n_prompts)), str(n_prompts)],
            env={**os.environ, "PYTHONPATH": str(PROJECT_DIR / "workflow_scripts")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(done.stdout)

    # The tensors of the larger store alone are 98 MB, several times what 5 % of the peak is.
    assert peak_kb(6000) < 1.05 * peak_kb(500)
