"""The rule check of variants finds what changes a question and lets the rest pass."""

from __future__ import annotations

import pytest

from interpflow.tasks.perturbations.meaning import keeps_meaning
from interpflow.tasks.perturbations.operators import OPERATORS
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.text import PerturbedText, SourceText, rebuilt

TEXT = "Anna has 12 apples.\nShe never gives 7 of them to Ben."
SOURCE = SourceText(TEXT, protected=((12, 18),), main=((30, 35),))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("12", "21", "numbers changed"),
        ("12", "twelve", ""),
        ("Ben", "one", "numbers changed"),
        ("never ", "", "negation changed"),
        ("to Ben", "not to Ben", "negation changed"),
        ("\n", " ", "line ends changed"),
        ("apples", "aples", "protected words changed"),
        ("gives ", "", "main word left out"),
        ("gives", "givs", ""),
        ("Ben", "Ben\ud800", "invalid Unicode"),
        ("Ben", "Be\u0301n", "invalid Unicode"),
        ("Ben", "Ben", "text unchanged"),
    ],
)
def test_reasons(old: str, new: str, reason: str) -> None:
    at = TEXT.index(old)
    found = rebuilt(TEXT, [("", at, at + len(old), new)], "keyboard")
    assert keeps_meaning(SOURCE, found, "keyboard") == reason


def test_a_text_without_edits_must_hold_what_bears_the_answer() -> None:
    reworded = "There are 12 Apples with Anna.\nTo Ben, 7 are never given."
    assert keeps_meaning(SOURCE, reworded, "paraphrase") == ""
    assert keeps_meaning(SOURCE, reworded.replace("Apples", "fruits"), "paraphrase") == (
        "protected words changed"
    )
    assert keeps_meaning(SOURCE, reworded.replace("7", "8"), "paraphrase") == "numbers changed"


def test_numbers_may_differ_where_they_may_be_edited() -> None:
    other = TEXT.replace("12", "13")
    assert keeps_meaning(SOURCE, other, "keyboard", edit_protected=True) == ""


def test_the_null_operator_must_change_nothing() -> None:
    assert keeps_meaning(SOURCE, TEXT, "null") == ""
    assert keeps_meaning(SOURCE, TEXT + " ", "null") == "text changed"


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_passes(operator: str) -> None:
    for seed in range(20):
        for n in (1, 2, 3):
            found = perturb(SOURCE, operator, seed=seed, example_id="a", n_edits=n, strength=n)
            if isinstance(found, PerturbedText):
                assert keeps_meaning(SOURCE, found, operator) == ""
