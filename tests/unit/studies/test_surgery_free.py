"""Free answers: who is asked about which, what comes of it for the gate and for the effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from surgery_tables import swept, write_sweep

from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryAnalysis
from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.llm.roles import check_roles, used_roles
from interpflow.studies.layer_surgery.effects import free_answers_stage, outcomes
from interpflow.studies.layer_surgery.effects.effects_stage import DOCUMENT, estimate_effects
from interpflow.studies.layer_surgery.effects.free_answers_stage import judge_free_answers
from interpflow.studies.layer_surgery.effects.outcomes import FREE_DOCUMENT, GATE, SWEEP
from interpflow.studies.layer_surgery.sweep.gate_document import (
    GATES_DOCUMENT,
    analysed_tasks,
    difficulty,
)
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.judged_items import asks_free
from interpflow.tasks.nlp.task_files import load_task_files
from interpflow.workflow.parse import ASKING_RULES
from interpflow.workflow.service_costs import planned_calls
from interpflow.workflow.stages import configured_stages

INTACT, SHORT = "0 1 2 3", "0 1 2"
FREE = {"name": "bread", "scorer": "free",
        "items": [{"prompt": f"Bread of kind {n} is made of", "answer": "flour and water"}
                  for n in range(30)]}  # fmt: skip
HARD = {"name": "stone", "scorer": "free",
        "items": [{"prompt": f"Stone of kind {n} is made of", "answer": "sand and lime"}
                  for n in range(30)]}  # fmt: skip
ASKED = {"name": "tales", "examples": [{"prompt": "Once there was a", "answer": "king"}],
         "eval_questions": ["Is it a tale?"]}  # fmt: skip
PLAIN = {"name": "plain", "items": [{"prompt": "Two and two are", "answer": "four"}]}


def file_of(folder: Path, *tasks: dict[str, Any]) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(list(tasks)))
    return str(path)


def config_of(files: list[str], **llm: Any) -> Config:
    tasks = {"builtin": ["phrases"], "files": files}
    return parse_config(
        {
            "models": {"m": {"reference": "word_problems"}},
            "counting": None,
            "robustness": None,
            "layer_surgery": {"tasks": tasks, "agent": None},
            "llm": llm,
        }
    )  # fmt: skip


def said(item: TaskItem) -> str:
    """What the intact model writes: right on bread, wrong on stone, once nothing at all."""
    if item.prompt == "Bread of kind 0 is made of":
        return "\n\nThe end."
    return " flour and water. It is eaten." if item.task == "bread" else " grass."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    here = tmp_path_factory.mktemp("free")
    path = file_of(here, FREE, HARD, ASKED, PLAIN)
    loaded = load_task_files([path])
    rows = [
        {"example_id": item.example_id, "family_id": item.family_id, "split": item.split,
         "task": item.task, "kind": "", "n_tokens": 1, "log_prob": -1.0, "rank": 1.0,
         "answered": True, "generated": said(item), "unscored": "",
         "correct": None if item.scorer == "free" else True}
        for item in loaded.items
    ]  # fmt: skip
    generations = [
        {"plan": plan, "run": "r", "example_id": item.example_id, "n_tokens": 3, "correct": None,
         "text": said(item) if plan == INTACT else " stone and sand.", "format_score": 1.0,
         "repetition": 0.0}
        for plan in (INTACT, SHORT)
        for item in loaded.items
        if item.split == "confirm" or item.task in ("tales", "plain")
    ]  # fmt: skip
    paths = {name: here / f"{name}.parquet" for name in ("items", "intact", "generations")}
    write_table(paths["items"], "surgery_items", [item.to_row() for item in loaded.items])
    write_table(paths["intact"], "surgery_intact", rows)
    write_table(paths["generations"], "surgery_generations", generations)
    gates = {"n_layers": 4, "tasks": difficulty(rows, 0.3, 0.95)}
    write_document(here / "gates.json", GATES_DOCUMENT, gates)
    write_document(here / "data.json", "surgery_data", {"questions": dict(loaded.questions)})
    judge_free_answers(
        config_of([path]), "m", items_path=paths["items"], data_path=here / "data.json",
        intact_path=paths["intact"], gates_path=here / "gates.json",
        generations_path=paths["generations"], free_path=here / "free.parquet",
        document_path=here / "free.json",
    )  # fmt: skip
    return {
        "gates": gates,
        "items": {item.example_id: item for item in loaded.items},
        "rows": read_rows(here / "free.parquet", "surgery_free_answers"),
        "document": read_document(here / "free.json", FREE_DOCUMENT),
        "generations": generations,
    }


def test_what_no_rule_scores_is_judged_and_nothing_else(made: dict[str, Any]) -> None:
    items = made["items"]
    asked = {(row["plan"], row["example_id"]) for row in made["rows"] if row["stage"] == SWEEP}
    assert asked == {
        (row["plan"], row["example_id"]) for row in made["generations"]
        if items[row["example_id"]].task != "plain"
    }  # fmt: skip
    gate = [row for row in made["rows"] if row["stage"] == GATE]
    assert {items[row["example_id"]].task for row in gate} == {"bread", "stone"}
    assert {items[row["example_id"]].split for row in gate} <= {"discover", "develop"}
    assert {row["plan"] for row in gate} == {INTACT}


def test_verdicts_are_those_of_the_judge(made: dict[str, Any]) -> None:
    for row in made["rows"]:
        item = made["items"][row["example_id"]]
        if not row["answer"]:
            assert (row["correct"], row["outcome"], row["judge"]) == (False, "empty", "")
        elif item.task == "bread" and row["plan"] == INTACT:
            assert (row["correct"], row["outcome"]) == (True, "judged")
            assert row["judge"]
        elif row["correct"] is not None:
            assert row["correct"] is False


def test_judges_decide_the_tasks_that_the_gate_left_open(made: dict[str, Any]) -> None:
    gates, tasks = made["gates"], made["document"]["tasks"]
    assert analysed_tasks(gates) == ["bread", "plain", "stone", "tales"]
    assert gates["tasks"]["bread"]["undecided"]
    assert gates["tasks"]["bread"]["accuracy"] is None
    assert sorted(tasks) == ["bread", "stone"]
    assert tasks["bread"]["analysed"]
    assert tasks["bread"]["accuracy"] > 0.8
    assert not tasks["stone"]["analysed"]
    assert tasks["stone"]["accuracy"] == 0.0
    counts = made["document"]["outcomes"]
    assert sum(counts[GATE].values()) + sum(counts[SWEEP].values()) == len(made["rows"])


def test_an_empty_answer_is_wrong_without_a_question(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def judge(config: Config, pairs: list[Any], questions: Any) -> list[bool]:
        seen.extend(pairs)
        return [True] * len(pairs)

    monkeypatch.setattr(free_answers_stage, "free_answers", judge)
    item = next(iter(made["items"].values()))
    asked = [
        {"stage": SWEEP, "plan": plan, "example_id": item.example_id, "answer": answer}
        for plan, answer in ((INTACT, "a"), (SHORT, ""), ("0 1", "b"))
    ]
    rows = free_answers_stage._judged(config_of([]), asked, made["items"], {}, "j")
    assert [row["correct"] for row in rows] == [True, False, True]
    assert [text for _, text in seen] == ["a", "b"]


def estimated(folder: Path, with_judges: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Effects where every scorer says wrong and every judge right, and json is left out."""
    paths = write_sweep(folder, loss=lambda plan: 0.0, retained=lambda plan, task: 1.0)
    generations = read_rows(paths["generations_path"], "surgery_generations")
    for row in generations:
        row["correct"] = False
    write_table(paths["generations_path"], "surgery_generations", generations)
    free = [
        {"stage": SWEEP, "plan": row["plan"], "example_id": row["example_id"], "answer": "x",
         "correct": True, "judge": "j", "outcome": "judged"}
        for row in generations
    ]  # fmt: skip
    # Verdicts that the gate reads say nothing of generations.
    free += [{**row, "stage": GATE, "correct": False} for row in free]
    write_table(folder / "free.parquet", "surgery_free_answers", free)
    tasks = {"json": {"analysed": False, "reason": "too hard"}, "addition": {"analysed": True}}
    write_document(folder / "free.json", FREE_DOCUMENT, {"tasks": tasks})
    judged: dict[str, Any] = {
        "free_path": folder / "free.parquet",
        "free_document_path": folder / "free.json",
    }
    estimate_effects(
        "m", LayerSurgerySettings(analysis=SurgeryAnalysis(n_permutations=99, n_resamples=99)), 1,
        **paths, **(judged if with_judges else {}), estimates_path=folder / "effects.parquet",
        document_path=folder / "effects.json",
    )  # fmt: skip
    rows = read_rows(folder / "effects.parquet", "estimates")
    return rows, read_document(folder / "effects.json", DOCUMENT)


