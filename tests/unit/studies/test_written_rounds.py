"""Lists written in rounds: filled, judged word by word, refilled, and measured."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.counting import CountingData, CountingPairs, CountingValidation
from interpflow.config.llm import LlmSettings
from interpflow.errors import UserError
from interpflow.studies.counting import written_lists, written_validation
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.validation import validate
from interpflow.studies.counting.written_lists import write_round
from interpflow.studies.counting.written_quality import label_accuracy, quality, written_quality
from interpflow.studies.counting.written_state import WrittenRounds, read_rounds
from interpflow.studies.counting.written_validation import judge_round
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows
from interpflow.tasks.counting.lexicon import load_lexicon
from tests.unit.studies.written_service import CATEGORIES, ErringService, half_lexicon

SEED = 3
DATA = {
    "source": "mixed",
    "categories": list(CATEGORIES),
    "lengths": {"min": 4, "max": 6},
    "replicates": 2,
    "llm": {"max_rounds": 4, "gold_words": 40},
}
PAIRS = CountingPairs.model_validate(
    {"n_minimal": 8, "n_prefix": 8, "lengths": {"min": 4, "max": 5}}
)


def run_rounds(
    directory: Path, service: ErringService, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[CountingData, str, WrittenRounds]:
    """All rounds with a service in place of the real one."""
    monkeypatch.setattr(written_lists, "answer", service.answer)
    monkeypatch.setattr(written_validation, "answer", service.answer)
    data = CountingData.model_validate({**DATA, **changes})
    lexicon = str(half_lexicon(directory / "lexicon"))
    own: dict[str, Any] = {"lexicon_path": lexicon, "templates_path": None}
    made: dict[str, list[str]] = {"lists": [], "words": [], "verdicts": []}
    for number in range(1, data.llm.max_rounds + 1):
        here = directory / "rounds" / str(number)
        here.mkdir(parents=True)
        paths = {name: str(here / f"{name}.parquet") for name in made}
        earlier = {"earlier_lists": list(made["lists"]), "earlier_verdicts": list(made["verdicts"])}
        write_round(number, data, SEED, LlmSettings(), {}, **own, **earlier,
                    lists_path=paths["lists"])  # fmt: skip
        judge_round(
            number, data, SEED, LlmSettings(), {}, **own, **earlier, lists_path=paths["lists"],
            words_path=paths["words"], verdicts_path=paths["verdicts"],
        )  # fmt: skip
        for name, path in paths.items():
            made[name].append(path)
    return data, lexicon, WrittenRounds(**{name: tuple(paths) for name, paths in made.items()})


def generated(
    directory: Path, data: CountingData, lexicon: str, rounds: WrittenRounds
) -> list[dict[str, Any]]:
    generate(
        data, PAIRS, SEED, lexicon_path=lexicon, templates_path=None, rounds=rounds,
        examples_path=directory / "examples.parquet", pairs_path=directory / "pairs.parquet",
    )  # fmt: skip
    return read_rows(directory / "examples.parquet", "counting_examples")


def test_rounds_fill_the_design_with_right_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ErringService(wrong_labels=0.05)
    data, lexicon, rounds = run_rounds(tmp_path, service, monkeypatch)
    rows = generated(tmp_path, data, lexicon, rounds)
    cells = Counter((row["category"], row["length"], row["count"]) for row in rows)
    assert len(cells) == len(CATEGORIES) * (5 + 6 + 7)
    assert set(cells.values()) == {2}
    assert Counter(row["source"] for row in rows) == {"systematic": 72, "llm": 72}
    truth = load_lexicon()
    for row in rows:
        assert [row["category"] in truth.categories_of(word) for word in row["words"]] == row[
            "is_match"
        ]
    # The generator's wrong labels reached the rounds, so there was something to keep out.
    verdicts = read_rounds(rounds.verdicts, "counting_list_verdicts")
    assert any(row["reason"] == "a wrong label" for row in verdicts)


def test_the_data_pass_the_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, lexicon, rounds = run_rounds(tmp_path, ErringService(), monkeypatch, source="llm")
    rows = generated(tmp_path, data, lexicon, rounds)
    assert {row["source"] for row in rows} == {"llm"}
    validate(
        tmp_path / "examples.parquet", tmp_path / "pairs.parquet",
        CountingValidation(max_pair_imbalance=9, max_association=0.3), SEED, lexicon_path=lexicon,
        table_path=tmp_path / "v.parquet", document_path=tmp_path / "v.json", rounds=rounds,
    )  # fmt: skip
    flat = read_document(tmp_path / "v.json", "counting_validation")["flatness"]
    # The service writes members first; the data must not.
    assert all(value["total_variation"] < 0.1 for name, value in flat.items() if "position" in name)


def test_only_missing_lists_are_asked_again_and_only_open_words_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ErringService(wrong_labels=0.05)
    _, lexicon, rounds = run_rounds(tmp_path, service, monkeypatch)
    per_round = Counter(row["round"] for row in read_rounds(rounds.lists, "counting_written_lists"))
    assert per_round[1] > per_round[2] > per_round.get(3, 0)
    keys = [(ask.turns[0].content, ask.sample) for ask in service.asked
            if ask.item["task"] == "counting_lists"]  # fmt: skip
    assert len(set(keys)) == len(keys)
    own = load_lexicon(Path(lexicon))
    gold = {
        (row["category"], row["word"])
        for row in read_rounds(rounds.words, "counting_word_verdicts")
        if row["is_gold"]
    }
    judged = {(ask.item["category"], ask.item["word"]) for ask in service.asked
              if ask.item["task"] == "membership"}  # fmt: skip
    assert gold <= judged
    assert not [word for category, word in judged - gold if own.categories_of(word)]
    assert len(gold) == 80


def test_rounds_are_the_same_from_run_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        [
            read_rounds(tables, name)
            for tables, name in (
                (rounds.lists, "counting_written_lists"),
                (rounds.verdicts, "counting_list_verdicts"),
            )
        ]
        for rounds in (
            run_rounds(tmp_path / run, ErringService(wrong_labels=0.1), monkeypatch)[2]
            for run in ("a", "b")
        )
    ]
    assert found[0] == found[1]


def test_missing_cells_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = ErringService(wrong_labels=0.5)
    data, lexicon, rounds = run_rounds(tmp_path, service, monkeypatch, llm={"max_rounds": 1})
    with pytest.raises(UserError, match="after 1 round ") as error:
        generated(tmp_path, data, lexicon, rounds)
    assert "color" in str(error.value)
    # Why lists were not used, so that a reader knows what to change.
    assert re.search(r"not used: \d+ a wrong label", str(error.value))
    assert error.value.where == "counting.data.llm.max_rounds"


def test_the_report_on_quality_holds_the_generators_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ErringService(wrong_labels=0.1, sensitivity=0.93, specificity=0.9)
    _, _, rounds = run_rounds(
        tmp_path, service, monkeypatch, llm={"max_rounds": 2, "gold_words": 80}
    )
    written_quality(
        rounds.lists, rounds.words, rounds.verdicts, seed=SEED, document_path=tmp_path / "q.json",
        disagreements_path=tmp_path / "d.parquet",
    )  # fmt: skip
    document = read_document(tmp_path / "q.json", "counting_written_quality")
    found = {row["quantity"]: row for row in document["labels"]}
    in_all = found["label accuracy, all words, corrected"]
    assert in_all["ci_low"] <= 1 - service.n_wrong / service.n_labels <= in_all["ci_high"]
    asked = document["rounds"][0]["n_asked"]
    assert sum(row["n_units"] for row in document["lists_right_by"]["count"]) >= asked
    kinds = {row["kind"] for row in read_rows(tmp_path / "d.parquet", "counting_disagreements")}
    assert {"generator against lexicon", "generator against validator",
            "validator against lexicon"} <= kinds  # fmt: skip


def judged_words(
    rng: random.Random, n: int, wrong: float, sensitivity: float, specificity: float
) -> tuple[Counter, list[dict[str, Any]], list[dict[str, Any]]]:
    """Labels, verdicts and gold of words of which every third is in the lexicon."""

    def vote(truth: bool) -> str:
        right = rng.random() < (sensitivity if truth else specificity)
        return "yes" if truth == right else "no"

    labels: Counter = Counter()
    words = []
    for i in range(n):
        truth, known = rng.random() < 0.4, i % 3 == 0
        labels["c", f"w{i}", truth != (rng.random() < wrong)] += 1
        votes = [] if known else [vote(truth)]
        verdict = ("yes" if truth else "no") if known else votes[0]
        words.append(
            {"category": "c", "word": f"w{i}", "verdict": verdict, "votes": votes,
             "lexicon": verdict if known else None, "is_gold": False,
             "decided_by": "lexicon" if known else "validator"}
        )  # fmt: skip
    gold = [
        {"lexicon": "yes" if truth else "no", "votes": [vote(truth)]}
        for truth in (True, False)
        for _ in range(100)
    ]
    return labels, words, gold


def test_corrected_accuracy_covers_the_known_rate_and_the_raw_one_does_not() -> None:
    rng = random.Random(0)
    wrong, n_runs, covered, raw = 0.08, 400, 0, 0
    for _ in range(n_runs):
        estimates = {
            e.quantity: e for e in label_accuracy(*judged_words(rng, 900, wrong, 0.93, 0.9))
        }
        found = estimates["label accuracy, other words, corrected"]
        covered += found.ci_low <= 1 - wrong <= found.ci_high
        apparent = estimates["label accuracy, other words, as judged"]
        raw += apparent.ci_low <= 1 - wrong <= apparent.ci_high
    assert covered / n_runs >= 0.93
    assert raw / n_runs < 0.3


def test_nothing_written_is_no_quality_but_no_crash() -> None:
    document = quality([], [], [], 0)
    assert document["rounds"] == []
    assert all(row["estimate"] is None or row["estimate"] != row["estimate"]
               for row in document["labels"])  # fmt: skip
