"""The word lists and style templates hold what they should, and broken ones are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from interpflow.errors import UserError
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.styles import STYLES, load_styles
from interpflow.tasks.perturbations.text import PerturbedText, SourceText
from interpflow.tasks.perturbations.word_lists import (
    HOMOPHONES_PATH,
    in_case_of,
    load_homophones,
    load_misspellings,
)
from interpflow.tasks.perturbations.words import (
    OPERATORS_OF_ARITHMETIC,
    is_negation,
    is_quantity,
    negations_of,
    numbers_of,
)
from interpflow.tasks.word_problems import load_parts

TEXT = "Then Anna gives 12 apples to the neighbour in the evening. How many does Anna have now?"
SOURCE = SourceText(TEXT, protected=((19, 25),), main=((10, 15),))


def words_of_problems() -> set[str]:
    parts = load_parts()
    sentences = [part.text for part in (*parts.openings, *parts.events, *parts.questions)]
    return {
        word.lower()
        for text in (*(re.sub(r"\{\w+\}", "", text) for text in sentences), *parts.names,
                     *parts.items)
        for word in re.findall(r"[A-Za-z]+", text)
    }  # fmt: skip


def test_misspellings() -> None:
    known = load_misspellings()
    assert sum(map(len, known.values())) >= 600
    for word, wrong in known.items():
        assert word.isascii()
        assert word.islower()
        assert word not in wrong
        assert len(set(wrong)) == len(wrong)
        assert all(form.isalpha() and form.islower() for form in wrong)
        assert not any(is_quantity(form) or is_negation(form) for form in wrong)
    assert {word for word in words_of_problems() if len(word) >= 4} <= set(known)


def test_homophones() -> None:
    known = load_homophones()
    rows = HOMOPHONES_PATH.read_text().splitlines()[1:]
    assert sum(row.endswith(",exact") for row in rows) >= 250
    assert set(known["there"]) == {"their", "they're"}
    assert "weak" in known["week"]
    for word, others in known.items():
        assert word not in others
        assert re.fullmatch(r"[a-z]+('[a-z]+)?", word)
    # A near set serves only words without an exact one.
    assert "lest" in known["last"]
    assert known["have"] == ("halve",)
    assert "cap" not in known["cent"]


def test_capitals_follow_the_word() -> None:
    assert [in_case_of(m, "weak") for m in ("week", "Week", "WEEK", "I")] == [
        "weak",
        "Weak",
        "WEAK",
        "Weak",
    ]


def test_templates_hold_no_number_negation_or_operator() -> None:
    for style, strengths in load_styles().items():
        for strength in strengths:
            assert len(strength.templates) >= 3
            texts = [*(part for t in strength.templates for part in t), *strength.replace.values()]
            for text in texts:
                assert not numbers_of(text), (style, text)
                assert not negations_of(text), (style, text)
                assert not OPERATORS_OF_ARITHMETIC.search(text), (style, text)
                assert "\n" not in text
            for before, after in strength.templates:
                assert not before or before.endswith(" ")
                assert not after or after.startswith(" ")


def _styled(style: str, strength: int, seed: int) -> PerturbedText:
    found = perturb(SOURCE, style, seed=seed, example_id="a", strength=strength)
    assert isinstance(found, PerturbedText)
    return found


@pytest.mark.parametrize("style", STYLES)
def test_styles_are_graded(style: str) -> None:
    """Every text of a strength goes further than every one of the strength below it."""
    added, word_edits = [], []
    for strength in (1, 2, 3):
        found = [_styled(style, strength, seed) for seed in range(40)]
        assert len({variant.text for variant in found}) >= 3
        added.append([len(variant.text) - len(TEXT) for variant in found])
        word_edits.append(
            [sum(e.operation in ("drop", "replace") for e in variant.edits) for variant in found]
        )
        for variant in found:
            assert "gives 12 apples" in variant.text
    if style == "terse":
        assert min(added[0]) > max(added[1]) > max(added[2])
        assert word_edits[0][0] < word_edits[1][0] < word_edits[2][0]
    else:
        assert max(added[0]) < min(added[1])
        assert max(added[1]) < min(added[2])
    if style == "non_native":
        assert word_edits[0][0] < word_edits[1][0] < word_edits[2][0]


def test_broken_files_are_refused(tmp_path: Path) -> None:
    lists = {
        "a.csv": "word;misspelling\n",
        "b.csv": "word,misspelling\nweek,\n",
        "c.csv": "word,misspelling\nweek,weak,wek\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            load_misspellings(tmp_path / name)
    (tmp_path / "d.csv").write_text("words,kind\nweek weak,exat\n")
    with pytest.raises(UserError, match="exat"):
        load_homophones(tmp_path / "d.csv")
    with pytest.raises(UserError, match="cannot be read"):
        load_homophones(tmp_path / "none.csv")


@pytest.mark.parametrize("change", ["style", "strength", "templates", "word"])
def test_broken_styles_are_refused(tmp_path: Path, change: str) -> None:
    strength: dict = {"templates": [{"after": " Thanks."}]}
    raw: dict = {style: {k: dict(strength) for k in (1, 2, 3)} for style in STYLES}
    if change == "style":
        del raw["urgent"]
    elif change == "strength":
        del raw["urgent"][3]
    elif change == "templates":
        raw["urgent"][2]["templates"] = []
    else:
        raw["urgent"][2]["drop"] = [True]
    path = tmp_path / f"{change}.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match="'urgent' is incomplete"):
        load_styles(path)
