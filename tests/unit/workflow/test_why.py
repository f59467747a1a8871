"""Why an artifact would be made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import write_table
from interpflow.tables.provenance import Provenance, file_digest
from interpflow.workflow.code_digest import module_digests
from interpflow.workflow.plan import Plan
from interpflow.workflow.stage import SCRIPTS_DIR, Stage
from interpflow.workflow.why import reasons

SUMMARY = "results/counting/summary.json"
COMPARISON = "results/counting/comparison.parquet"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return parse_config({"models": {"one": {"local": "somewhere"}}})


def stage_of(config: Config, output: str) -> Stage:
    return next(stage for stage in Plan(config).stages() if output in stage.outputs)


def provenance(config: Config, output: str, **changes: object) -> Provenance:
    stage = stage_of(config, output)
    now = stage.parameters
    fields = {
        "rule": stage.rule,
        "spec": json.loads(now["spec"]),
        "code": now["code"],
        "modules": module_digests(SCRIPTS_DIR / stage.script),
        "versions": json.loads(now["lib"]),
        **changes,
    }
    return Provenance(**fields)  # type: ignore[arg-type]


def test_a_missing_artifact_says_so(config: Config) -> None:
    assert reasons(config)[SUMMARY] == ["missing"]


def test_an_artifact_in_step_has_no_reason(config: Config) -> None:
    write_document(SUMMARY, "counting_summary", {}, provenance(config, SUMMARY))
    write_table(COMPARISON, "estimates", [], provenance(config, COMPARISON))
    found = reasons(config)
    assert found[SUMMARY] == []
    assert found[COMPARISON] == []


def test_setting_module_package_and_input_are_named(config: Config) -> None:
    Path("input.txt").write_text("old")
    digest = file_digest("input.txt")
    stage = stage_of(config, SUMMARY)
    modules = module_digests(SCRIPTS_DIR / stage.script)
    old = provenance(
        config, SUMMARY,
        spec={**json.loads(stage.parameters["spec"]), "seed": 5},
        code="another",
        modules={**modules, "interpflow.tables.atomic": "0"},
        versions={**json.loads(stage.parameters["lib"]), "numpy": "1.0"},
        inputs={"input.txt": digest},
    )  # fmt: skip
    write_document(SUMMARY, "counting_summary", {}, old)
    Path("input.txt").write_text("new")
    found = reasons(config)[SUMMARY]
    assert "setting seed: 5 -> 0" in found
    assert "code: interpflow.tables.atomic" in found
    assert any(reason.startswith("package numpy: 1.0 -> ") for reason in found)
    assert "input input.txt changed" in found


@pytest.mark.parametrize("content", ["", "{", "[]", '{"provenance": {}}', "null"])
def test_a_damaged_document_is_a_reason(config: Config, content: str) -> None:
    Path(SUMMARY).parent.mkdir(parents=True)
    Path(SUMMARY).write_text(content)
    assert reasons(config)[SUMMARY]


def test_a_damaged_table_is_a_reason(config: Config) -> None:
    Path(COMPARISON).parent.mkdir(parents=True)
    Path(COMPARISON).write_bytes(b"PAR1")
    assert reasons(config)[COMPARISON]


def test_damaged_activations_are_a_reason(config: Config) -> None:
    directory = Path("results/counting/one/activations")
    directory.mkdir(parents=True)
    assert reasons(config)[str(directory)]
