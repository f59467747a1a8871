"""The intact model, the sweep over the store, and the laboratory that others share with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryPlans
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.experiments.views import connect
from interpflow.inference.surgery.generations import intact_texts
from interpflow.plans.families import sweep_plans
from interpflow.plans.layer_plan import LayerPlan
from interpflow.studies.layer_surgery.sweep import laboratory as laboratory_module
from interpflow.studies.layer_surgery.sweep.gate_document import (
    analysed_tasks,
    difficulty,
    read_gates,
    undecided_tasks,
)
from interpflow.studies.layer_surgery.sweep.gate_stage import run_intact
from interpflow.studies.layer_surgery.sweep.laboratory import ModelLaboratory, open_laboratory
from interpflow.studies.layer_surgery.sweep.sweep_stage import run_sweep
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.nlp.builtin import builtin_items
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.stories import stories

MODEL = ModelSettings(reference="small_tasks")
SETTINGS = LayerSurgerySettings.model_validate(
    {
        "plans": {"random_orders": 6, "controls": 1, "repeats": [2], "null_documents": 3,
                  "ablations": ["mean"], "own": [{"kind": "steps", "steps": "0 0 1"}]},
        "measures": {"n_generated": 1, "max_new_tokens": 6, "generate": ["intact", "skip_each"]},
        "texts": {"max_tokens": 20},
    }
)  # fmt: skip
SPLITS = ("discover", "develop", "confirm", "confirm", "confirm", "confirm")
IMPOSSIBLE = TaskItem("impossible", "The capital of France is", " seven", family="x")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    here = tmp_path_factory.mktemp("surgery")
    items = [item for task in ("antonyms", "addition") for item in builtin_items(task, 12, 0)]
    unscored = TaskItem("antonyms", "The opposite of hot is", "", family="y")
    rows = [item.to_row() for item in (*items, IMPOSSIBLE, unscored)]
    improbable = {**rows[-2], "example_id": "w", "task": "antonyms", "source": "written"}
    texts = [
        {"document_id": f"d{n:02d}", "split": SPLITS[n % 6], "text": text,
         "use": "lens" if n >= 12 else "measure"}
        for n, text in enumerate(stories(18, 3))
    ]  # fmt: skip
    paths = {name: here / f"{name}.parquet" for name in ("items", "texts", "intact")}
    write_table(paths["items"], "surgery_items", [*rows, improbable])
    write_table(paths["texts"], "surgery_texts", texts)
    settings = SETTINGS.model_copy(
        update={"tasks": SETTINGS.tasks.model_validate({"written": {"tasks": {"a": "b"}}})}
    )
    run_intact(
        "m", MODEL, settings, 0, items_path=paths["items"], texts_path=paths["texts"],
        intact_path=paths["intact"], document_path=here / "gates.json",
    )  # fmt: skip
    return {**paths, "gates": here / "gates.json", "store": here / "store", "here": here}


def swept(made: dict[str, Path], to: str) -> dict[str, Path]:
    out = made["here"] / to
    out.mkdir(exist_ok=True)
    names = ("plans", "answers", "losses", "generations")
    paths: dict[str, Any] = {f"{name}_path": out / f"{name}.parquet" for name in names}
    run_sweep(
        "m", MODEL, SETTINGS, 0, items_path=made["items"], texts_path=made["texts"],
        intact_path=made["intact"], gates_path=made["gates"], store_path=made["store"],
        document_path=out / "sweep.json", **paths,
    )  # fmt: skip
    return {**{name: paths[f"{name}_path"] for name in names}, "document": out / "sweep.json"}


@pytest.fixture(scope="module")
def sweep(made: dict[str, Path]) -> dict[str, Path]:
    return swept(made, "first")


@pytest.fixture
def bench(made: dict[str, Path]) -> ModelLaboratory:
    return open_laboratory(
        "m", MODEL, SETTINGS, 0, items=read_rows(made["items"], "surgery_items"),
        texts=read_rows(made["texts"], "surgery_texts"), store_path=made["store"],
    )  # fmt: skip


def test_a_task_that_is_not_solved_is_reported_and_not_analysed(made: dict[str, Path]) -> None:
    gates = read_gates(made["gates"])
    assert analysed_tasks(gates) == ["addition", "antonyms"]
    failed = gates["tasks"]["impossible"]
    assert failed["accuracy"] == 0.0
    assert "below the floor" in failed["reason"]
    antonyms = gates["tasks"]["antonyms"]
    assert antonyms["unscored"] == {"empty_answer": 1, "improbable": 1}
    assert antonyms["n_scored"] == antonyms["n_items"] - 2
    assert antonyms["ci_low"] < antonyms["accuracy"] <= antonyms["ci_high"] + 1e-9
    intact = read_rows(made["intact"], "surgery_intact")
    early = [row for row in intact
             if row["task"] == "addition" and row["split"] != "confirm"]  # fmt: skip
    assert gates["tasks"]["addition"]["n_judged"] == len(early) > 0
    for task in gates["tasks"].values():
        assert (task["undecided"], task["n_without_verdict"]) == ("", 0)
    assert all(gate["passed"] is not False for gate in gates["gates"])
    assert {row["example_id"] for row in intact} == {
        row["example_id"] for row in read_rows(made["items"], "surgery_items")
    }


def test_a_right_answer_other_than_the_reference_solves_the_task(
    made: dict[str, Path], tmp_path: Path
) -> None:
    """Of items whose reference is not what the model says, but accepts what it says."""
    items = [
        replace(item, answer=" seven", accepted=("seven", *item.accepted), scorer="set")
        for item in builtin_items("antonyms", 12, 0)
    ]
    write_table(tmp_path / "items", "surgery_items", [item.to_row() for item in items])
    run_intact(
        "m", MODEL, SETTINGS, 0, items_path=tmp_path / "items", texts_path=made["texts"],
        intact_path=tmp_path / "intact", document_path=tmp_path / "gates",
    )  # fmt: skip
    task = read_gates(tmp_path / "gates")["tasks"]["antonyms"]
    assert task["answered"] == 0.0
    assert task["accuracy"] > 0.9
    assert task["analysed"]
    rows = read_rows(tmp_path / "intact", "surgery_intact")
    accepted = {item.example_id: item.accepted for item in items}
    for row in rows:
        if row["correct"]:
            assert row["generated"].split()[0].strip(".") in accepted[row["example_id"]]


def test_a_prompt_at_the_end_of_the_context_is_continued_as_far_as_there_is_room(
    bench: ModelLaboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = list(bench.answer_rows.rows.values())[:1]
    whole = intact_texts(bench.model, rows, [4])
    room = property(lambda _: rows[0].prompt)
    monkeypatch.setattr(type(bench.model), "max_length", room)
    cut = intact_texts(bench.model, rows, [4])
    assert whole[0].startswith(cut[0])
    assert 0 < len(cut[0]) < len(whole[0])


def row(split: str, correct: bool | None, unscored: str = "") -> dict[str, Any]:
    return {"task": "t", "split": split, "answered": correct, "correct": correct,
            "unscored": unscored}  # fmt: skip


@pytest.mark.parametrize(
    ("right", "wrong", "free", "analysed", "undecided"),
    [
        (4, 6, 0, True, False),
        (2, 8, 0, False, False),
        (0, 0, 10, True, True),
        (4, 2, 4, True, False),
        (1, 8, 1, False, False),
        (2, 3, 5, True, True),
    ],
)
def test_free_answers_leave_a_task_undecided_only_where_they_decide(
    right: int, wrong: int, free: int, analysed: bool, undecided: bool
) -> None:
    rows = [
        row("develop", each)
        for each, n in ((True, right), (False, wrong), (None, free))
        for _ in range(n)
    ]
    rows += [row("confirm", True)] * 9
    rows += [row("develop", None, "merged")]
    found = difficulty(rows, 0.3, 0.95)
    assert (found["t"]["analysed"], bool(found["t"]["undecided"])) == (analysed, undecided)
    assert undecided_tasks({"tasks": found}) == (["t"] if undecided else [])
    assert (found["t"]["accuracy"] is None) == (free > 0)


def test_every_plan_is_measured_where_it_should_be(
    made: dict[str, Path], sweep: dict[str, Path]
) -> None:
    plans = {row["plan"]: row for row in read_rows(sweep["plans"], "surgery_plans")}
    structured = {name for name, row in plans.items() if row["role"] == "structured"}
    assert "0 0 1" in structured
    answers = read_rows(sweep["answers"], "surgery_answers")
    intact = [row for row in read_rows(made["intact"], "surgery_intact")
              if not row["unscored"] and row["task"] != "impossible"]  # fmt: skip
    assert len(answers) == len(structured) * len(intact)
    losses = read_rows(sweep["losses"], "surgery_text_losses")
    by_plan: dict[str, set[str]] = {}
    for row in losses:
        by_plan.setdefault(row["plan"], set()).add(row["document_id"])
    assert set(by_plan) == set(plans)
    texts = {row["document_id"]: row for row in read_rows(made["texts"], "surgery_texts")}
    for plan, documents in by_plan.items():
        assert len(documents) == (12 if plan in structured else 3)
        if plan not in structured:
            assert {texts[name]["split"] for name in documents} == {"confirm"}
    same = [row for row in losses if row["plan"] == "0 1 2 3 4 5 6 7"]
    assert {(row["delta_loss"], row["kl"], row["top1_kept"]) for row in same} == {(0.0, 0.0, 1.0)}
    skipped = [row["delta_loss"] for row in losses if row["plan"] == "1 2 3 4 5 6 7"]
    assert min(skipped) > 0.5
    by_item = {row["example_id"]: row for row in intact}
    for row in answers:
        if row["plan"] == "0 1 2 3 4 5 6 7":
            assert row["log_prob"] == pytest.approx(
                by_item[row["example_id"]]["log_prob"], abs=1e-5
            )
            assert row["answered"] == by_item[row["example_id"]]["answered"]
    generations = read_rows(sweep["generations"], "surgery_generations")
    assert len(generations) == 2 * 9
    assert all(row["n_tokens"] <= 6 for row in generations)


def test_a_second_sweep_runs_nothing_and_writes_the_same_bytes(
    made: dict[str, Path], sweep: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("what is stored is not run again")

    for name in ("measure_answers", "measure_texts", "measure_generations"):
        monkeypatch.setattr(laboratory_module, name, never)
    again = swept(made, "second")
    for name, path in sweep.items():
        assert again[name].read_bytes() == path.read_bytes()


def test_an_agent_finds_what_the_sweep_ran(
    bench: ModelLaboratory, sweep: dict[str, Path], made: dict[str, Path]
) -> None:
    skip = LayerPlan.of([0, 1, 2, 4, 5, 6, 7])
    found = bench.measure([skip], "text", ["d03", "d00"])[str(skip)]
    assert bench.forward_tokens == 0
    assert found.n_new == 0
    losses = {(row["plan"], row["document_id"]): row["delta_loss"]
              for row in read_rows(sweep["losses"], "surgery_text_losses")}  # fmt: skip
    assert [row["delta_loss"] for row in found.rows] == [
        losses[str(skip), name] for name in ("d03", "d00")
    ]
    new = LayerPlan.parse("0 1 2 3*0.5 4 5 6 7")
    wanted = bench.new_tokens([new, skip], "text", ["d03", "d00"])
    rows = bench.measure([new, skip], "text", ["d03", "d00"])
    assert bench.forward_tokens == wanted == 2 * 19
    assert rows[str(new)].n_new == 2
    assert bench.new_tokens([new], "text", ["d03"]) == 0
    with connect(made["store"]) as database:
        (runs,) = database.sql(f"SELECT count(*) FROM runs WHERE plan = '{new}'").fetchall()
    assert runs == (1,)


def test_what_cannot_be_measured_is_named(bench: ModelLaboratory) -> None:
    plan = LayerPlan.of(range(8))
    with pytest.raises(UserError, match="not there"):
        bench.measure([plan], "text", ["nobody"])
    empty = next(row["example_id"] for row in bench.items.values() if not row["answer"])
    with pytest.raises(UserError, match="empty_answer"):
        bench.measure([plan], "answers", [empty])
    with pytest.raises(UserError, match="no block 9"):
        bench.measure([LayerPlan.of([9])], "text", ["d00"])


def test_donors_are_prompts_of_the_task_with_another_answer(bench: ModelLaboratory) -> None:
    patched = LayerPlan.parse("0 1 2 3 4~patch_attention 5 6 7")
    ids = [name for name, row in bench.items.items() if row["task"] == "addition"][:3]
    assert len(bench.measure([patched], "answers", ids)[str(patched)].rows) == 3
    assert bench.spec(patched, "answers", ids).settings["donors"]
    for name in ids:
        own = bench.answer_rows.rows[name]
        assert bench.donors[name] != own.tokens[: own.prompt]


def test_the_plans_of_a_sweep_depend_on_settings_and_seed_only() -> None:
    one = sweep_plans(SurgeryPlans(random_orders=5), 8, 4, 1)
    assert one == sweep_plans(SurgeryPlans(random_orders=5), 8, 4, 1)


def test_the_document_tells_no_history(sweep: dict[str, Path]) -> None:
    content = read_document(sweep["document"], "layer_surgery_sweep")
    assert content["plans"]["random_order"] == 6
    assert all("n_new" not in measure for measure in content["measures"])
