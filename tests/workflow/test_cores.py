"""The number of cores changes no byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from project_copy import Run


def test_one_core_gives_the_bytes_of_two(complete: Run, fork: Callable[[], Run]) -> None:
    run = fork()
    shutil.rmtree(run.directory / "results/counting")
    shutil.rmtree(run.directory / "results/report")
    run.snakemake("--cores", "1")
    assert run.artifacts() == complete.artifacts()
