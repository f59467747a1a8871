"""Items and neutral texts of the layer surgery study: what is taken, what is left out and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from interpflow.config.identity import split_of
from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryTasks, SurgeryTexts
from interpflow.errors import UserError
from interpflow.studies.layer_surgery.data.generation import generate_items
from interpflow.studies.layer_surgery.data.neutral_texts import study_texts
from interpflow.studies.layer_surgery.data.task_items import chosen_families, study_items
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items
from interpflow.tasks.nlp.items import items_of_rows


def own_file(folder: Path, *items: dict[str, Any], name: str = "own") -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"name": name, "items": list(items)}))
    return str(path)


def test_tables_and_document(tmp_path: Path) -> None:
    settings = LayerSurgerySettings(
        tasks=SurgeryTasks(n_items=8),
        texts=SurgeryTexts(n_documents=20, n_lens=10, n_agent=15),
    )
    paths: dict[str, Any] = {
        "items_path": tmp_path / "items.parquet",
        "texts_path": tmp_path / "texts.parquet",
        "document_path": tmp_path / "data.json",
    }
    generate_items(settings, 1, **paths)
    rows = read_rows(paths["items_path"], "surgery_items")
    items = items_of_rows(rows)
    assert [item.to_row() for item in items] == rows
    families = {task: {i.family_id for i in items if i.task == task} for task in BUILTIN_TASKS}
    assert {len(found) for found in families.values()} == {8}
    texts = read_rows(paths["texts_path"], "surgery_texts")
    assert Counter(row["use"] for row in texts) == {"measure": 20, "lens": 10, "agent": 15}
    document = read_document(paths["document_path"], "surgery_data")
    assert document["n_items"] == len(items)
    assert document["texts"]["used"] == {"measure": 20, "lens": 10, "agent": 15}
    for task, counts in document["tasks"].items():
        assert counts["n_items"] == sum(item.task == task for item in items)
        assert counts["n_families"] == sum(counts["families_by_split"].values()) == 8
        assert counts["n_found"] == counts["n_items"] + sum(counts["left_out"].values())
    again = {key: path.with_name(f"again_{path.name}") for key, path in paths.items()}
    generate_items(settings, 1, **again)
    assert read_rows(again["items_path"], "surgery_items") == rows
    assert read_rows(again["texts_path"], "surgery_texts") == texts


def test_families_are_chosen_by_seed_and_whole() -> None:
    items = builtin_items("antonyms", None, 1)
    some = chosen_families(items, 10, 3)
    kept = {item.family_id for item in some}
    assert len(kept) == 10
    assert some == [item for item in items if item.family_id in kept]
    reversed_order = chosen_families(items[::-1], 10, 3)
    assert {item.family_id for item in reversed_order} == kept
    assert {item.family_id for item in chosen_families(items, 10, 4)} != kept


def test_own_and_written_items_join_the_built_in_ones(tmp_path: Path) -> None:
    path = own_file(
        tmp_path,
        {"prompt": "The opposite of hot is", "answer": "cold"},
        {"prompt": "The opposite of wild is", "answer": "tame"},
        name="antonyms",
    )
    written = {"example_id": "x", "task": "new", "round": 1, "scorer": "number", "pattern": "",
               "reason": ""}  # fmt: skip
    rows = [
        {**written, "prompt": "1 + 1 is", "answer": " 2", "accepted": ["2"], "kept": True},
        {**written, "prompt": "1 + 2 is", "answer": " 4", "accepted": ["4"], "kept": False},
    ]
    write_table(tmp_path / "w.parquet", "surgery_written", rows)
    tasks = SurgeryTasks(builtin=["antonyms"], files=[path], n_items=1000)
    found = study_items(tasks, 1, tmp_path / "w.parquet")
    prompts = Counter(item.prompt for item in found.items)
    assert prompts["The opposite of hot is"] == prompts["The opposite of wild is"] == 1
    assert found.n_repeated == 1
    assert [item.source for item in found.items if item.task == "new"] == ["written"]
    assert found.counts["antonyms"]["sources"] == ["builtin", "file"]
    assert "1 + 2 is" not in prompts


def test_a_second_answer_to_a_built_in_prompt_is_refused(tmp_path: Path) -> None:
    path = own_file(tmp_path, {"prompt": "The opposite of hot is", "answer": "warm"},
                    name="antonyms")  # fmt: skip
    with pytest.raises(UserError, match="another answer") as caught:
        study_items(SurgeryTasks(builtin=["antonyms"], files=[path]), 1, None)
    assert "the built-in task antonyms" in caught.value.where


def test_shots_stand_before_prompts_and_are_counted(tmp_path: Path) -> None:
    path = own_file(tmp_path, {"prompt": "A cow says", "answer": "moo"})
    tasks = SurgeryTasks(builtin=["phrases"], files=[path], shots=2, n_items=10)
    found = study_items(tasks, 1, None)
    assert all(item.prompt.count("\n") == 2 for item in found.items)
    assert {item.task for item in found.items} == {"phrases"}
    assert found.counts["own"]["left_out"] == {"too few solved examples": 1}
    with pytest.raises(UserError, match="2 solved examples"):
        study_items(SurgeryTasks(builtin=[], files=[path], shots=2), 1, None)


def test_settings_without_any_task_are_refused() -> None:
    with pytest.raises(ValueError, match="no tasks"):
        SurgeryTasks(builtin=[])
    with pytest.raises(ValueError, match="twice"):
        SurgeryTasks(builtin=["json", "json"])


def test_stories_of_each_use_are_apart() -> None:
    found = study_texts(SurgeryTexts(n_documents=30, n_lens=40, n_agent=50), 1)
    assert found.left_out == {}
    texts = [document.text for document in found.documents]
    assert len(set(texts)) == len(texts) == 120
    splits = {use: set() for use in found.wanted}
    for document in found.documents:
        assert document.to_row()["split"] == split_of(document.document_id)
        splits[document.use].add(document.to_row()["split"])
    assert splits["lens"] == {"discover"}
    assert splits["agent"] == {"confirm"}
    assert splits["measure"] == {"discover", "develop", "confirm"}
    more = study_texts(SurgeryTexts(n_documents=30, n_lens=40, n_agent=0), 1)
    assert texts[:30] == [document.text for document in more.documents][:30]


def texts_of(path: Path, **more: int) -> SurgeryTexts:
    return SurgeryTexts(source="file", path=str(path), **more)


def test_texts_of_a_file_are_shared_out(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    lines = [f"Document number {i} tells something." for i in range(100)]
    path.write_text("\n".join([*lines, "", "  ", lines[0]]) + "\n")
    wanted = {"n_documents": 20, "n_lens": 8, "n_agent": 10}
    found = study_texts(texts_of(path, **wanted), 1)
    assert Counter(document.use for document in found.documents) == {
        "measure": 20, "lens": 8, "agent": 10,
    }  # fmt: skip
    assert (found.n_found, found.left_out) == (103, {"empty": 2, "repeated": 1, "not needed": 62})
    assert {document.text for document in found.documents} <= set(lines)
    scarce = study_texts(texts_of(path, n_documents=200, n_lens=40, n_agent=160), 1)
    used = Counter(document.use for document in scarce.documents)
    assert used["measure"] == 50
    assert 0 < used["lens"] <= 10
    assert 0 < used["agent"] <= 40


def test_jsonl_texts_and_their_slips(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "One line.\nAnother."}) + "\n\n")
    assert [d.text for d in study_texts(texts_of(path), 1).documents] == ["One line.\nAnother."]
    path.write_text('{"text": "a"}\n{"body": "b"}\n')
    with pytest.raises(UserError, match='no "text"') as caught:
        study_texts(texts_of(path), 1)
    assert caught.value.where.endswith("line 2")
    path.write_text("{\n")
    with pytest.raises(UserError, match="not valid JSON"):
        study_texts(texts_of(path), 1)
    path.write_text("\n")
    with pytest.raises(UserError, match="no document"):
        study_texts(texts_of(path), 1)
    with pytest.raises(UserError, match="no such file"):
        study_texts(texts_of(tmp_path / "absent.txt"), 1)
    with pytest.raises(UserError, match="cannot end in"):
        study_texts(texts_of(tmp_path / "texts.csv"), 1)
