"""Own word lists in capitals: written lists are checked by them, and spelled as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingData, CountingPairs
from interpflow.config.llm import LlmSettings
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.written_lists import write_round
from interpflow.studies.counting.written_quality import quality
from interpflow.studies.counting.written_state import WrittenRounds, read_rounds
from interpflow.studies.counting.written_validation import judge_round
from interpflow.tables.parquet import read_rows
from interpflow.tasks.counting.check import check_example
from interpflow.tasks.counting.lexicon import lexicon_from_lists, load_lexicon

CATEGORIES = ("bird", "fruit", "mammal")
PAIRS = CountingPairs.model_validate(
    {"n_minimal": 8, "n_prefix": 8, "lengths": {"min": 3, "max": 4}}
)


def test_own_words_in_capitals_are_written_judged_and_used(tmp_path: Path) -> None:
    own = tmp_path / "words"
    own.mkdir()
    for category in CATEGORIES:
        words = [word.capitalize() for word in load_lexicon().members(category)]
        (own / f"{category}.txt").write_text("\n".join(words), encoding="utf-8")
    data = CountingData.model_validate(
        {"source": "llm", "lengths": {"min": 3, "max": 4}, "llm": {"gold_words": 20}}
    )
    paths = {name: str(tmp_path / f"{name}.parquet") for name in ("lists", "words", "verdicts")}
    common: dict[str, Any] = {"lexicon_path": str(own), "templates_path": None,
                              "earlier_lists": [], "earlier_verdicts": []}  # fmt: skip
    write_round(1, data, 0, LlmSettings(), {}, **common, lists_path=paths["lists"])
    judge_round(1, data, 0, LlmSettings(), {}, **common, lists_path=paths["lists"],
                words_path=paths["words"], verdicts_path=paths["verdicts"])  # fmt: skip
    rounds = WrittenRounds(*((paths[name],) for name in ("lists", "words", "verdicts")))
    generate(data, PAIRS, 0, lexicon_path=str(own), templates_path=None, rounds=rounds,
             examples_path=tmp_path / "e.parquet", pairs_path=tmp_path / "p.parquet")  # fmt: skip
    lexicon = load_lexicon(own)
    rows = read_rows(tmp_path / "e.parquet", "counting_examples")
    assert {row["source"] for row in rows} == {"llm"}
    assert not [reason for row in rows if (reason := check_example(row, lexicon))]
    found = quality(
        read_rounds(rounds.lists, "counting_written_lists"),
        read_rounds(rounds.words, "counting_word_verdicts"),
        read_rounds(rounds.verdicts, "counting_list_verdicts"),
        0,
    )
    assert [row["estimate"] for row in found["validators"]] == [1.0, 1.0]


def test_spelling_of_a_word() -> None:
    lexicon = lexicon_from_lists({"city": ["Paris", "SPLIT", "Split"], "bird": ["owl"]})
    assert lexicon.spelling_of("paris") == "Paris"
    assert lexicon.spelling_of("PARIS") == "Paris"
    assert lexicon.spelling_of("owl") == "owl"
    assert lexicon.spelling_of("lyon") == "lyon"
    # Two of its words: which is meant cannot be known.
    assert lexicon.spelling_of("split") == "split"
    assert lexicon.spelling_of("Split") == "Split"
