"""The agent's stage: what it may read, and a killed agent that goes on."""

from __future__ import annotations

import json

import pytest
import torch

from interpflow.agent.work.session import TRANSCRIPT
from interpflow.config.load import parse_config
from interpflow.errors import UserError
from interpflow.studies.layer_surgery.agent.agent_stage import AGENTS, run_agent_stage
from interpflow.studies.layer_surgery.agent.laboratory_agent import StoreLaboratory
from interpflow.studies.layer_surgery.sweep.gate_document import read_gates
from interpflow.studies.layer_surgery.sweep.gate_stage import run_intact
from interpflow.studies.layer_surgery.sweep.laboratory import open_laboratory
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.nlp.builtin import builtin_items
from interpflow.tasks.nlp.stories import stories

MODEL = "small_tasks"
TASK = "antonyms"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config():
    return parse_config(
        {
            "models": {MODEL: {"reference": MODEL}},
            "layer_surgery": {
                "models": [MODEL],
                "tasks": {"builtin": [TASK], "min_accuracy": 0.0},
                "texts": {"max_tokens": 16},
                "agent": {"n_units": 8, "budget": {"confirmatory": 6}},
            },
        }
    )


@pytest.fixture(scope="module")
def files(config, tmp_path_factory):
    here = tmp_path_factory.mktemp("agent")
    kinds = [("measure", "discover")] * 10 + [("measure", "confirm")] * 6
    kinds += [("lens", "discover")] * 6 + [("agent", "confirm")] * 80
    texts = [
        {"document_id": f"{use}{i:03}", "split": split, "use": use, "text": text}
        for i, ((use, split), text) in enumerate(zip(kinds, stories(len(kinds), 4), strict=True))
    ]
    write_table(here / "texts.parquet", "surgery_texts", texts)
    items = [item.to_row() for item in builtin_items(TASK, 20, 0)]
    write_table(here / "items.parquet", "surgery_items", items)
    given = {"items_path": here / "items.parquet", "texts_path": here / "texts.parquet"}
    run_intact(
        MODEL, config.models[MODEL], config.layer_surgery, 0, **given,
        intact_path=here / "intact.parquet", document_path=here / "gates.json",
    )  # fmt: skip
    return {**given, "intact_path": here / "intact.parquet", "gates_path": here / "gates.json"}


@pytest.fixture
def laboratory(config, files, tmp_path):
    opened = open_laboratory(
        MODEL, config.models[MODEL], config.layer_surgery, 0,
        items=read_rows(files["items_path"], "surgery_items"),
        texts=read_rows(files["texts_path"], "surgery_texts"), store_path=tmp_path / "store",
    )  # fmt: skip
    intact = read_rows(files["intact_path"], "surgery_intact")
    return StoreLaboratory(opened, intact, read_gates(files["gates_path"]))


def test_tests_read_what_nothing_explores(laboratory):
    told = laboratory.describe()
    assert told["documents"] == {"explore": 10, "confirm": 80}
    assert all(name.startswith("agent") for name in laboratory.confirm_units("text", None))
    explored = set(laboratory.explore_units("answers", TASK))
    tested = set(laboratory.confirm_units("answers", TASK))
    assert explored
    assert tested
    assert not explored & tested
    assert told["tasks"][TASK]["explore"] == len(explored)
    assert told["tasks"][TASK]["example"]["prompt"]


def test_what_is_measured_costs_once(laboratory):
    plans = [
        laboratory.plan({"kind": "identity"}),
        laboratory.plan({"kind": "skip", "blocks": [3]}),
    ]
    units = laboratory.explore_units("answers", TASK)[:3]
    expected = laboratory.forward_tokens(plans, "answers", TASK, units)
    first = laboratory.measure(plans, "answers", TASK, units)
    assert first.forward_tokens == expected > 0
    assert not first.cached
    assert {row["unit"] for row in first.rows[str(plans[1].plan)]} == set(units)
    assert all(row["delta_log_prob"] == 0.0 for row in first.rows[str(plans[0].plan)])
    assert any(row["delta_log_prob"] != 0.0 for row in first.rows[str(plans[1].plan)])
    again = laboratory.measure(plans, "answers", TASK, units)
    assert again.cached
    assert again.forward_tokens == 0 == laboratory.forward_tokens(plans, "answers", TASK, units)
    assert again.rows == first.rows


def test_a_text_has_no_donor(laboratory):
    request = {"kind": "ablate", "block": 1, "part": "mlp", "method": "patch"}
    plans = [laboratory.plan(request)]
    units = laboratory.explore_units("text", None)[:2]
    with pytest.raises(UserError, match="no donor"):
        laboratory.measure(plans, "text", None, units)


def stage(config, files, store, out):
    out.mkdir(exist_ok=True)
    run_agent_stage(
        config, MODEL, config.layer_surgery, 0, **files, store_path=store,
        tests_path=out / "tests.parquet", report_path=out / "report.json",
        transcript_path=out / "transcript.jsonl",
    )  # fmt: skip
    return (
        read_rows(out / "tests.parquet", "surgery_tests"),
        read_document(out / "report.json", "agent_report"),
    )


def test_a_killed_agent_goes_on_to_the_same_end(config, files, tmp_path):
    store = tmp_path / "store"
    tests, report = stage(config, files, store, tmp_path / "first")
    assert report["model"] == MODEL
    assert report["stopped"]
    (directory,) = (store / AGENTS).iterdir()
    lines = (directory / TRANSCRIPT).read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 3
    assert (tmp_path / "first" / "transcript.jsonl").read_text(
        encoding="utf-8"
    ).splitlines() == lines
    # Killed after its second action: only the beginning of its transcript is there.
    kept = "".join(f"{line}\n" for line in lines[:2])
    (directory / TRANSCRIPT).write_text(kept, encoding="utf-8")
    again, report_again = stage(config, files, store, tmp_path / "second")
    assert again == tests
    assert report_again["claims"] == report["claims"]
    now = (directory / TRANSCRIPT).read_text(encoding="utf-8").splitlines()
    assert now[:2] == lines[:2]
    actions = [[json.loads(line).get("action") for line in some] for some in (lines, now)]
    assert actions[0] == actions[1]


def test_a_study_without_an_agent_is_told(config, files, tmp_path):
    study = config.layer_surgery.model_copy(update={"agent": None})
    with pytest.raises(UserError, match="no agent"):
        stage(config.model_copy(update={"layer_surgery": study}), files, tmp_path, tmp_path / "out")
