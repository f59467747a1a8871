"""Rewards of answers in both views: which question is shown, what is left out, the aggregates."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpflow.config.robustness import RobustnessScoring, RobustnessSettings
from interpflow.errors import UserError
from interpflow.inference.rewards import score_pairs
from interpflow.models.reward import load_reward_model
from interpflow.studies.robustness.answers.rewards import GREEDY, aggregates, score_rewards
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.schemas import table_schema
from tests.unit.inference.classifier_models import bert_classifier

QUESTIONS = {("a", "clean"): "w1 w2 w3", ("a", "keyboard"): "w1 x2 w3", ("b", "clean"): "w5",
             ("b", "keyboard"): "y5", ("b", "null"): "w5"}  # fmt: skip


def table_row(name: str, **values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(table_schema(name).names), **values}


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    examples, answers = [], []
    for (base, operator), question in QUESTIONS.items():
        ids = {"example_id": f"{base}.{operator}", "base_id": base, "family_id": f"f{base}",
               "operator": operator}  # fmt: skip
        prompt = f"Q: {question}\nA:"
        family = "clean" if operator == "clean" else "typo"
        examples.append(
            table_row(
                "robustness_examples",
                **ids,
                family=family,
                prompt=prompt,
                question_start=3,
                question_end=3 + len(question),
            )
        )
        too_long = (base, operator) == ("b", "keyboard")
        answers.append(
            table_row(
                "robustness_answers",
                **ids,
                model="m",
                generated="" if too_long else " w9 w8\n",
                finish_reason="too_long" if too_long else "eos",
            )
        )
    samples = [
        table_row(
            "robustness_samples",
            example_id="a.keyboard",
            base_id="a",
            operator="keyboard",
            model="m",
            sample=0,
            seed=1,
            generated="w7",
            finish_reason="eos",
        )
    ]
    paths = {name: tmp_path / f"{name}.parquet" for name in ("examples", "answers", "samples")}
    write_table(paths["examples"], "robustness_examples", examples)
    write_table(paths["answers"], "robustness_answers", answers)
    write_table(paths["samples"], "robustness_samples", samples)
    entry = str(bert_classifier(tmp_path / "bert"))
    return {"entry": entry, **{f"{name}_path": path for name, path in paths.items()}}


def scored(written: dict[str, Any], folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    given = dict(written)
    entry = given.pop("entry")
    settings = RobustnessSettings(scoring=RobustnessScoring(reward_models=[entry]))
    table, document = folder / "rewards.parquet", folder / "rewards.json"
    score_rewards("m", settings, **given, rewards_path=table, document_path=document)
    rows = read_rows(table, "robustness_rewards")
    return rows, read_document(document, "robustness_rewards")


def test_each_view_shows_its_question(written: dict[str, Any], tmp_path: Path) -> None:
    rows, document = scored(written, tmp_path)
    found = {(r["example_id"], r["sample"], r["view"]): r for r in rows}
    model = load_reward_model(written["entry"])
    asked = [
        ("a.keyboard", GREEDY, "typed", "w1 x2 w3", "w9 w8"),
        ("a.keyboard", GREEDY, "clean", "w1 w2 w3", "w9 w8"),
        ("a.keyboard", 0, "typed", "w1 x2 w3", "w7"),
        ("a.keyboard", 0, "clean", "w1 w2 w3", "w7"),
    ]
    for example, sample, view, question, answer in asked:
        expected = score_pairs(*model, [question], [answer]).score[0]
        row = found[example, sample, view]
        assert row["score"] == pytest.approx(expected, abs=1e-6)
        assert row["n_answer_tokens"] == len(answer.split())
        assert (row["model"], row["reward_model"]) == ("m", written["entry"])
        assert row["family_id"] == "fa"
    typed, clean = (found["a.keyboard", GREEDY, view]["score"] for view in ("typed", "clean"))
    assert typed != clean
    # Nothing changed: both views and the clean prompt's row are the same number.
    null = {found["b.null", GREEDY, view]["score"] for view in ("typed", "clean")}
    assert null == {found["b.clean", GREEDY, "typed"]["score"]}
    assert document["n_answers"] == 5
    assert document["n_dropped"] == 1
    assert not any(example == "b.keyboard" for example, _, _ in found)
    about = document["reward_models"][written["entry"]]
    assert about["n_scores"] == len(rows) == 10
    assert about["n_distinct_pairs"] == 5
    assert about["batch_difference"] < 1e-4


def test_aggregates_are_those_of_the_scores(written: dict[str, Any], tmp_path: Path) -> None:
    rows, document = scored(written, tmp_path)
    wanted = {"view": "typed", "answers": "greedy", "operator": "clean"}
    (cell,) = [a for a in document["aggregates"] if wanted.items() <= a.items()]
    values = [r["score"] for r in rows if r["operator"] == "clean" and r["view"] == "typed"]
    assert cell["n"] == 2
    assert [cell["min"], cell["max"]] == [min(values), max(values)]
    assert cell["mean"] == pytest.approx(np.mean(values))
    assert cell["median"] == pytest.approx(np.median(values))
    assert cell["sd"] == pytest.approx(statistics.stdev(values))
    alone = aggregates(rows[:1])
    assert {a["operator"] for a in alone} == {"all", "clean"}
    assert all(a["sd"] is None for a in alone)


def test_an_answer_without_its_example_is_named(written: dict[str, Any], tmp_path: Path) -> None:
    rows = read_rows(written["examples_path"], "robustness_examples")
    write_table(written["examples_path"], "robustness_examples", rows[1:])
    with pytest.raises(UserError, match=r"a\.clean"):
        scored(written, tmp_path)
