"""Prompts from files and data sets: every layout, every slip named by its row."""

from __future__ import annotations

import csv
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interpflow.config.robustness import DatasetSource, RobustnessColumns
from interpflow.errors import UserError
from interpflow.tasks.item_files import LoadedItems, load_items, wording, written
from interpflow.tasks.item_rows import dataset_rows, file_rows

VARIANTS = ("main", "swap", "homonym")


def original_rows(n: int = 30) -> list[dict[str, Any]]:
    """Rows as the prompts of arithmetic exercises were kept: variants by name, an index."""
    return [
        {
            "element_index": i,
            "normal": f"How much is it: {i + 2} + {i + 5}",
            "main": f"How mcuh is it: {i + 2} + {i + 5}",
            "swap": f"How is much it: {i + 2} + {i + 5}",
            "homonym": f"How much is it: {i + 2} + {i + 5}",
        }
        for i in range(n)
    ]


def load(rows: list[dict[str, Any]], **columns: Any) -> LoadedItems:
    return load_items(
        rows, RobustnessColumns.model_validate(columns), source="file", where="f.json"
    )


def write_json(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_a_prompt_and_its_variants_in_one_row(tmp_path: Path) -> None:
    loaded = load(file_rows(write_json(tmp_path / "maths.json", original_rows())))
    assert len(loaded.items) == 30
    assert not loaded.rejected
    first = loaded.items[0]
    assert first.question.text == "How much is it: 2 + 5"
    assert [name for name, _ in first.given] == list(VARIANTS)
    assert (first.gold, first.gold_kind, first.continuation) == ("7", "number", " 7")
    # One stem, thirty exercises.
    assert len({item.template_id for item in loaded.items}) == 1
    assert len({item.family_id for item in loaded.items}) == 30


def test_instruction_may_stand_for_normal() -> None:
    rows = [{"element_index": 1, "instruction": "Explain tides.", "main": "Explian tides."}]
    [item] = load(rows).items
    assert (item.question.text, item.gold, item.given) == (
        "Explain tides.", None, (("main", "Explian tides."),),
    )  # fmt: skip


def test_variants_that_follow_their_prompt_in_rows_of_their_own() -> None:
    rows = [{"normal": "Explain tides."}, {"other": "Say what tides are."}, {"third": "Tides?"},
            {"normal": "Explain wind."}, {"other": "Say what wind is."}]  # fmt: skip
    first, second = load(rows).items
    assert first.given == (("other", "Say what tides are."), ("third", "Tides?"))
    assert second.given == (("other", "Say what wind is."),)
    with pytest.raises(UserError, match="row 1 holds 'other', a variant of no prompt"):
        load(rows[1:])


def test_a_broken_key_is_named_by_its_row() -> None:
    rows = original_rows()
    rows[16]["homo,nym"] = rows[16].pop("homonym")
    with pytest.raises(UserError, match="row 17: the key 'homo,nym' stands in 1 of 30") as caught:
        load(rows)
    assert caught.value.remedy == "did you mean 'homonym'?"
    rows = original_rows()
    rows[4]["nromal"] = rows[4].pop("normal")
    with pytest.raises(UserError, match="row 5 has no 'normal'") as caught:
        load(rows)
    assert "'nromal'" in caught.value.remedy
    slipped = [row for i in range(20) for row in ({"normal": f"Say {i}."}, {"other": f"Tell {i}."})]
    slipped[7] = {"othr": "Tell 3."}
    with pytest.raises(UserError, match="row 8: the key 'othr'"):
        load(slipped)


def test_a_rare_variant_that_is_no_slip_is_one() -> None:
    rows = original_rows()
    rows[3]["zebra"] = "How zebra is it: 5 + 8"
    loaded = load(rows)
    assert ("zebra", "How zebra is it: 5 + 8") in loaded.items[3].given
    # The others lack it, which is counted.
    assert Counter(r.variant for r in loaded.rejected) == {"zebra": 29}
    assert {r.base_id for r in loaded.rejected} < {item.base_id for item in loaded.items}


def test_answers_are_never_taken_for_variants() -> None:
    rows = [{"instruction": "Explain tides.", "output": "The moon pulls."}]
    with pytest.raises(UserError, match="row 1: 'output' is no variant") as caught:
        load(rows)
    assert "columns.question: instruction" in caught.value.remedy
    [item] = load(rows, question="instruction", answer="output").items
    assert (item.gold, item.gold_kind, item.given) == ("The moon pulls.", "text", ())


def test_empty_and_repeated_prompts_are_counted() -> None:
    rows = [{"question": "Name a fruit."}, {"question": " "}, {"question": "name  a fruit."},
            {"question": None}, {"question": "Name a tree."}]  # fmt: skip
    loaded = load(rows)
    assert [item.question.text for item in loaded.items] == ["Name a fruit.", "Name a tree."]
    assert [(r.row, r.reason) for r in loaded.rejected] == [
        (2, "empty prompt"), (3, "repeated prompt"), (4, "empty prompt"),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"no prompt can be used \(1 rows: empty prompt\)"):
        load([{"question": ""}])
    with pytest.raises(UserError, match="there are no rows"):
        load([])
    with pytest.raises(UserError, match="row 2: 5 is no text"):
        load([{"question": "Name a fruit."}, {"question": 5}])


def test_gold_answers_by_column_or_by_the_expression() -> None:
    given = load([{"question": "How tall is it?", "answer": 0}, {"question": "And now?",
                  "answer": "1,234"}, {"question": "Who?", "answer": "Maria Sklodowska"},
                  {"question": "Why?", "answer": None}], answer="answer")  # fmt: skip
    assert [(i.gold, i.gold_kind) for i in given.items] == [
        ("0", "number"), ("1234", "number"), ("Maria Sklodowska", "text"),
    ]  # fmt: skip
    assert [r.reason for r in given.rejected] == ["no gold answer"]
    derived = load([{"question": "What is 7 / 2?"}, {"question": "What is 1/3 + 1/3?"},
                    {"question": "What is 5?"}])  # fmt: skip
    assert [(i.gold, i.continuation) for i in derived.items] == [
        ("7/2", " 3.5"), ("2/3", " 2/3"), (None, None),
    ]  # fmt: skip


def test_gold_answers_as_tables_and_data_sets_hold_them() -> None:
    rows = [
        {"question": "How many are left?", "answer": "6 / 2 = <<6/2=3>>3 a day\n#### 1,203"},
        {"question": "How many came?", "answer": float("nan")},
        {"question": "How many went?", "answer": "unknown ####"},
        {"question": "How much is it?", "answer": 2.5},
    ]
    found = load(rows, answer="answer")
    assert [(item.gold, item.gold_kind) for item in found.items] == [
        ("1203", "number"), ("5/2", "number"),
    ]  # fmt: skip
    assert found.items[0].continuation == " 1,203"
    assert [(each.row, each.reason) for each in found.rejected] == [
        (2, "no gold answer"), (3, "no gold answer"),
    ]  # fmt: skip
    rows[3]["answer"] = ["2.5", "5/2"]
    with pytest.raises(UserError, match=r"row 4: the gold answer .* neither text nor number"):
        load(rows, answer="answer")


def test_paraphrase_pairs_by_their_mark() -> None:
    columns = {"question": "question1", "paraphrase": "question2", "keep": "is_duplicate"}
    rows = [
        {"question1": f"How do I learn to cook {i}?", "question2": f"Ways to learn cooking {i}?",
         "is_duplicate": mark}
        for i, mark in enumerate([1, 0, "1", "0", True])
    ]  # fmt: skip
    loaded = load(rows, **columns)
    assert [item.given[0][1][-2] for item in loaded.items] == ["0", "2", "4"]
    assert {name for item in loaded.items for name, _ in item.given} == {"paraphrase"}
    assert [r.row for r in loaded.rejected] == [2, 4]
    rows[2]["is_duplicate"] = "maybe"
    with pytest.raises(UserError, match="row 3: 'is_duplicate' is 'maybe'"):
        load(rows, **columns)
    with pytest.raises(UserError, match="row 1 has no 'question3'") as caught:
        load(rows, question="question1", paraphrase="question3")
    assert "did you mean 'question" in caught.value.remedy


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"question": 'Say "a, b"\nnow.', "answer": "x"}, {"question": "Ünï?", "answer": "y"}]
    write_json(tmp_path / "a.json", rows)
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "a.jsonl").write_text(lines + "\n\n", encoding="utf-8")
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (tmp_path / f"a{ending}").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for ending in (".json", ".jsonl", ".csv", ".tsv", ".parquet"):
        assert file_rows(tmp_path / f"a{ending}") == rows, ending


