"""Which variants keep the meaning: rules, the bound on similarity, verdicts, gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.data.generation import generate_examples
from interpflow.studies.robustness.data.meaning_checks import check_meanings, compared_text
from interpflow.studies.robustness.data.validation import validate
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table

Row = dict[str, Any]
OPERATORS = ["keyboard", "word_merge", "homoglyph", "insulting", "terse"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the variants of 15 word problems."""
    directory = tmp_path_factory.mktemp("made")
    generate_examples(
        settings(), 0, examples_path=directory / "examples.parquet",
        table_path=directory / "not_made.parquet",
    )  # fmt: skip
    return directory


def settings(**semantics: Any) -> RobustnessSettings:
    return RobustnessSettings.model_validate(
        {"data": {"n_items": 15}, "perturbations": {"operators": OPERATORS, "n_edits": 1},
         "semantics": {"embedding": None, **semantics}}
    )  # fmt: skip


def validated(
    made: Path, out: Path, chosen: RobustnessSettings, meanings: Path | None = None
) -> tuple[list[Row], Row]:
    validate(
        chosen, examples_path=made / "examples.parquet", made_path=made / "not_made.parquet",
        meanings_path=meanings, table_path=out / "t.parquet", document_path=out / "d.json",
    )  # fmt: skip
    return (
        read_rows(out / "t.parquet", "robustness_validation"),
        read_document(out / "d.json", "robustness_validation"),
    )


def spelled(texts: Sequence[str], *, model: str) -> np.ndarray:
    """In place of an embedding: letters counted, so that typos move a text a little."""
    found = np.array([[text.lower().count(chr(c)) for c in range(97, 123)] for text in texts])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_every_text_has_a_row_and_what_was_not_made_comes_last(made: Path, tmp_path: Path) -> None:
    rows, document = validated(made, tmp_path, settings())
    examples = read_rows(made / "examples.parquet", "robustness_examples")
    not_made = read_rows(made / "not_made.parquet", "robustness_validation")
    assert [row["example_id"] for row in rows[: len(examples)]] == [
        row["example_id"] for row in examples
    ]
    assert rows[len(examples) :] == not_made
    assert all(row["accepted"] for row in rows[: len(examples)])
    assert document["n_texts"] == len(examples)
    assert document["n_items"] == 15
    assert document["operators"]["keyboard"]["similarity"] is None
    assert all(gate["passed"] for gate in document["gates"])


def test_a_changed_number_is_rejected_by_rule(made: Path, tmp_path: Path) -> None:
    examples = read_rows(made / "examples.parquet", "robustness_examples")
    broken = next(row for row in examples if row["operator"] == "insulting")
    start, end = broken["number_starts"][0], broken["number_ends"][0]
    number = broken["prompt"][start:end]
    changed = "7" * len(number) if number != "7" * len(number) else "8" * len(number)
    broken["prompt"] = broken["prompt"][:start] + changed + broken["prompt"][end:]
    write_table(tmp_path / "examples.parquet", "robustness_examples", examples)
    checked = check_meanings(settings(), tmp_path / "examples.parquet")
    assert [each.row["example_id"] for each in checked if each.reason] == [broken["example_id"]]
    assert {each.reason for each in checked} == {"", "numbers changed"}
    # By permission, a number may change.
    allowed = RobustnessSettings.model_validate(
        {"semantics": {"embedding": None}, "perturbations": {"edit_protected": True}}
    )
    checked = check_meanings(allowed, tmp_path / "examples.parquet")
    assert not any(each.reason for each in checked)


