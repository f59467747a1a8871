"""SIGKILL at any moment: the next run ends with the bytes of an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from project_copy import MODEL, TIME_LIMIT_S, Run

from interpflow.workflow.clean import clean_temporary

N_EXHAUSTIVE = 20
LONGEST_WAIT_S = 25.0  # about the length of a run on two quiet cores


def restarted(fork: Callable[[], Run]) -> Run:
    """A run of the study from its beginning; the model's manifest is there already."""
    run = fork()
    shutil.rmtree(run.directory / "results/counting")
    shutil.rmtree(run.directory / "results/report")
    return run


def kill_at_rename(run: Run, whom: str, number: int, counter: Path) -> int:
    """SIGKILL before file `number` of the run gets its name; returns the exit status."""
    counter.mkdir()
    process = subprocess.Popen(
        run.command("--cores", "2"), start_new_session=True,
        env=run.variables(INTERPFLOW_TEST_KILL=f"{whom}:{number}@{counter}"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return process.wait(timeout=TIME_LIMIT_S)


def kill_after(run: Run, seconds: float) -> int:
    """SIGKILL to Snakemake and its jobs after some seconds; returns the exit status."""
    process = subprocess.Popen(
        run.command("--cores", "2"), start_new_session=True, env=run.variables(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(timeout=seconds)
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait(timeout=TIME_LIMIT_S)


def finish(run: Run) -> None:
    run.snakemake("--unlock")
    run.snakemake("--cores", "2")
    clean_temporary(run.directory / "results")


def disturb(run: Run, case: int, n_renames: int, directory: Path) -> None:
    """One of many ways to die, drawn by the number of the case."""
    draw = random.Random(case)
    if case % 2:
        kill_after(run, draw.uniform(2.0, LONGEST_WAIT_S))
    else:
        whom = "job" if case % 4 else "group"
        # The first file of the counted run is the manifest, which is there already.
        number = draw.randint(1, n_renames - 1)
        assert kill_at_rename(run, whom, number, directory / "counter") != 0


@pytest.mark.parametrize("case", range(3))
def test_killed_run_ends_with_the_same_bytes(
    complete: Run, fork: Callable[[], Run], n_renames: int, tmp_path: Path, case: int
) -> None:
    run = restarted(fork)
    disturb(run, case, n_renames, tmp_path)
    finish(run)
    assert run.artifacts() == complete.artifacts()
    assert not run.leftovers()


@pytest.mark.slow
@pytest.mark.parametrize("case", range(3, 3 + N_EXHAUSTIVE))
def test_killed_run_ends_with_the_same_bytes_whenever(
    complete: Run, fork: Callable[[], Run], n_renames: int, tmp_path: Path, case: int
) -> None:
    test_killed_run_ends_with_the_same_bytes(complete, fork, n_renames, tmp_path, case)


@pytest.mark.parametrize(
    ("script_files", "number"),
    [pytest.param(2, 2, id="between two tables of one job"), pytest.param(1, 1, id="first table")],
)
def test_records_deleted_after_a_kill_leave_nothing_partial(
    complete: Run, fork: Callable[[], Run], tmp_path: Path, script_files: int, number: int
) -> None:
    run = restarted(fork)
    assert kill_at_rename(run, "group", number, tmp_path / "counter") < 0
    assert run.leftovers(), "the kill came in the middle of a file"
    shutil.rmtree(run.directory / ".snakemake")
    expected = complete.artifacts()
    for name, digest in run.artifacts().items():
        assert digest == expected[name], f"{name} is there but not whole"
    assert len(run.artifacts()) == 1 + script_files - 1, sorted(run.artifacts())
    run.snakemake("--cores", "1", "results/counting/validation.json")
    assert run.artifacts().items() <= expected.items()


def test_clean_tmp_removes_what_a_kill_left(fork: Callable[[], Run]) -> None:
    run = fork()
    before = run.artifacts()
    study = run.directory / "results/counting"
    (study / ".pairs.parquet.tmp-123").write_bytes(b"half")
    half = study / MODEL / ".activations.tmp-123"
    half.mkdir()
    (half / "shard-00000.safetensors").write_bytes(b"half")
    printed = run.snakemake("--cores", "1", "clean_tmp").stdout
    assert "deleted 2 temporary files" in printed
    assert not run.leftovers()
    assert run.artifacts() == before


def test_a_run_in_progress_is_not_disturbed_by_a_second(
    fork: Callable[[], Run], tmp_path: Path
) -> None:
    run = restarted(fork)
    hold = tmp_path / "hold"
    hold.mkdir()
    first = subprocess.Popen(
        run.command("--cores", "1", "results/counting/pairs.parquet"), start_new_session=True,
        env=run.variables(INTERPFLOW_TEST_PAUSE=f"counting_generation.py:write@{hold}"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + TIME_LIMIT_S
        while not (hold / "paused").exists():
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.05)
        second = run.snakemake("--cores", "1", succeeds=False)
        assert second.returncode != 0
        assert "LockException" in second.stdout or "cannot be locked" in second.stdout
        (hold / "resume").touch()
        assert first.wait(timeout=TIME_LIMIT_S) == 0
    finally:
        first.kill()
