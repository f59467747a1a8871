"""Which rule depends on which part of the config."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.paths import PROJECT_DIR
from interpflow.workflow.clean import clean_temporary
from interpflow.workflow.estimate import estimate_costs
from interpflow.workflow.plan import (
    Plan,
    comparison_files,
    lexicon_files,
    preservation_files,
    report_templates,
    reward_files,
    templates_file,
)

MODELS = {"one": {"local": "somewhere"}, "two": {"hub": "a/b", "revision": "c0ffee"}}


def plan(**settings: Any) -> Plan:
    return Plan(parse_config({"models": MODELS, **settings}))


def specs(found: Plan) -> dict[tuple[str, str], str]:
    return {
        (stage.rule, str(stage.spec.get("model", ""))): stage.parameters["spec"]
        for stage in found.stages()
    }


def changed(**settings: Any) -> set[str]:
    before, after = specs(plan()), specs(plan(**settings))
    return {rule for (rule, model), spec in after.items() if before[rule, model] != spec}


def test_parameters_are_texts_that_only_depend_on_values() -> None:
    first = plan(counting={"data": {"replicates": 2, "max_similarity": 0.5}})
    second = plan(counting={"data": {"max_similarity": 0.5, "replicates": 2}})
    assert [s.parameters for s in first.stages()] == [s.parameters for s in second.stages()]
    for stage in first.stages():
        assert all(isinstance(value, str) for value in stage.parameters.values())
        json.loads(stage.parameters["spec"])


def test_the_seed_changes_all_that_draws() -> None:
    assert changed(seed=1) >= {
        "counting_generation", "counting_validation", "counting_benchmark", "counting_mediation",
        "counting_effects", "counting_running_count",
    }  # fmt: skip


def test_execution_changes_nothing() -> None:
    assert changed(execution={"device": "cuda", "tokens_per_batch": 64}) == set()


def test_a_study_with_fewer_models_changes_what_gathers_them() -> None:
    assert changed(counting={"models": ["one"]}) == {
        "counting_comparison", "counting_summary", "report_page",
    }  # fmt: skip


def test_the_order_of_models_is_their_order_in_the_config() -> None:
    assert plan(counting={"models": ["two", "one"]}).config.counting_models() == ["two", "one"]


def test_a_study_switched_off_has_no_stages() -> None:
    off = plan(counting=None)
    assert not [stage for stage in off.stages() if stage.rule.startswith("counting")]
    assert off.parameter("spec", "counting_generation") == ""
    assert estimate_costs(off.config) == []


def test_outputs_are_named_once() -> None:
    outputs = [output for stage in plan().stages() for output in stage.outputs]
    assert len(outputs) == len(set(outputs))


@pytest.mark.parametrize("inside", [True, False])
def test_files_of_the_project_are_named_from_the_run(
    inside: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT_DIR if inside else tmp_path)
    config = plan().config
    for path in (*lexicon_files(config), templates_file(config), *report_templates()):
        assert path.startswith("/") != inside


def test_weights_count_for_memory(tmp_path: Any) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 3_000_000)
    config = parse_config({"models": {"m": {"local": str(tmp_path)}}})
    assert Plan(config).weights_mb("m") == 3
    assert Plan(config).weights_mb("unknown") == 0


def test_a_larger_study_costs_more() -> None:
    def tokens(**counting: Any) -> int:
        return sum(cost.forward_tokens for cost in estimate_costs(plan(counting=counting).config))

    base = tokens()
    assert tokens(data={"replicates": 2}) > base
    assert tokens(pairs={"n_minimal": 600}) > base
    assert tokens(mediation={"heads": False}) < base


def test_cleaning_takes_only_unfinished_files(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "results/a/table.parquet"
    half = tmp_path / "results/a/.table.parquet.tmp-12"
    directory = tmp_path / "results/.activations.tmp-7"
    directory.mkdir(parents=True)
    kept.parent.mkdir(parents=True)
    for path in (kept, half, directory / "shard.safetensors"):
        path.write_bytes(b"x")
    clean_temporary(tmp_path / "results")
    assert kept.exists()
    assert not half.exists()
    assert not directory.exists()
    assert "deleted 2 temporary files" in capsys.readouterr().out
    clean_temporary(tmp_path / "nothing")


def test_cleaning_a_shared_store_leaves_what_is_being_written(tmp_path: Any) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    living, dead = (tmp_path / f".run.tmp-{pid}-ab" for pid in (os.getpid(), ended.pid))
    for directory in (living, dead):
        directory.mkdir()
    clean_temporary(tmp_path, is_shared=True)
    assert living.exists()
    assert not dead.exists()


@pytest.mark.parametrize(
    ("study", "rules"),
    [
        ({"analysis": {"level": 0.9}}, {"benchmark", "internals", "effects"}),
        ({"scoring": {"embedding": "a/b@c"}}, {"semantics"}),
        ({"scoring": {"reward_max_tokens": 64}}, {"rewards"}),
        ({"scoring": {"judge": True}}, {"judging"}),
        ({"inference": {"top_k": 3}}, {"inference"}),
        ({"mediation": {"heads": False}}, {"mediation", "effects"}),
        ({"semantics": {"min_similarity": 0.5}}, {"validation"}),
        ({"semantics": {"validator": True}}, {"validation", "meanings"}),
        ({"perturbations": {"variants": 2}}, {"generation"}),
        ({"perturbations": {"dose": {"n_edits": [1]}}}, {"generation", "benchmark"}),
        ({"perturbations": {"rewrites": {"styles": ["polite"]}}}, {"generation", "rewriting"}),
        ({"data": {"n_items": 9}}, {"generation"}),
        ({"models": ["one"]}, {"summary"}),
    ],
)
def test_settings_of_robustness_change_what_depends_on_them(
    study: dict[str, Any], rules: set[str]
) -> None:
    before, after = specs(plan(robustness={})), specs(plan(robustness=study))
    names = {rule for (rule, model), spec in after.items() if before.get((rule, model)) != spec}
    assert names - {"report_page"} == {f"robustness_{rule}" for rule in rules}


def test_no_result_of_robustness_depends_on_the_machine() -> None:
    machine = {"device": "cuda", "tokens_per_batch": 64}
    assert specs(plan(robustness={})) == specs(plan(robustness={}, execution=machine))


def test_models_in_directories_are_inputs_of_what_they_score(tmp_path: Any) -> None:
    for name in ("reward", "embedding/1_Pooling", "nli"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    names = {name: str(tmp_path / name) for name in ("reward", "embedding", "nli")}
    scoring = {"reward_models": [names["reward"], "a/b@c"], "embedding": names["embedding"],
               "nli": names["nli"]}  # fmt: skip
    config = plan(robustness={"scoring": scoring, "semantics": {"embedding": None}}).config
    assert reward_files(config) == [f"{names['reward']}/config.json"]
    assert comparison_files(config) == [
        f"{names['embedding']}/1_Pooling/config.json", f"{names['nli']}/config.json",
    ]  # fmt: skip
    assert preservation_files(config) == []
    assert comparison_files(plan(robustness={}).config) == []
    assert reward_files(plan().config) == []
