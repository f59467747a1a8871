"""Answers compared by meaning: equal ones exactly, others by embedding and inference, and what
drawn answers are set against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interpflow.config.robustness import RobustnessSettings
from interpflow.embedding import embed_texts, embedding_identity
from interpflow.embedding.entailment import entailment_probabilities
from interpflow.errors import UserError
from interpflow.studies.robustness.answers import semantics
from interpflow.studies.robustness.answers.semantics import compare_answers
from interpflow.tables.parquet import read_provenance, read_rows, write_table
from tests.unit.embedding.tiny_encoders import save_classifier, save_encoder
from tests.unit.studies.robustness_rows import answer_row, sample_row

torch.set_num_threads(1)

ANSWERS = [
    answer_row("b1", "clean", "the cat sits here ."),
    answer_row("b1", "keyboard", "the dog runs there now ."),
    answer_row("b1", "null", " the cat sits here . "),
    answer_row("b2", "clean", "red"),
    answer_row("b2", "keyboard", "blue"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    return str(save_encoder(folder / "tiny", folder / "bert"))


def compared(
    folder: Path, answers: list[dict], samples: list[dict], **scoring: Any
) -> list[dict[str, Any]]:
    write_table(folder / "answers.parquet", "robustness_answers", answers)
    write_table(folder / "samples.parquet", "robustness_samples", samples)
    compare_answers(
        "m", RobustnessSettings.model_validate({"scoring": scoring}),
        answers_path=folder / "answers.parquet", samples_path=folder / "samples.parquet",
        semantics_path=folder / "semantics.parquet",
    )  # fmt: skip
    return read_rows(folder / "semantics.parquet", "robustness_semantics")


def values(rows: list[dict[str, Any]], kind: str, measure: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        if (row["kind"], row["measure"]) == (kind, measure):
            found.setdefault(row["example_id"], []).append(row["value"])
    return found


def test_cosines_are_those_of_each_variant_and_its_own_clean_answer(
    tmp_path: Path, encoder: str
) -> None:
    rows = compared(tmp_path, ANSWERS, [], embedding=encoder)
    found = values(rows, "answer", "cosine")
    assert found.keys() == {"b1-keyboard", "b1-null", "b2-keyboard"}
    assert len(rows) == 3
    assert found["b1-null"] == [1.0]
    for base in ("b1", "b2"):
        texts = [row["generated"] for row in ANSWERS if row["base_id"] == base]
        first, second = embed_texts(texts[:2], model=encoder)
        assert found[f"{base}-keyboard"] == [pytest.approx(float(first @ second), abs=1e-6)]
        assert found[f"{base}-keyboard"][0] < 1
    assert {row["family_id"] for row in rows} == {"fb1", "fb2"}
    origin = read_provenance(tmp_path / "semantics.parquet")
    assert origin["models"] == {"embedding": embedding_identity(encoder)}


def test_equal_answers_need_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_more: Any) -> Any:
        raise AssertionError("a model was asked")

    monkeypatch.setattr(semantics, "embed_texts", never)
    rows = compared(tmp_path, [ANSWERS[0], ANSWERS[2]], [])
    assert [row["value"] for row in rows] == [1.0]


def test_drawn_answers_to_clean_prompts_are_the_baseline(tmp_path: Path, encoder: str) -> None:
    clean = ["the cat sits", "the cat sits", "a dog runs now"]
    samples = [sample_row("b1", "clean", i, text) for i, text in enumerate(clean)]
    samples += [sample_row("b1", "keyboard", i, text) for i, text in enumerate(clean[::-1])]
    rows = compared(tmp_path, ANSWERS, samples, embedding=encoder)
    near, far = values(rows, "baseline", "cosine")["b1-clean"]
    assert near == 1.0
    assert far < 1
    first, second, third = values(rows, "sampled", "cosine")["b1-keyboard"]
    assert (first, third) == (pytest.approx(far), pytest.approx(far))
    assert second == 1.0
    assert len(rows) == 3 + 2 + 3


def test_inference_is_asked_both_ways(tmp_path: Path, encoder: str) -> None:
    nli = str(save_classifier(tmp_path / "nli", "contradiction", "entailment", "neutral"))
    rows = compared(tmp_path, ANSWERS, [], embedding=None, nli=nli)
    clean, variant = ANSWERS[0]["generated"], ANSWERS[1]["generated"]
    forward, backward = entailment_probabilities([(clean, variant), (variant, clean)], model=nli)
    assert values(rows, "answer", "nli_forward")["b1-keyboard"] == [pytest.approx(forward)]
    assert values(rows, "answer", "nli_backward")["b1-keyboard"] == [pytest.approx(backward)]
    assert abs(forward - backward) > 1e-4
    assert values(rows, "answer", "nli_forward")["b1-null"] == [1.0]
    assert not values(rows, "answer", "cosine")


def test_a_variant_without_its_clean_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 items have no answer to their clean prompt"):
        compared(tmp_path, [ANSWERS[1]], [])


def test_real_answers_that_mean_the_same_are_nearer(tmp_path: Path) -> None:
    answers = [
        answer_row("b1", "clean", "Paris is the capital of France."),
        answer_row("b1", "polite", "The capital of France is Paris, of course."),
        answer_row("b1", "typo", "I do not understand this request."),
    ]
    found = values(compared(tmp_path, answers, []), "answer", "cosine")
    assert found["b1-polite"][0] > 0.8
    assert found["b1-typo"][0] < 0.3
