"""Variants of the robustness study: the design's cells, exact characters, reasons for gaps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.identity import split_of
from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.data import base_items
from interpflow.studies.robustness.data.base_items import frame, study_items
from interpflow.studies.robustness.data.cells import planned_cells
from interpflow.studies.robustness.data.generation import generate_examples, recorded_edits
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.perturbations.operators import OPERATORS, builtin_operators
from interpflow.tasks.perturbations.text import rebuilt

Row = dict[str, Any]


def settings(**parts: Any) -> RobustnessSettings:
    return RobustnessSettings.model_validate(parts)


def generated(
    tmp_path: Path, seed: int = 0, rewrites: Path | None = None, **parts: Any
) -> tuple[list[Row], list[Row]]:
    parts = {"data": {"n_items": 12}, **parts}
    generate_examples(
        settings(**parts), seed, rewrites_path=rewrites,
        examples_path=tmp_path / "examples.parquet", table_path=tmp_path / "not_made.parquet",
    )  # fmt: skip
    return (
        read_rows(tmp_path / "examples.parquet", "robustness_examples"),
        read_rows(tmp_path / "not_made.parquet", "robustness_validation"),
    )


def file_settings(tmp_path: Path, rows: list[Row]) -> dict[str, Any]:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return {"source": "file", "path": str(path), "n_items": None}


def spans(row: Row, name: str) -> list[str]:
    starts, ends = row[f"{name}_starts"], row[f"{name}_ends"]
    return [row["prompt"][start:end] for start, end in zip(starts, ends, strict=True)]


def clean_spans(row: Row, clean: Row, name: str) -> list[str]:
    return spans({**row, "prompt": clean["prompt"]}, name)


def question(row: Row) -> str:
    return row["prompt"][row["question_start"] : row["question_end"]]


def test_the_design_has_every_operator_dose_and_placement() -> None:
    cells = planned_cells(settings())
    assert cells[0].operator == "clean"
    assert {cell.operator for cell in cells} == {"clean", "null", "control", *builtin_operators()}
    assert len(set(cells)) == len(cells)
    asked = settings(
        perturbations={
            "operators": ["deletion", "polite"], "placements": ["main", "other"], "n_edits": 2,
            "dose": {"operators": ["keyboard"], "n_edits": [1, 3], "rates": [0.2]}, "variants": 2,
            "strengths": [1, 3], "rewrites": {"styles": ["terse"], "per_item": 2},
        }
    )  # fmt: skip
    counts = Counter(cell.operator for cell in planned_cells(asked))
    assert counts == {
        "clean": 1, "null": 2,
        "control": 2 * 3,  # doses 1, 2, 3
        "deletion": 2 * 2,  # placements
        "keyboard": 2 * 2 * 3,  # placements, and doses 1, 3 and a rate
        "polite": 2 * 3,  # strengths 1, 2, 3; a style has no placement
        "rewrite:terse": 2,
    }  # fmt: skip


def test_doses_of_what_counts_no_edits_are_refused() -> None:
    with pytest.raises(UserError, match="'polite' does not count edits"):
        planned_cells(settings(perturbations={"dose": {"operators": ["polite"]}}))
    with pytest.raises(UserError, match="unknown operator 'keybord'") as caught:
        planned_cells(settings(perturbations={"operators": ["keybord"]}))
    assert "'keyboard'" in caught.value.remedy


def test_every_text_asked_for_is_made_or_has_a_reason(tmp_path: Path) -> None:
    made, missing = generated(tmp_path)
    cells = planned_cells(settings())
    assert len(made) + len(missing) == 12 * len(cells)
    assert len({row["example_id"] for row in [*made, *missing]}) == len(made) + len(missing)
    assert all(row["reason"] and not row["accepted"] for row in missing)
    assert {row["operator"] for row in made} >= {"clean", "null", "control", "keyboard", "polite"}
    assert all(row["split"] == split_of(row["family_id"]) for row in made)
    by_item = {row["base_id"]: row for row in made if row["operator"] == "clean"}
    assert len(by_item) == 12
    for row in made:
        clean = by_item[row["base_id"]]
        same = row["prompt"] == clean["prompt"]
        assert same == (row["operator"] in ("clean", "null")), row["operator"]
        assert (row["edit_distance"] == 0) == same
        assert row["family"] == getattr(OPERATORS.get(row["operator"]), "family", "clean")


def test_recorded_characters_are_those_of_the_prompts(tmp_path: Path) -> None:
    made, _ = generated(tmp_path, perturbations={"placements": ["any", "other"]})
    by_item = {row["base_id"]: row for row in made if row["operator"] == "clean"}
    n_controls = 0
    for row in made:
        clean = by_item[row["base_id"]]
        assert row["prompt"].startswith("Question: ")
        assert row["prompt"] == f"Question: {question(row)}\nAnswer:"
        edits = recorded_edits(row)
        text = question(row)
        replaced = [(e.operation, e.start, e.end, text[e.new_start : e.new_end]) for e in edits]
        again = rebuilt(question(clean), replaced, row["operator"])
        assert (again.text, again.edits) == (text, edits)
        assert spans(row, "control") == clean_spans(row, clean, "clean_control")
        assert len(spans(row, "word")) == len(clean_spans(row, clean, "clean_word"))
        n_controls += len(spans(row, "control"))
        if OPERATORS.get(row["operator"]) and OPERATORS[row["operator"]].family == "typo":
            assert spans(row, "word") != clean_spans(row, clean, "clean_word")
        # Numbers stay, wherever they have moved.
        assert spans(row, "number") == spans(clean, "number")
        assert [n for n in spans(clean, "number") if not n.isdigit()] == []
        assert row["gold"] == clean["gold"]
    assert n_controls > len(made) / 2


def test_a_control_edits_words_beside_the_point(tmp_path: Path) -> None:
    made, _ = generated(tmp_path, perturbations={"operators": ["keyboard"], "n_edits": 1,
                                                 "placements": ["main"]})  # fmt: skip
    items = {
        item.base_id: item for item in study_items(settings(data={"n_items": 12}).data, 0).items
    }
    edited = {"main": 0, "other": 0}
    for row in made:
        source = items[row["base_id"]].question
        for edit in recorded_edits(row):
            for kind in edited:
                hit = any(a <= edit.start < b for a, b in getattr(source, kind))
                edited[kind] += hit
                expected = {"keyboard": "main", "control": "other"}[row["operator"]]
                assert hit == (kind == expected), (row["operator"], kind)
    assert min(edited.values()) >= 12


def test_two_runs_write_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    made = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        generated(tmp_path / name, seed)
        made[name] = [
            (tmp_path / name / f"{table}.parquet").read_bytes()
            for table in ("examples", "not_made")
        ]
    assert made["a"] == made["b"]
    assert made["a"][0] != made["c"][0]


def test_parts_of_few_items_make_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = generated(tmp_path)
    monkeypatch.setattr("interpflow.studies.robustness.data.generation.ITEMS_PER_PART", 5)
    assert generated(tmp_path)[0] == whole


def test_a_dose_that_adds_nothing_is_rejected(tmp_path: Path) -> None:
    data = file_settings(tmp_path, [{"question": f"Name {n} trees now"} for n in range(10, 20)])
    made, missing = generated(
        tmp_path, data=data,
        perturbations={"operators": ["keyboard"], "n_edits": 1,
                       "dose": {"operators": ["keyboard"], "n_edits": [1], "rates": [0.1, 0.2]}},
    )  # fmt: skip
    rates = Counter((row["rate"], row["reason"]) for row in missing)
    assert rates == {(0.2, "same text as a smaller dose"): 10}
    assert sum(row["rate"] == 0.1 for row in made) == 10


def test_variants_of_a_file_are_run_beside_the_operators(tmp_path: Path) -> None:
    rows = [
        {"normal": f"How much is it: {n} + 7", "main": f"How mcuh is it: {n} + 7",
         "swap": f"How much is it: {n} + 7", "wrong": f"How much is it: {n} - 7", "void": ""}
        for n in range(10, 22)
    ]  # fmt: skip
    made, missing = generated(
        tmp_path, data=file_settings(tmp_path, rows), perturbations={"operators": ["keyboard"]}
    )
    given = [row for row in made if row["family"] == "given"]
    assert Counter(row["operator"] for row in given) == {"given:main": 12}
    assert spans(given[0], "word") == ["mcuh"]
    assert spans(given[0], "number") == ["10", "7"]
    assert {row["gold"] for row in given} == {str(n + 7) for n in range(10, 22)}
    reasons = Counter((row["operator"], row["reason"]) for row in missing)
    assert {key: n for key, n in reasons.items() if key[0].startswith("given:")} == {
        ("given:swap", "text unchanged"): 12,
        ("given:wrong", "gold changed"): 12,
        ("given:void", "empty prompt"): 12,
    }


def test_gold_is_derived_again_where_numbers_may_be_edited(tmp_path: Path) -> None:
    rows = [{"question": f"Compute {n} + 7"} for n in range(100, 130)]
    asked = {"operators": ["deletion"], "n_edits": 2, "edit_protected": True}
    made, _ = generated(tmp_path, data=file_settings(tmp_path, rows), perturbations=asked)
    by_item = {row["base_id"]: row for row in made if row["operator"] == "clean"}
    changed = [row for row in made if row["gold"] != by_item[row["base_id"]]["gold"]]
    assert changed
    for row in changed:
        left, right = question(row).split()[-3], question(row).split()[-1]
        assert row["gold"] == str(int(left) + int(right))
        assert row["continuation"] == f" {row['gold']}"
    asked = {"operators": ["deletion"], "n_edits": 1}
    made, _ = generated(tmp_path, data=file_settings(tmp_path, rows), perturbations=asked)
    golds = {row["gold"] for row in made if row["operator"] == "deletion"}
    assert golds <= {row["gold"] for row in made if row["operator"] == "clean"}


def test_rejected_rows_of_a_file_are_in_the_table(tmp_path: Path) -> None:
    rows = [
        {"question": "Name a large tree."},
        {"question": ""},
        {"question": "Name a large tree."},
    ]
    _, missing = generated(
        tmp_path, data=file_settings(tmp_path, rows), perturbations={"operators": ["deletion"]}
    )
    assert [(row["base_id"], row["operator"], row["reason"]) for row in missing[:2]] == [
        ("file row 2", "clean", "empty prompt"),
        ("file row 3", "clean", "repeated prompt"),
    ]


def test_an_operator_that_gives_nothing_is_named_where_it_was_asked_for(tmp_path: Path) -> None:
    data = file_settings(tmp_path, [{"question": "Zzz qqq?"}, {"question": "Qqq zzz?"}])
    with pytest.raises(UserError, match="'misspelling' gives no text for any prompt"):
        generated(tmp_path, data=data, perturbations={"operators": ["misspelling"]})
    # Among all of them it is counted.
    _, missing = generated(tmp_path, data=data)
    assert {row["reason"] for row in missing if row["operator"] == "misspelling"} == {
        "too few words"
    }


def test_rewrites_stand_for_their_cells(tmp_path: Path) -> None:
    asked = {"operators": ["keyboard"], "rewrites": {"styles": ["terse"], "per_item": 2}}
    items = study_items(settings(data={"n_items": 12}).data, 0).items
    rows = []
    for place, item in enumerate(items):
        text = item.question.text
        outcomes = ["ok", "refusal"] if place else ["ok", "ok"]
        texts = (
            [f"Quick: {text}", ""] if place else [text.replace("How many", "Say how many"), text]
        )
        rows += [
            {"rewrite_id": f"{place} {variant}", "base_id": item.base_id, "style": "terse",
             "variant": variant, "generator": "g", "request_key": "k",
             "outcome": outcomes[variant], "question": texts[variant]}
            for variant in range(2)
        ]  # fmt: skip
    path = tmp_path / "rewrites.parquet"
    write_table(path, "robustness_rewrites", rows)
    made, missing = generated(tmp_path, rewrites=path, perturbations=asked)
    rewritten = [row for row in made if row["family"] == "rewrite"]
    assert {row["operator"] for row in rewritten} == {"rewrite:terse"}
    assert all(question(row).startswith("Quick: ") for row in rewritten if row["variant"] == 0
               and row["base_id"] != items[0].base_id)  # fmt: skip
    reasons = Counter(row["reason"] for row in missing if row["operator"] == "rewrite:terse")
    assert reasons["not rewritten: refusal"] == 11
    assert reasons["text unchanged"] >= 1
    _, missing = generated(tmp_path, perturbations=asked)
    assert Counter(row["reason"] for row in missing)["not rewritten"] == 24


def test_items_of_every_source(tmp_path: Path) -> None:
    instructions = settings(data={"source": "instructions", "n_items": 20}).data
    items = study_items(instructions, 0).items
    assert len(items) == 20
    assert study_items(instructions, 0).items == items
    assert {i.base_id for i in study_items(instructions, 1).items} != {i.base_id for i in items}
    every = study_items(settings(data={"source": "instructions"}).data, 0).items
    assert len(every) > 100
    order = [item.base_id for item in every]
    assert [order.index(i.base_id) for i in items] == sorted(order.index(i.base_id) for i in items)
    assert frame(instructions) == ("Instruction: ", "\nResponse:")
    own = settings(data={"prompt": "Q {question} A"}).data
    assert frame(own) == ("Q ", " A")
    assert len(study_items(settings(data={"n_items": None}).data, 0).items) == (
        base_items.DEFAULT_PROBLEMS
    )