@pytest.mark.parametrize(
    ("verdict", "scored", "counted"),
    [(True, False, True), (False, True, False), (None, None, False), (None, True, True)],
)
def test_what_judges_cannot_tell_is_right_only_by_a_scorer(
    verdict: bool | None, scored: bool | None, counted: bool
) -> None:
    row = {"plan": SHORT, "example_id": "i", "correct": scored}
    assert outcomes._correct(row, {(SHORT, "i"): verdict}) is counted
    assert outcomes._correct(row, {(INTACT, "i"): verdict}) is scored


@pytest.mark.parametrize("with_judges", [True, False])
def test_effects_count_what_judges_said(tmp_path: Path, with_judges: bool) -> None:
    rows, document = estimated(tmp_path, with_judges)
    correct = [row["estimate"] for row in rows
               if (row["analysis"], row["quantity"]) == ("generation", "correct")]  # fmt: skip
    n = sum(bool({"intact", "keep_first"} & set(plan.families)) for plan in swept())
    assert len(correct) >= n
    assert set(correct) == {float(with_judges)}
    tasks = {row["factor"] for row in rows if row["analysis"].startswith("answers ")}
    assert tasks == {"addition", "world_facts"} | (set() if with_judges else {"json"})
    assert document["left_out"] == ({"json": "too hard"} if with_judges else {})


