"""What makes a rule run again, and what must not: dry runs on one complete directory.

Which rules an edit reaches is told by the modules that the rules' processes really loaded, not by
the digest under test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from project_copy import MODEL, Run, copy_project, public_files, tiny_config

Edit = Callable[[str, Callable[[str], str]], None]
Fork = Callable[[], Run]

# The script of each rule, written out by hand.
SCRIPTS = {
    "model_manifest": "model_manifest.py",
    "counting_generation": "counting_generation.py",
    "counting_validation": "counting_validation.py",
    "counting_inference": "counting_inference.py",
    "counting_benchmark": "counting_benchmark.py",
    "counting_comparison": "counting_comparison.py",
    "counting_mediation": "counting_mediation.py",
    "counting_effects": "counting_effects.py",
    "counting_running_count": "counting_running_count.py",
    "counting_figures": "counting_figures.py",
    "counting_summary": "counting_summary.py",
    "report_page": "report.py",
}
LIBRARY = "workflow_scripts/interpflow"
TARGET = {"all"}


@pytest.fixture(scope="module")
def followers(complete: Run) -> dict[str, set[str]]:
    """Rule → all rules that need it, from Snakemake's own graph."""
    graph = complete.snakemake("--rulegraph").stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', graph))
    edges: dict[str, set[str]] = {name: set() for name in names.values()}
    for source, target in re.findall(r"(\d+) -> (\d+)", graph):
        edges[names[source]].add(names[target])
    found: dict[str, set[str]] = {}
    for name in edges:
        reached, todo = set(), [name]
        while todo:
            fresh = edges[todo.pop()] - reached
            reached |= fresh
            todo += fresh
        found[name] = reached
    return found


@pytest.fixture(scope="module")
def unchanged(complete: Run) -> dict[str, str]:
    """Parameters of every job before any edit."""
    return complete.parameters()


def changed_rules(run: Run, before: Mapping[str, str]) -> set[str]:
    """Rules that would run again for a reason of their own, whatever happens to their inputs.

    Snakemake does not look at the parameters of a job that runs for its inputs anyway.
    """
    now = run.parameters()
    return {job.split()[0] for job in now if job in before and now[job] != before[job]}


def with_followers(rules: set[str], followers: dict[str, set[str]]) -> set[str]:
    return rules.union(*[followers[rule] for rule in rules])


def appended(line: str) -> Callable[[str], str]:
    return lambda text: f"{text}\n\n{line}\n"


def test_touching_every_script_and_module_reruns_nothing(complete: Run) -> None:
    now = time.time()
    for path in complete.project.rglob("*.py"):
        os.utime(path, (now, now))
    assert complete.planned() == {}


def test_comments_and_docstrings_rerun_nothing(complete: Run, edit: Edit) -> None:
    edit(f"{LIBRARY}/stats/calibration.py", appended("# A remark."))
    for module in ("stats/calibration", "tables/atomic"):
        # An opening quote stands before a capital, a closing one never does.
        edit(f"{LIBRARY}/{module}.py", lambda t: re.sub(r'"""(?=[A-Z])', '"""Changed. ', t))
    edit("workflow_scripts/counting_effects.py", lambda t: f"# A remark.\n\n{t}")
    edit("rules/mediation.smk", appended("# A remark."))
    assert complete.planned() == {}


@pytest.mark.parametrize(
    "module",
    [
        "stats.calibration",
        pytest.param("stats.maxt", marks=pytest.mark.slow),
        pytest.param("tasks.counting.pairs", marks=pytest.mark.slow),
        "engine.passes.hooks",
        pytest.param("report.theme", marks=pytest.mark.slow),
        "tables.atomic",
    ],
)
def test_an_edit_reruns_exactly_what_loads_the_module(
    complete: Run,
    loaded_modules: dict[str, set[str]],
    followers: dict[str, set[str]],
    unchanged: dict[str, str],
    edit: Edit,
    module: str,
) -> None:
    edit(f"{LIBRARY}/{module.replace('.', '/')}.py", appended("EDITED = 1"))
    reached = {
        rule for rule, script in SCRIPTS.items() if f"interpflow.{module}" in loaded_modules[script]
    }
    assert reached, "no rule loads the module: the case tests nothing"
    planned = complete.planned()
    assert changed_rules(complete, unchanged) == reached
    assert set(planned) == with_followers(reached, followers)


def test_an_edited_script_reruns_its_rule(
    complete: Run, followers: dict[str, set[str]], unchanged: dict[str, str], edit: Edit
) -> None:
    edit("workflow_scripts/counting_effects.py", appended("EDITED = 1"))
    planned = complete.planned()
    assert changed_rules(complete, unchanged) == {"counting_effects"}
    assert set(planned) == with_followers({"counting_effects"}, followers)


