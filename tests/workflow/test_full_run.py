"""A whole run: every file is there, nothing runs twice, and the commands users type work."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from project_copy import FIGURES, MODEL, REPOSITORY, Run, public_files, tiny_config


def test_every_public_file_is_made(complete: Run) -> None:
    missing = [name for name in public_files(MODEL) if not (complete.directory / name).exists()]
    assert not missing
    assert not complete.leftovers()


def test_no_file_is_made_that_no_rule_names(complete: Run) -> None:
    named = public_files(MODEL)
    extra = [
        name
        for name in complete.artifacts()
        if not any(name == known or name.startswith(f"{known}/") for known in named)
    ]
    assert not extra


def test_second_run_does_nothing(complete: Run) -> None:
    assert "Nothing to be done" in complete.snakemake("--cores", "2").stdout


def test_public_targets_are_complete(complete: Run) -> None:
    assert complete.planned("all", "counting", "report") == {}


def test_graphs_and_summary(complete: Run) -> None:
    rules = complete.snakemake("--rulegraph").stdout
    jobs = complete.snakemake("--dag").stdout
    assert "digraph" in rules
    assert "counting_mediation" in rules
    assert f"model: {MODEL}" in jobs.replace("\\n", " ")
    summary = complete.snakemake("--summary").stdout
    for name in public_files(MODEL):
        line = next(line for line in summary.splitlines() if line.startswith(f"{name}\t"))
        assert line.split("\t")[-2:] == ["ok", "no update"]


def test_lint_is_clean(complete: Run) -> None:
    assert "good condition" in complete.snakemake("--lint").stdout


def test_snakemake_report_holds_every_figure(fork: Callable[[], Run]) -> None:
    run = fork()
    run.snakemake("--report", "report.html")
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    for figure in FIGURES:
        drawn = (run.directory / f"results/counting/{MODEL}/figures/{figure}.svg").read_bytes()
        assert base64.b64encode(drawn).decode() in page, figure


def test_estimate_prints_the_costs(fork: Callable[[], Run]) -> None:
    printed = fork().snakemake("--cores", "1", "estimate").stdout
    assert re.search(rf"counting_mediation\s+{MODEL}", printed)
    assert "forward tokens" in printed


def test_slurm_profile_plans_the_same_jobs(fork: Callable[[], Run]) -> None:
    pytest.importorskip("snakemake_executor_plugin_slurm")
    run = fork()
    (run.directory / "results/counting/summary.json").unlink()
    profile = str(REPOSITORY / "profiles/slurm")
    assert set(run.planned("--profile", profile)) == {"counting_summary", "report_page", "all"}


def test_graph_of_fifty_models(project: Path, model_directory: Path, tmp_path: Path) -> None:
    names = [f"model{number}" for number in range(50)]
    run = Run(project, tmp_path / "run", tiny_config(model_directory, *names))
    run.write_config()
    printed = run.snakemake("-n", "--quiet", "rules").stdout
    # Seven rules per model; generation, validation, comparison, summary, page and `all` once.
    assert re.search(rf"^total\s+{50 * 7 + 6}$", printed, re.MULTILINE), printed[-3000:]
