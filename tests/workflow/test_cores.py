"""The number of cores changes no byte."""

from __future__ import annotations

from pathlib import Path

from project_copy import Run


def test_one_core_gives_the_bytes_of_two(complete: Run, tmp_path: Path) -> None:
    run = Run(complete.project, tmp_path / "run", dict(complete.config))
    run.write_config()
    run.snakemake("--cores", "1")
    assert run.artifacts() == complete.artifacts()