@pytest.mark.parametrize(
    ("tasks", "asks"), [((FREE, PLAIN), True), ((ASKED,), True), ((PLAIN,), False), ((), False)]
)
def test_judges_are_asked_only_where_an_item_needs_them(
    tmp_path: Path, tasks: tuple[dict[str, Any], ...], asks: bool
) -> None:
    config = config_of([file_of(tmp_path, *tasks)] if tasks else [])
    assert config.layer_surgery is not None
    assert asks_free(config.layer_surgery.tasks) == asks
    rules = {stage.rule for stage in configured_stages(config)}
    assert ("layer_surgery_free" in rules) == asks
    assert ("judge" in used_roles(config)) == asks
    assert [each.purpose for each in planned_calls(config)] == ["free answers"] * asks
    assert "layer_surgery_free" in ASKING_RULES
    check_roles(config)


def test_planned_calls_are_a_bound(tmp_path: Path) -> None:
    config = config_of([file_of(tmp_path, FREE, ASKED)])
    [calls] = planned_calls(config)
    # The gate: 30 free items. Intact, 4 skips and 4 of keep first (two of them are others): 6 plans
    # of which each continues at most 6 items of each of 2 tasks.
    assert config.layer_surgery is not None
    per_plan = 2 * config.layer_surgery.measures.n_generated
    n_plans, rest = divmod(calls.n_calls - 30, per_plan)
    assert (calls.is_bound, rest) == (True, 0)
    assert 6 <= n_plans <= 9


def test_another_judge_runs_the_stage_again(tmp_path: Path) -> None:
    path = file_of(tmp_path, FREE)
    other = {"provider": "local", "model": "m"}

    def spec(config: Config) -> str:
        [stage] = [one for one in configured_stages(config) if one.rule == "layer_surgery_free"]
        return stage.parameters["spec"]

    assert spec(config_of([path])) != spec(config_of([path], roles={"judge": [other]}))