def test_an_edit_that_is_taken_back_reruns_nothing(complete: Run, edit: Edit) -> None:
    edit(f"{LIBRARY}/tables/atomic.py", appended("EDITED = 1"))
    edit(f"{LIBRARY}/tables/atomic.py", lambda text: text.replace("\n\nEDITED = 1\n", ""))
    assert complete.planned() == {}


def test_a_new_version_of_the_artifacts_reruns_all(
    complete: Run, unchanged: dict[str, str], edit: Edit
) -> None:
    edit(
        f"{LIBRARY}/tables/provenance.py",
        lambda t: re.sub(r"^SCHEMA_VERSION = (\d+)", r"SCHEMA_VERSION = 1\1", t, flags=re.M),
    )
    planned = complete.planned()
    assert changed_rules(complete, unchanged) == set(SCRIPTS)
    assert set(planned) == set(SCRIPTS) | TARGET


def test_the_template_of_the_page_reruns_the_page(complete: Run, edit: Edit) -> None:
    edit(f"{LIBRARY}/report/templates/report.html.jinja", lambda text: text + "<!-- x -->\n")
    assert set(complete.planned()) == {"report_page", "all"}


def test_the_lexicon_reruns_what_reads_it(
    complete: Run, followers: dict[str, set[str]], edit: Edit
) -> None:
    path = complete.project / "resources/lexicon/words.csv"
    os.utime(path)
    assert complete.planned() == {}, "same bytes, another time"
    edit("resources/lexicon/words.csv", lambda text: text.replace("mid", "low", 1))
    readers = {"counting_generation", "counting_validation", "counting_mediation"}
    planned = complete.planned()
    assert set(planned) == with_followers(readers, followers)


def changed(config: dict[str, Any], *settings: tuple[str, Any]) -> dict[str, Any]:
    """The config with settings given by dotted keys."""
    found = deepcopy(config)
    for key, value in settings:
        *place, last = key.split(".")
        section = found
        for name in place:
            section = section.setdefault(name, {})
        section[last] = value
    return found


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        pytest.param(
            [
                ("counting.validation.max_imbalance", 0.9),
                ("counting.validation.max_association", 1.0),
            ],
            {"counting_validation"},
            id="swapped values",
        ),
        pytest.param(
            [("counting.mediation.smallest_effect", 0.2)],
            {"counting_effects", "counting_running_count"},
            id="a setting of the tests leaves the interventions alone",
        ),
        pytest.param(
            [("counting.mediation.heads", False)],
            {"counting_mediation", "counting_effects", "counting_running_count"},
            id="a setting of the interventions",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [("counting.benchmark.gate_level", 0.02)],
            {"counting_inference", "counting_benchmark"},
            id="a setting of the benchmark",
        ),
        pytest.param([("execution.tokens_per_batch", 512)], set(), id="batch size"),
        pytest.param(
            [("counting.pairs.max_delta", 3), ("counting.lexicon", None)],
            set(),
            id="a default written out",
            marks=pytest.mark.slow,
        ),
        pytest.param([("reference_models.seeds", [1, 2])], set(), id="another study's setting"),
    ],
)  # fmt: skip
def test_settings_rerun_what_depends_on_them(
    fork: Fork,
    followers: dict[str, set[str]],
    unchanged: dict[str, str],
    settings: list[tuple[str, Any]],
    rules: set[str],
) -> None:
    run = fork()
    run.write_config(changed(run.config, *settings))
    planned = run.planned()
    assert changed_rules(run, unchanged) == rules
    assert set(planned) == with_followers(rules, followers)


def test_layout_of_the_config_reruns_nothing(fork: Fork) -> None:
    run = fork()
    counting = run.config["counting"]
    reordered = {
        "counting": {key: counting[key] for key in reversed(counting)},
        **{key: value for key, value in run.config.items() if key != "counting"},
    }
    run.write_config(reordered)
    path = run.directory / "config.yaml"
    path.write_text(f"# What this study is about.\n{path.read_text()}\n# The end.\n")
    assert run.planned() == {}


def test_an_added_model_reruns_only_what_compares(fork: Fork, unchanged: dict[str, str]) -> None:
    run = fork()
    source = run.config["models"][MODEL]
    run.write_config(changed(run.config, ("models.second", source)))
    planned = run.planned()
    assert changed_rules(run, unchanged) == {
        "counting_comparison",
        "counting_summary",
        "report_page",
    }
    assert "counting_generation" not in planned
    assert f"results/counting/{MODEL}" not in planned["counting_inference"]


