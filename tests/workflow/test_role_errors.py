"""What a user of language models gets to see before anything is asked: one message, exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from project_copy import Run, tiny_config

CLAUDE = {"provider": "anthropic", "model": "claude-haiku-4-5"}
FIRST_LISTS = "results/counting/rounds/1/lists.parquet"
KEYS = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": ""}


@pytest.fixture
def run(project: Path, model_directory: Path, tmp_path: Path) -> Run:
    config = tiny_config(model_directory)
    config["counting"]["data"]["source"] = "llm"
    config["llm"] = {"roles": {"generator": CLAUDE}}
    return Run(project, tmp_path / "run", config, dict(KEYS))


def refused(run: Run, **environment: str) -> str:
    done = run.snakemake("--cores", "1", FIRST_LISTS, succeeds=False, **environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert not (run.directory / "results/counting").exists()
    return done.stdout


def change(run: Run, **llm: Any) -> None:
    run.write_config({**run.config, "llm": {**run.config["llm"], **llm}})


def test_a_key_and_a_cap_are_needed_to_ask_and_not_to_estimate(run: Run) -> None:
    run.write_config()
    said = refused(run)
    assert "ANTHROPIC_API_KEY holds no API key" in said
    assert "llm.roles.generator" in said
    said = refused(run, ANTHROPIC_API_KEY="secret-of-nobody")
    assert "there is no cap" in said
    assert "llm.max_cost_usd" in said
    assert "secret-of-nobody" not in said
    # Nothing was left locked, and an estimate needs neither.
    said = run.snakemake("--cores", "1", "estimate").stdout
    assert "lists, round 1" in said
    assert "cap: none" in said


def test_a_clash_of_roles_is_named_by_both_keys(run: Run) -> None:
    change(run, roles={"generator": CLAUDE, "validator": [{**CLAUDE, "family": "claude"}]})
    said = refused(run)
    assert "llm.roles.generator and llm.roles.validator.0" in said
    run.config["counting"]["data"]["source"] = "systematic"
    run.write_config()
    run.snakemake("-n")


def test_a_model_without_a_price_is_refused_before_anything_runs(run: Run) -> None:
    unpriced = {"provider": "openai_compatible", "model": "mine", "base_url": "http://localhost:1"}
    change(run, roles={"generator": unpriced}, max_cost_usd=1.0)
    assert "has no price" in refused(run)
