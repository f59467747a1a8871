"""Which whole words an edit touches, what they are compared with, and the dose."""

from __future__ import annotations

import random
import re

import pytest

from interpflow.tasks.perturbations.operators import OPERATORS
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.text import PerturbedText, SourceText, rebuilt
from interpflow.tasks.perturbations.touched_words import (
    control_words,
    dose,
    edit_distance,
    edited_words,
    edits_between,
    matched_words,
)
from interpflow.tasks.perturbations.words import (
    negations_of,
    numbers_of,
    protected_spans,
    words_of,
)

TEXT = "Anna has 12 apples. Then Anna gives 7 to a friend. How many are left?"
SOURCE = SourceText(TEXT, protected=((12, 18),), main=((30, 35),))


def touched(*edits: tuple[str, str]) -> list[tuple[str, str]]:
    """Words touched by replacing the first occurrence of each piece."""
    found = rebuilt(
        TEXT, [("", TEXT.index(old), TEXT.index(old) + len(old), new) for old, new in edits], "x"
    )
    clean, new = edited_words(TEXT, found)
    return [(TEXT[a:b], found.text[c:d]) for (a, b), (c, d) in zip(clean, new, strict=True)]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([("gives", "gvies")], [("gives", "gvies")]),
        ([("ives", "ive")], [("gives", "give")]),
        ([("gives ", "")], [("gives 7", "7")]),
        ([(" gives", "")], [("Anna gives", "Anna")]),
        ([("gives", "gives gives")], [("gives", "gives gives")]),
        ([("a friend", "friend a")], [("a friend", "friend a")]),
        ([("to a", "toa")], [("to a", "toa")]),
        ([("friend", "fri end")], [("friend", "fri end")]),
        ([("friend.", "friend")], [("friend.", "friend")]),
        ([("are", "are,"), ("left", "lfet")], [("are", "are,"), ("left", "lfet")]),
        ([("Anna has", "Hello! Anna has")], [("Anna has", "Hello! Anna has")]),
    ],
)
def test_whole_words(edits: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert touched(*edits) == expected


def test_insertions_between_words() -> None:
    end = len(TEXT)
    found = rebuilt(TEXT, [("", 0, 0, "Please. "), ("", end, end, " Thanks!")], "polite")
    clean, new = edited_words(TEXT, found)
    assert [TEXT[a:b] for a, b in clean] == ["Anna", "left?"]
    assert [found.text[a:b] for a, b in new] == ["Please. Anna", "left? Thanks!"]


def test_edits_whose_words_meet_are_one() -> None:
    at = TEXT.index("friend")
    found = rebuilt(TEXT, [("", at + 1, at + 2, "e"), ("", at + 3, at + 4, "")], "x")
    clean, new = edited_words(TEXT, found)
    assert [TEXT[a:b] for a, b in clean] == ["friend"]
    assert [found.text[a:b] for a, b in new] == ["feind"]


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "null"])
def test_touched_and_control_words_of_every_operator(operator: str) -> None:
    for seed in range(30):
        found = perturb(SOURCE, operator, seed=seed, example_id="a", n_edits=1 + seed % 3)
        if not isinstance(found, PerturbedText):
            continue
        clean, new = edited_words(TEXT, found)
        assert len(clean) == len(new) > 0
        assert all(start < end for start, end in (*clean, *new))
        # What lies between touched words is the same in both texts.
        rest = [re.sub(r"\s", "", _without(text, spans)) for text, spans in
                ((TEXT, clean), (found.text, new))]  # fmt: skip
        assert rest[0] == rest[1]
        control, moved_control = control_words(SOURCE, found)
        assert len(control) <= len(clean)
        free = {word.span for word in words_of(SOURCE).words if word.editable}
        assert set(control) <= free
        for (a, b), (c, d) in zip(control, moved_control, strict=True):
            assert TEXT[a:b] == found.text[c:d]
            assert all(b <= start or end <= a for start, end in clean)
            assert all(d <= start or end <= c for start, end in new)


def _without(text: str, spans: tuple[tuple[int, int], ...]) -> str:
    for start, end in reversed(spans):
        text = text[:start] + text[end:]
    return text


def test_matching_by_letters_and_place() -> None:
    candidates = [(0, 4), (10, 15), (40, 45), (90, 96)]
    assert matched_words([(92, 97)], candidates, 100) == [(90, 96)]
    assert matched_words([(12, 17), (13, 18)], candidates, 100) == [(10, 15), (0, 4)]
    assert matched_words([(0, 4)] * 5, candidates, 100) == [(0, 4), (10, 15), (40, 45), (90, 96)]


def test_distance_and_dose() -> None:
    assert edit_distance("apples", "appels") == 2
    assert edit_distance("apples", "aples") == 1
    assert dose("apples", "appels") == pytest.approx(1 / 3)
    assert dose("", "") == 0


def test_edits_of_a_given_text_are_found() -> None:
    new = TEXT.replace("gives", "givs").replace("a friend", "friend").replace("many", "very many")
    found = edits_between(TEXT, new, "main")
    assert found.text == new
    assert found.operator == "main"
    clean, _ = edited_words(TEXT, found)
    assert [TEXT[a:b] for a, b in clean] == ["gives", "a friend", "many"]
    assert edits_between(TEXT, TEXT, "main").edits == ()
    rng = random.Random(0)
    for _ in range(200):
        pieces = TEXT.split(" ")
        rng.shuffle(pieces)
        other = " ".join(pieces[: rng.randrange(len(pieces) + 1)])
        assert edits_between(TEXT, other, "given").text == other


def test_numbers_operators_and_negations_are_protected_by_themselves() -> None:
    text = "It isn't 3.5 + x2, nor twenty-one; 1,000 = half."
    kept = [text[start:end] for start, end in protected_spans(SourceText(text))]
    assert kept == ["isn't", "3.5", "+", "x2", "nor", "twenty", "-", "one", "1,000", "=", "half"]
    assert numbers_of(text) == ["3.5", "x2", "20", "1", "1,000", "half"]
    assert numbers_of("twelve") == numbers_of("12")
    assert set(negations_of(text)) == {"isn't", "nor"}
