"""Code that changes while a run is on: no result may claim to come from code that it did not."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from project_copy import TIME_LIMIT_S, Run, public_files

Edit = Callable[[str, Callable[[str], str]], None]


@pytest.mark.parametrize(
    ("when", "said"),
    [("start", "changed since this run was planned"), ("write", "changed while the job ran")],
)
def test_an_edit_during_the_job_fails_it(
    fork: Callable[[], Run], edit: Edit, tmp_path: Path, when: str, said: str
) -> None:
    run = fork()
    shutil.rmtree(run.directory / "results/counting")
    hold = tmp_path / "hold"
    hold.mkdir()
    targets = ["results/counting/examples.parquet", "results/counting/pairs.parquet"]
    process = subprocess.Popen(
        run.command("--cores", "1", "--", *targets), text=True,
        env=run.variables(INTERPFLOW_TEST_PAUSE=f"counting_generation.py:{when}@{hold}"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(hold / "paused", process)
        edit("workflow_scripts/interpflow/tasks/counting/pairs.py", lambda t: f"{t}\nEDITED = 1\n")
        (hold / "resume").touch()
        printed, _ = process.communicate(timeout=TIME_LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said in printed
    assert "run the same command again" in printed
    assert "Traceback" not in printed
    assert not [target for target in targets if (run.directory / target).exists()]
    run.snakemake("--cores", "1", "--", *targets)
    assert all((run.directory / target).exists() for target in targets)
    assert set(public_files()) >= set(targets)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIME_LIMIT_S
    while not path.exists():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, "the job never came to the place"
        time.sleep(0.05)