@pytest.mark.parametrize(
    ("name", "content", "said", "where"),
    [
        ("a.json", '[{"normal": "x"},\n {"normal" "y"}]', "not valid JSON", "line 2"),
        ("a.json", '{"normal": "x"}', "no list of rows", "a.json"),
        ("a.json", '[{"normal": "x"}, "y"]', "row 2 is str, not an object", "a.json"),
        ("a.jsonl", '{"question": "x"}\n\n{"question": }', "not valid JSON", "line 3"),
        ("a.csv", "question,answer\na,1\nb,2,3\n", "row 2 has more fields", "a.csv"),
        ("a.csv", "question,answer\na\n", "row 1 has fewer fields", "a.csv"),
        ("a.csv", 'question\n"a\n', "the table is broken", "a.csv, line"),
        ("a.parquet", "nothing", "damaged", "a.parquet"),
        ("a.xlsx", "nothing", "cannot end in '.xlsx'", "a.xlsx"),
    ],
)
def test_broken_files_are_named(
    tmp_path: Path, name: str, content: str, said: str, where: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        file_rows(tmp_path / name)
    assert where in caught.value.where


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        file_rows(tmp_path / "none.json")
    (tmp_path / "latin.csv").write_bytes("question\nÜber\n".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        file_rows(tmp_path / "latin.csv")


def test_wordings_and_numbers_as_written() -> None:
    assert wording("How much is  it: 12 + 7") == wording("how much is it: 3 - 44")
    assert wording("How much is it: 12 + 7") != wording("Compute 12 + 7")
    values = {Fraction(7, 2): "3.5", Fraction(-1, 8): "-0.125", Fraction(5): "5",
              Fraction(2, 3): "2/3", Fraction(-1, 20): "-0.05"}  # fmt: skip
    assert {value: written(value) for value in values} == values


def test_data_sets_on_disk_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"sentence1": f"Where is town {i}?", "sentence2": f"In what place is town {i}?",
             "label": i % 2} for i in range(6)]  # fmt: skip
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "test": whole.select([1, 2])}).save_to_disk(
        tmp_path / "several"
    )
    (tmp_path / "files").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "files" / "test.parquet")

    def found(name: str, split: str = "test") -> list[dict[str, Any]]:
        return dataset_rows(DatasetSource(name=str(tmp_path / name), split=split))

    assert found("one") == rows
    assert found("several") == rows[1:3]
    assert found("several", "train") == rows
    assert found("files") == rows
    with pytest.raises(UserError, match="no split 'dev'; it has train, test"):
        found("several", "dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        found("empty")
    assert caught.value.where == "robustness.data.dataset"


def test_data_sets_of_the_hub_need_a_revision_and_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match="needs a revision"):
        dataset_rows(DatasetSource(name="owner/nothing-of-the-kind"))
    import datasets

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match="cannot be loaded: Couldn't reach the hub"):
        dataset_rows(DatasetSource(name="owner/nothing-of-the-kind", revision="0" * 40))
