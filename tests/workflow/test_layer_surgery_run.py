"""The layer surgery study through the real workflow: its files, what makes them again, its store.

The model is the embedded one that solves small tasks; language-model roles are played offline.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from project_copy import REPOSITORY, Run

from interpflow.config.load import parse_config
from interpflow.studies.layer_surgery.run import run_layer_surgery
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, read_table
from interpflow.workflow.estimate import estimate_costs
from interpflow.workflow.plan import Plan

NAME = "small_tasks"
HERE = "results/layer_surgery"
STORE = "experiments"
FIGURES = ("damage_by_task", "retention", "order_distance", "lens_depth", "lens_trajectory",
           "minimal_sets", "agent_ledger", "agent_judging")  # fmt: skip
STUDY_FILES = ("written.parquet", "items.parquet", "texts.parquet", "data.json", "summary.json")
SWEEP_FILES = ("plans.parquet", "answers.parquet", "losses.parquet", "generations.parquet",
               "sweep.json")  # fmt: skip
AGENT_FILES = ("agent_tests.parquet", "agent_report.json", "agent_transcript.jsonl")
JUDGING_FILES = ("judging.parquet", "judging_estimates.parquet", "judging.json")
MODEL_FILES = ("intact.parquet", "gates.json", *SWEEP_FILES, "tuned_lens.safetensors",
               "lenses.parquet", "exits.parquet", "trajectories.parquet", "lens_estimates.parquet",
               "lenses.json", "sets.parquet", "set_estimates.parquet", "free_answers.parquet",
               "free_answers.json", "effects.parquet", "effects.json", *AGENT_FILES, *JUDGING_FILES,
               *(f"figures/{figure}.svg" for figure in FIGURES))  # fmt: skip
ARTIFACTS = [
    f"results/models/{NAME}/manifest.json",
    "results/report/index.html",
    *[f"{HERE}/{file}" for file in STUDY_FILES],
    *[f"{HERE}/{NAME}/{file}" for file in MODEL_FILES],
]
TABLES = {
    "intact": "surgery_intact", "plans": "surgery_plans", "answers": "surgery_answers",
    "losses": "surgery_text_losses", "generations": "surgery_generations",
    "free_answers": "surgery_free_answers", "lenses": "surgery_lenses",
    "exits": "surgery_exits", "trajectories": "surgery_trajectories", "sets": "surgery_sets",
    "agent_tests": "surgery_tests", "judging": "surgery_judging", "effects": "estimates",
    "lens_estimates": "estimates", "set_estimates": "estimates", "judging_estimates": "estimates",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "resources/reference" / NAME).is_dir(),
    reason="the reference models are not in this checkout",
)
Edit = Callable[[dict[str, Any], Path], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study that ends in a minute, with every rule in it."""
    own = tmp_path_factory.mktemp("tasks") / "own.json"
    items = [{"prompt": f"Tell me of {name}", "answer": "well"} for name in ("Ann", "Ben", "Cara")]
    own.write_text(json.dumps({"name": "tales", "scorer": "free", "items": items}))
    return {
        "seed": 0,
        "models": {NAME: {"reference": NAME}},
        "counting": None,
        "robustness": None,
        "layer_surgery": {
            "tasks": {
                "builtin": ["antonyms", "copying"], "n_items": 12, "files": [str(own)],
                "written": {
                    "tasks": {"opposites": "Opposites of words."}, "n_items": 4, "rounds": 1,
                },
            },
            "texts": {"n_documents": 30, "n_lens": 40, "n_agent": 80, "max_tokens": 24},
            "plans": {
                "repeats": [2], "random_orders": 8, "null_documents": 4, "controls": 1,
                "own": [{"kind": "scale", "block": 2, "factor": 0.5}],
            },
            "measures": {"top_tokens": 1, "n_generated": 2, "max_new_tokens": 6},
            "lenses": {"steps": 20},
            "search": {"tasks": ["antonyms"], "max_plans": 8},
            "agent": {"n_units": 8, "budget": {"confirmatory": 4, "turns": 40}},
            "judging": {
                "plants": ["no_op"], "places": 1, "policies": ["offline"], "seeds": 1,
                "n_explored": 8, "n_units": 8, "max_tokens": 16,
            },
            "analysis": {"n_permutations": 99, "n_resamples": 99},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def complete(
    project: Path, small: dict[str, Any], modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    run = Run(project, tmp_path_factory.mktemp("layer_surgery") / "run", deepcopy(small))
    run.write_config()
    run.snakemake("--cores", "2", INTERPFLOW_TEST_MODULES=str(modules))
    return run


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The config with another value of a key within the study."""
    config = deepcopy(config)
    *place, last = key.split(".")
    section = config["layer_surgery"]
    for name in place:
        section = section[name]
    section[last] = value
    return config


def parameters(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {stage.rule: stage.parameters for stage in Plan(parse_config(config)).stages()}


def remove(run: Run, *names: str) -> None:
    """Delete files of the model."""
    for name in names:
        (run.directory / HERE / NAME / name).unlink()


def stored_runs(run: Run) -> list[Path]:
    return sorted(path.parent for path in (run.directory / STORE).glob("??/*/*/done"))


def log_of(run: Run, rule: str) -> str:
    return (run.directory / f"logs/layer_surgery_{rule}/{NAME}.log").read_text(encoding="utf-8")


def same_bytes(one: Run, other: Run, names: tuple[str, ...]) -> None:
    first, second = one.artifacts(), other.artifacts()
    for name in names:
        path = f"{HERE}/{NAME}/{name}"
        assert first[path] == second[path], f"{name} has other bytes"


def test_every_file_is_made_and_no_other(complete: Run) -> None:
    assert set(complete.artifacts()) == set(ARTIFACTS)
    assert not complete.leftovers()
    assert stored_runs(complete)
    assert not list((complete.directory / STORE).glob(".*"))


def test_a_second_run_does_nothing(complete: Run) -> None:
    assert complete.planned() == {}
    assert complete.planned("layer_surgery") == {}


def test_the_sweep_has_every_plan_and_the_agent_its_tests(complete: Run) -> None:
    here = complete.directory / HERE / NAME
    items = read_rows(complete.directory / HERE / "items.parquet", "surgery_items")
    assert {row["task"] for row in items} == {"antonyms", "copying", "opposites", "tales"}
    plans = read_rows(here / "plans.parquet", "surgery_plans")
    assert "0 1 2*0.5 3 4 5 6 7" in {row["plan"] for row in plans}
    structured = {row["plan"] for row in plans if row["role"] == "structured"}
    losses = read_rows(here / "losses.parquet", "surgery_text_losses")
    assert {row["plan"] for row in losses} == {row["plan"] for row in plans}
    answers = read_rows(here / "answers.parquet", "surgery_answers")
    assert {row["plan"] for row in answers} == structured
    runs = {directory.name for directory in stored_runs(complete)}
    assert {row["run"] for row in (*losses, *answers)} <= runs
    tests = read_rows(here / "agent_tests.parquet", "surgery_tests")
    assert tests
    assert all(json.loads(row["prediction"]) for row in tests)
    lines = (here / "agent_transcript.jsonl").read_text(encoding="utf-8").splitlines()
    report = read_document(here / "agent_report.json", "agent_report")
    assert len(lines) == report["spent"]["turns"]
    (kept,) = (complete.directory / STORE / "agents").iterdir()
    assert (kept / "transcript.jsonl").read_text(encoding="utf-8").splitlines() == lines


def test_the_summary_and_the_page_say_it(complete: Run) -> None:
    summary = read_document(complete.directory / HERE / "summary.json", "layer_surgery_summary")
    assert summary["verdicts"][NAME]
    page = (complete.directory / "results/report/index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= len(FIGURES)
    assert NAME in page


def test_scripts_load_only_what_their_digest_covers(complete: Run, modules: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from interpflow.workflow.code_digest import module_digests
from interpflow.workflow.stage import PROVIDERS_DIR
# Imported by name; the parameters of a rule that asks hold its digest.
provider = set(module_digests(PROVIDERS_DIR / "offline.py")) | {"interpflow.llm.providers.offline"}
scripts = Path(sys.argv[1]).glob("layer_surgery_*.py")
print(json.dumps({path.name: sorted({*module_digests(path), *provider}) for path in scripts}))
"""
    scripts = complete.project / "workflow_scripts"
    done = subprocess.run(
        [sys.executable, "-c", program, str(scripts)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(scripts)},
    )  # fmt: skip
    covered: dict[str, list[str]] = json.loads(done.stdout)
    loaded: dict[str, set[str]] = {}
    for path in modules.glob("*.json"):
        record = json.loads(path.read_text())
        loaded.setdefault(record["script"], set()).update(record["modules"])
    assert set(covered) <= set(loaded)
    for script in covered:
        unseen = loaded[script] - set(covered[script])
        assert not unseen, f"{script} loads what its digest does not cover: {sorted(unseen)}"


def test_another_alpha_lets_only_agents_work_again(complete: Run, tmp_path: Path) -> None:
    run = complete.fork(tmp_path / "run")
    run.write_config(changed(run.config, "agent.alpha", 0.1))
    assert set(run.planned()) == {
        "layer_surgery_agent", "layer_surgery_judging", "layer_surgery_figures",
        "layer_surgery_summary", "report_page", "all",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        ("agent.alpha", 0.1, {"agent", "judging"}),
        ("agent", None, {"agent", "judging"}),
        ("analysis.level", 0.9, {"intact", "lenses", "search", "effects", "judging"}),
        ("analysis.n_permutations", 199, {"lenses", "search", "effects", "judging"}),
        ("analysis.n_resamples", 199, {"effects"}),
        ("analysis.smallest_effect", 0.1, {"effects"}),
        ("judging.seeds", 2, {"judging"}),
        ("lenses.steps", 21, {"lenses"}),
        ("measures.n_generated", 1, {"sweep"}),
        ("measures.top_tokens", 2, {"sweep", "search", "agent"}),
        ("plans.reverse", False, {"sweep"}),
        ("search.max_plans", 9, {"search"}),
        ("store", "elsewhere", set()),
        ("tasks.n_items", 11, {"writing", "generation", "intact"}),
        ("texts.n_lens", 41, {"generation"}),
    ],
)
def test_a_setting_is_a_parameter_of_what_reads_it(
    small: dict[str, Any], key: str, value: Any, rules: set[str]
) -> None:
    before, after = parameters(small), parameters(changed(small, key, value))
    differing = {rule for rule in {*before, *after} if before.get(rule) != after.get(rule)}
    own = {rule.removeprefix("layer_surgery_") for rule in differing}
    assert own == rules


def test_results_made_again_from_the_store_run_no_plan(complete: Run, tmp_path: Path) -> None:
    run = complete.fork(tmp_path / "run")
    remove(run, *SWEEP_FILES, *AGENT_FILES)
    before = stored_runs(run)
    run.snakemake("--cores", "2", *[f"{HERE}/{NAME}/{file}" for file in AGENT_FILES])
    rows = sum(
        len(read_rows(run.directory / HERE / NAME / f"{file}.parquet", f"surgery_{table}"))
        for file, table in (("answers", "answers"), ("losses", "text_losses"),
                            ("generations", "generations"))
    )  # fmt: skip
    assert f"0 of {rows} rows newly run, 0 tokens" in log_of(run, "sweep")
    assert "the agent goes on in" in log_of(run, "agent")
    assert stored_runs(run) == before
    same_bytes(complete, run, (*SWEEP_FILES, *AGENT_FILES))


def test_a_killed_sweep_resumes_with_what_it_had(complete: Run, tmp_path: Path) -> None:
    run = complete.fork(tmp_path / "run")
    remove(run, *SWEEP_FILES)
    n_sweep = len(stored_runs(run))
    shutil.rmtree(run.directory / STORE)
    (tmp_path / "counter").mkdir()
    target = f"{HERE}/{NAME}/sweep.json"
    killed = run.snakemake(
        "--cores", "1", target, succeeds=False,
        INTERPFLOW_TEST_KILL=f"job:70@{tmp_path / 'counter'}",
    )  # fmt: skip
    assert killed.returncode != 0
    kept = {path: (path / "done").stat().st_mtime_ns for path in stored_runs(run)}
    assert len(kept) == 69 < n_sweep
    run.snakemake("--cores", "1", target)
    said = re.search(r"(\d+) of (\d+) rows newly run", log_of(run, "sweep"))
    assert said
    n_new, n_rows = map(int, said.groups())
    assert 0 < n_new < n_rows
    assert {path: (path / "done").stat().st_mtime_ns for path in kept} == kept
    same_bytes(complete, run, SWEEP_FILES)


def test_a_notebook_gives_the_same_tables(
    complete: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = complete.fork(tmp_path / "run")
    monkeypatch.chdir(run.directory)  # the store of the run is the notebook's
    before = stored_runs(run)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    summary = run_layer_surgery(run.config, run.directory / "notebook")
    torch.set_num_threads(n_threads)
    assert stored_runs(run) == before
    results, notebook = run.directory / HERE, run.directory / "notebook/layer_surgery"
    for name, table in TABLES.items():
        file = f"{NAME}/{name}.parquet"
        expected = read_table(results / file, table)
        assert expected.num_rows > 0, name
        assert read_table(notebook / file, table).equals(expected), name
    assert summary == read_document(results / "summary.json", "layer_surgery_summary")


def test_the_estimate_is_that_of_the_run(complete: Run) -> None:
    found = {cost.rule: cost for cost in estimate_costs(parse_config(complete.config))}
    here = complete.directory / HERE
    items = read_rows(here / "items.parquet", "surgery_items")
    assert len(items) / 2 < found["layer_surgery_intact"].examples < 2 * len(items)
    assert found["layer_surgery_sweep"].examples == len(
        read_rows(here / NAME / "plans.parquet", "surgery_plans")
    )
    said = re.search(r"newly run, (\d+) tokens", log_of(complete, "sweep"))
    assert said
    assert int(said[1]) / 2 < found["layer_surgery_sweep"].forward_tokens < 2 * int(said[1])
    places = (complete.directory / STORE, here / NAME)
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    disk = sum(cost.disk_mb for cost in found.values() if cost.model == NAME)
    assert size / 2 < disk < 2 * size


def missing_block(config: dict[str, Any], place: Path) -> None:
    config["layer_surgery"]["plans"]["own"] = [{"kind": "skip", "blocks": [2, 8]}]


def broken_item(config: dict[str, Any], place: Path) -> None:
    items = [{"prompt": "The sky is", "answer": "blue"}, {"prompt": "Grass is"}]
    (place / "own.json").write_text(json.dumps({"name": "colours", "items": items}))
    config["layer_surgery"]["tasks"]["files"] = [str(place / "own.json")]


def unknown_task(config: dict[str, Any], place: Path) -> None:
    config["layer_surgery"]["tasks"]["builtin"] = ["antonym"]


def store_in_results(config: dict[str, Any], place: Path) -> None:
    config["layer_surgery"]["store"] = "./results/experiments"


def long_documents(config: dict[str, Any], place: Path) -> None:
    config["layer_surgery"]["texts"]["max_tokens"] = 4000


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (missing_block, ["layer_surgery.plans.own[0]", NAME, "block 8", "8 blocks"]),
        (broken_item, ["layer_surgery.tasks.files", "own.json", "'colours'", "item 2", "answer"]),
        (unknown_task, ["layer_surgery.tasks.builtin", "did you mean 'antonyms'?"]),
        (store_in_results, ["layer_surgery.store", "results"]),
        (long_documents, ["layer_surgery.texts.max_tokens", NAME, "4000"]),
    ],
)
def test_a_mistake_is_one_message_before_any_work(
    project: Path, small: dict[str, Any], tmp_path: Path, edit: Edit, said: list[str]
) -> None:
    config = deepcopy(small)
    edit(config, tmp_path)
    run = Run(project, tmp_path / "run", config)
    run.write_config()
    done = subprocess.run(
        run.command("--cores", "1"), env=run.variables(), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("interpflow: ") == 1
    for words in said:
        assert words in done.stderr, done.stderr
    assert "remedy" in done.stderr
    assert not (run.directory / "results").exists()
    assert not (run.directory / STORE).exists()
