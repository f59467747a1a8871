"""The interventions themselves, through the workflow, on the embedded model that has what they
look for. Small numbers: whether the verdict is right is tested where the numbers are large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from project_copy import FIGURES, REPOSITORY, Run, public_files, tiny_config

from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_table

NAME = "count_running"
WEIGHTS = REPOSITORY / "resources/reference" / NAME / "model.safetensors"

pytestmark = pytest.mark.skipif(
    not WEIGHTS.exists(), reason="the reference models are not in this checkout"
)


@pytest.fixture(scope="module")
def run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config: dict[str, Any] = tiny_config(Path("unused"))
    config["models"] = {NAME: {"reference": NAME}}
    config["counting"]["data"] = {
        "categories": ["bird", "fruit", "weapon"],
        "lengths": {"min": 4, "max": 6},
        "templates": ["parentheses"],
        "replicates": 2,
    }
    config["counting"]["pairs"] |= {
        "n_minimal": 12, "n_prefix": 24, "lengths": {"min": 4, "max": 6}, "oversample": 3.0,
    }  # fmt: skip
    config["counting"]["mediation"] |= {"components": ["resid_post"], "heads": False}
    made = Run(project, tmp_path_factory.mktemp("positive") / "run", config)
    made.write_config()
    made.snakemake("--cores", "2")
    return made


def test_the_interventions_ran_behind_their_gates(run: Run) -> None:
    here = run.directory / "results/counting" / NAME
    assert all((run.directory / name).exists() for name in public_files(NAME))
    gates = read_document(here / "gates.json", "counting_gates")
    assert gates["status"] == "run"
    rows = gates["templates"]["parentheses"]["gates"]["rows"]
    assert rows
    assert all(row["passed"] for row in rows)


def test_the_tables_hold_effects(run: Run) -> None:
    here = run.directory / "results/counting" / NAME
    effects = read_table(here / "pair_effects.parquet", "pair_effects")
    assert set(effects["kind"].to_pylist()) == {"minimal", "prefix"}
    assert set(effects["donor"].to_pylist()) == {"real", "control", "random"}
    # A patch of the answer's state in the last layer gives the donor's own answer.
    last = max(effects["layer"].to_pylist())
    full = [
        row
        for row in effects.to_pylist()
        if (row["component"], row["layer"], row["slot"]) == ("resid_post", last, "answer")
        and (row["kind"], row["donor"]) == ("minimal", "real")
    ]
    assert full
    for row in full:
        assert row["expected_count"] == pytest.approx(row["donor_expected_count"], abs=1e-3)
    for table, schema in (("mediation", "effect_map"), ("effects", "estimates"),
                          ("running_count", "running_count"), ("probes", "probes")):  # fmt: skip
        assert read_table(here / f"{table}.parquet", schema).num_rows > 0, table


def test_the_summary_and_the_page_say_a_verdict(run: Run) -> None:
    summary = read_document(run.directory / "results/counting/summary.json", "counting_summary")
    verdict = summary["models"][NAME]["running_count"]
    assert verdict["sentence"]
    page = (run.directory / "results/report/index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= len(FIGURES)
    assert NAME in page


def test_nothing_is_left_to_do(run: Run) -> None:
    assert run.planned() == {}