def deletion_case(run: Run, name: str) -> tuple[set[str], str]:
    path = run.directory / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    planned = run.planned()
    made = [rule for rule, reason in planned.items() if "Missing output files" in reason]
    assert len(made) == 1, (name, planned)
    return set(planned), made[0]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("results/counting/pairs.parquet", "counting_generation"),
        (f"results/counting/{MODEL}/activations", "counting_inference"),
        (f"results/counting/{MODEL}/figures/responses.svg", "counting_figures"),
    ],
)
def test_a_deleted_artifact_is_made_again(
    fork: Fork, followers: dict[str, set[str]], name: str, rule: str
) -> None:
    planned, made = deletion_case(fork(), name)
    assert made == rule
    assert planned == with_followers({rule}, followers)


@pytest.mark.slow
@pytest.mark.parametrize("name", public_files(MODEL))
def test_every_deleted_artifact_is_made_again(
    fork: Fork, followers: dict[str, set[str]], name: str
) -> None:
    planned, made = deletion_case(fork(), name)
    assert planned == with_followers({made}, followers)


def test_a_deleted_artifact_comes_back_the_same(fork: Fork) -> None:
    run = fork()
    before = run.artifacts()
    (run.directory / f"results/counting/{MODEL}/effects.parquet").unlink()
    printed = run.snakemake("--cores", "1").stdout
    assert set(re.findall(r"^localrule (\w+):", printed, re.MULTILINE)) == {
        "counting_effects", "counting_figures", "counting_summary", "report_page", "all",
    }  # fmt: skip
    assert run.artifacts() == before


def test_other_settings_and_back_give_the_same_bytes(fork: Fork) -> None:
    run = fork()
    first = run.artifacts()
    run.write_config(changed(run.config, ("counting.mediation.probe_controls", 20)))
    run.snakemake("--cores", "2")
    other = run.artifacts()
    assert (
        other[f"results/counting/{MODEL}/verdict.json"]
        != (first[f"results/counting/{MODEL}/verdict.json"])
    )
    run.write_config(changed(run.config, ("counting.mediation.probe_controls", 19)))
    run.snakemake("--cores", "2")
    assert run.artifacts() == first
    assert run.planned() == {}


def test_why_names_the_setting_and_the_module(fork: Fork, edit: Edit) -> None:
    run = fork()
    assert "0 are not" in run.snakemake("--cores", "1", "why").stdout
    run.write_config(changed(run.config, ("counting.benchmark.gate_level", 0.02)))
    edit(f"{LIBRARY}/stats/calibration.py", appended("EDITED = 1"))
    printed = run.snakemake("--cores", "1", "why").stdout
    line = next(
        line for line in printed.splitlines()
        if line.startswith(f"results/counting/{MODEL}/benchmark.parquet:")
    )  # fmt: skip
    assert "setting benchmark.gate_level: 0.01 -> 0.02" in line
    assert "code: interpflow.stats.calibration" in line


def test_loaded_modules_lie_in_the_import_closure(
    complete: Run, loaded_modules: dict[str, set[str]]
) -> None:
    closure = """
import json, sys
from pathlib import Path
from interpflow.workflow.code_digest import module_digests
scripts = Path(sys.argv[1])
print(json.dumps({p.name: sorted(module_digests(p)) for p in scripts.glob("*.py")}))
"""
    scripts = complete.project / "workflow_scripts"
    done = subprocess.run(
        [sys.executable, "-c", closure, str(scripts)],
        env={**os.environ, "PYTHONPATH": str(scripts)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    closures: dict[str, list[str]] = json.loads(done.stdout)
    assert set(SCRIPTS.values()) <= set(loaded_modules)
    for script, modules in loaded_modules.items():
        unseen = modules - set(closures[script])
        assert not unseen, f"{script} loads what its digest does not cover: {sorted(unseen)}"


def test_a_moved_project_reruns_nothing(model_directory: Path, tmp_path: Path) -> None:
    first = copy_project(tmp_path / "first")
    run = Run(first, first, tiny_config(model_directory))
    run.write_config()
    run.snakemake("--cores", "1", "results/counting/validation.json")
    assert set(run.artifacts()) == {
        "results/counting/examples.parquet",
        "results/counting/pairs.parquet",
        "results/counting/validation.json",
        "results/counting/validation.parquet",
    }, "one file by its path runs only what it needs"
    shutil.move(first, tmp_path / "second")
    second = tmp_path / "second"
    moved = Run(second, second, run.config)
    assert moved.planned("results/counting/validation.json") == {}
