"""Rules, profiles, environments and the stage table say the same."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

from interpflow.config.load import load_config, parse_config
from interpflow.paths import PROJECT_DIR
from interpflow.workflow.layer_surgery_stages import (
    AGENT_FIGURE,
    JUDGING_FIGURE,
    LAYER_SURGERY_FIGURES,
)
from interpflow.workflow.robustness_stages import ROBUSTNESS_FIGURES
from interpflow.workflow.stage import Stage
from interpflow.workflow.stages import COUNTING_FIGURES, configured_stages

SMK_FILES = sorted((PROJECT_DIR / "rules").glob("*.smk"))
FIGURES = {
    "counting": COUNTING_FIGURES,
    "robustness": ROBUSTNESS_FIGURES,
    "layer_surgery": (*LAYER_SURGERY_FIGURES, AGENT_FIGURE, JUDGING_FIGURE),
}
# Targets that only ask for files.
AGGREGATES = {"reference_models"}


def rule_texts() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in SMK_FILES:
        for block in re.split(r"^(?=rule )", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            name = block.removeprefix("rule ").split(":")[0]
            found[name] = block
    return found


RULES = rule_texts()


def worked(rules: dict[str, str]) -> list[str]:
    return [name for name in rules if name not in AGGREGATES]


def one_model_stages() -> list[Stage]:
    """The stages of every study, with those that only some settings ask for."""
    surgery = {"tasks": {"written": {"tasks": {"sums": "Sums."}}}}
    config = {"models": {"MODEL": {"local": "x"}}, "robustness": {}, "layer_surgery": surgery}
    return configured_stages(parse_config(config))


@pytest.mark.parametrize("rule", worked(RULES))
def test_a_rule_states_all_it_needs(rule: str) -> None:
    text = RULES[rule]
    for directive in ("log", "conda", "params", "threads", "resources", "script"):
        assert re.search(rf"^    {directive}:", text, re.M), f"{rule} has no {directive}"
    for resource in ("mem_mb", "runtime"):
        assert re.search(rf"^        {resource}=", text, re.M), f"{rule} has no {resource}"
    assert "run:" not in text
    assert "shell:" not in text


@pytest.mark.parametrize("rule", worked(RULES))
def test_a_rule_has_its_own_parameters_and_script(rule: str) -> None:
    text = RULES[rule]
    for name in ("spec", "code", "lib"):
        assert re.search(rf'^        {name}=[^=]*"{name}"', text, re.M), name
    script = re.findall(r'"\.\./workflow_scripts/(\w+\.py)"', text)
    assert len(script) == 1
    assert (PROJECT_DIR / "workflow_scripts" / script[0]).exists()
    named = re.findall(r'parameter\(\s*"\w+", "(\w+)"', text)
    assert set(named) <= {rule}, f"{rule} takes the parameters of {named}"
    inspected = re.findall(r'inspection_parameter\("\w+", "(\w+\.py)"\)', text)
    assert set(inspected) <= {script[0]}


@pytest.mark.parametrize("stage", one_model_stages(), ids=lambda stage: stage.rule)
def test_the_stage_table_names_the_outputs_and_the_script_of_the_rule(stage: Stage) -> None:
    text = RULES[stage.rule]
    assert f'"../workflow_scripts/{stage.script}"' in text
    block = re.search(r"^    output:\n((?:        .*\n|\n)*)", text, re.M)
    assert block
    stated = set(re.findall(r'"(results/[^"]+)"', block.group(1)))
    study = stage.rule.removesuffix("_figures")
    if study in FIGURES:
        place = f"results/{study}/{{model}}/figures"
        assert stated == {f"results/{study}/{{{{model}}}}/figures/{{figure}}.svg"}
        stated = {f"{place}/{name}.svg" for name in FIGURES[study]}
    assert {output.replace("MODEL", "{model}") for output in stage.outputs} == stated


def test_every_rule_of_the_table_exists() -> None:
    assert {stage.rule for stage in one_model_stages()} <= set(RULES)


def test_every_caption_of_a_figure_exists() -> None:
    for figure in chain(*FIGURES.values()):
        assert (PROJECT_DIR / "docs/captions" / f"{figure}.rst").exists(), figure


def test_the_default_config_is_valid() -> None:
    config = load_config(PROJECT_DIR / "config.yaml")
    assert config.counting is not None
    assert config.robustness is not None
    assert config.layer_surgery is not None


@pytest.mark.parametrize(
    "path", sorted((PROJECT_DIR / "profiles").glob("*/config.yaml")), ids=lambda p: p.parent.name
)
def test_a_profile_parses_and_names_known_rules(path: Path) -> None:
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(profile, dict)
    for rule in profile.get("set-resources", {}):
        assert rule in RULES
    if path.parent.name != "default":
        assert profile["executor"] in ("slurm", "kubernetes")


def test_the_default_profile_leaves_script_times_out_of_the_triggers() -> None:
    profile = yaml.safe_load((PROJECT_DIR / "profiles/default/config.yaml").read_text())
    assert set(profile["rerun-triggers"]) == {"input", "mtime", "params", "software-env"}
    assert profile["rerun-incomplete"] is True
    # Another executor's profile merges with this one.
    assert not {"cores", "jobs", "executor"} & set(profile)


def pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        if "==" in line and not line.startswith("#"):
            name, version = line.split(";")[0].strip().split("==")
            found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def test_the_environment_of_conda_has_the_pins_of_the_lock() -> None:
    environment = yaml.safe_load((PROJECT_DIR / "envs/main.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    here = pins(pip)
    lock = pins((PROJECT_DIR / "requirements.lock").read_text().splitlines())
    assert here
    assert {name: lock.get(name) for name in here} == here


def test_the_lock_holds_every_dependency() -> None:
    project = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]
    lock = pins((PROJECT_DIR / "requirements.lock").read_text().splitlines())
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", entry)[0]).lower() for entry in wanted}
    assert names <= set(lock)