def test_the_bound_holds_for_the_question_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpflow.embedding.embed_texts", spelled)
    strict = settings(embedding="minilm", min_similarity=0.999999, max_rejected_share=1.0)
    rows, document = validated(made, tmp_path, strict)
    by_operator = document["operators"]
    reasons = Counter((row["operator"], row["reason"]) for row in rows if row["reason"])
    assert reasons["keyboard", "similarity below the bound"] > 15
    # What is said around a question is no other question; letters that look alike are not measured.
    insulting = by_operator["insulting"]["similarity"]
    assert (insulting["0.0"], insulting["1.0"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert by_operator["insulting"]["n_accepted"] == 15
    for name in ("clean", "null", "homoglyph"):
        assert by_operator[name]["similarity"] is None
        assert by_operator[name]["n_accepted"] == by_operator[name]["n_texts"]
    loose = settings(embedding="minilm", min_similarity=0.1)
    assert validated(made, tmp_path, loose)[1]["n_accepted"] == document["n_texts"]


def test_sentences_around_a_question_are_taken_off(made: Path) -> None:
    examples = read_rows(made / "examples.parquet", "robustness_examples")
    clean = {row["base_id"]: compared_text(row) for row in examples if row["operator"] == "clean"}
    insults = [row for row in examples if row["operator"] == "insulting"]
    for row in insults:
        assert compared_text(row) == clean[row["base_id"]]
        assert len(row["prompt"]) > len(clean[row["base_id"]]) + len("Question: \nAnswer:")
    typos = [row for row in examples if row["operator"] == "keyboard"]
    assert all(compared_text(row) != clean[row["base_id"]] for row in typos)


def test_operators_that_lose_the_meaning_stop_the_run(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpflow.embedding.embed_texts", spelled)
    with pytest.raises(UserError, match="do not keep the meaning") as caught:
        validated(made, tmp_path, settings(embedding="minilm", min_similarity=0.999999))
    assert "keyboard: 100% of 45 rejected, allowed 50%" in caught.value.what
    assert "similarity below the bound: 45" in caught.value.what
    assert "insulting" not in caught.value.what
    assert caught.value.where == "robustness.semantics.max_rejected_share"
    assert not (tmp_path / "t.parquet").exists()


def test_only_what_validators_call_the_same_is_accepted(made: Path, tmp_path: Path) -> None:
    examples = read_rows(made / "examples.parquet", "robustness_examples")
    verdicts = {"keyboard": "same", "word_merge": "unclear", "terse": "different"}
    rows = [
        {"example_id": row["example_id"], "judges": ["a", "b"], "votes": ["same", "unclear"],
         "verdict": verdicts[row["operator"]]}
        for row in examples if row["operator"] in verdicts
    ]  # fmt: skip
    write_table(tmp_path / "m.parquet", "robustness_meanings", rows)
    chosen = settings(validator=True, max_rejected_share=1.0)
    found, document = validated(made, tmp_path, chosen, tmp_path / "m.parquet")
    assert document["by_validator"]
    reasons = {(row["operator"], row["reason"]) for row in found if row["operator"] in verdicts}
    assert {("keyboard", ""), ("word_merge", "validator: unclear"),
            ("terse", "validator: different")} <= reasons  # fmt: skip
    judged = next(row for row in found if row["operator"] == "terse")
    assert (judged["judges"], judged["votes"]) == (["a", "b"], ["same", "unclear"])
    with pytest.raises(UserError, match="word_merge: 100%"):
        validated(made, tmp_path, settings(validator=True), tmp_path / "m.parquet")


def test_the_real_embedding_lets_typos_pass_and_other_questions_not(
    made: Path, tmp_path: Path
) -> None:
    examples = read_rows(made / "examples.parquet", "robustness_examples")
    kept = [row for row in examples if row["operator"] in ("clean", "keyboard")]
    other = next(row for row in kept if row["operator"] == "keyboard")
    other["prompt"] = other["prompt"][: other["question_start"]] + "Where do penguins sleep?"
    other["question_end"] = len(other["prompt"])
    write_table(tmp_path / "examples.parquet", "robustness_examples", kept)
    checked = check_meanings(settings(embedding="minilm"), tmp_path / "examples.parquet")
    values = {each.row["example_id"]: each.similarity for each in checked if each.similarity}
    assert values.pop(other["example_id"]) < 0.4
    assert min(values.values()) > 0.6
