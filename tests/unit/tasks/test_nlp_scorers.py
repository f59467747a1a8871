"""Scorers: what counts as right in generated text; form and repetition of a generation."""

from __future__ import annotations

import pytest

from interpflow.tasks.nlp.items import Scorer, TaskItem
from interpflow.tasks.nlp.scorers import is_correct, number_of, read_answer
from interpflow.tasks.nlp.text_quality import format_score, repetition


def item(
    answer: str, scorer: Scorer = "exact", accepted: tuple[str, ...] = (), *,
    task: str = "own", prompt: str = "A prompt is", pattern: str = "",
) -> TaskItem:  # fmt: skip
    return TaskItem(
        task=task, prompt=prompt, answer=f" {answer}", scorer=scorer,
        accepted=accepted or (answer,), pattern=pattern,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" Paris", True), (" Paris.", True), (" Paris, which is", True), (' "Paris"', True),
        (" paris.", True), ("Paris\nmore", True), (" Parisian", False), (" not Paris", False),
        ("", False), ("\n Paris", False), (" . Paris", False),
    ],
)  # fmt: skip
def test_exact(text: str, right: bool) -> None:
    assert is_correct(item("Paris"), text) is right


def test_an_accent_may_be_a_sign_of_its_own() -> None:
    assert is_correct(item("café"), " cafe\u0301")
    assert not is_correct(item("café"), " cafe")


def test_words_are_read_as_long_as_the_accepted_answer() -> None:
    city = item("New York", "set", ("New York", "Boston"))
    assert is_correct(city, " New York City is")
    assert is_correct(city, " Boston is")
    assert not is_correct(city, " New Jersey")
    assert read_answer(city, " New York City is. Then") == "New York"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("27", True), (" 27.0", True), (" twenty-seven.", True), (" Twenty seven", True),
        (" 27 apples, or 28", True), (" 28", False), (" 270", False), (" 27.5", False),
        (" 2 7", False), (" -27", False), ("", False), (" a number", False), (" 27\n3 + 4 =", True),
    ],
)  # fmt: skip
def test_number(text: str, right: bool) -> None:
    assert is_correct(item("27", "number"), text) is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("eight", 8), ("forty-two", 42), ("a hundred and five", 105), ("two hundred", 200),
        ("1,000 men", 1000), ("1/2", 0.5), ("none", None), ("someone", None),
        ("the year 1945", 1945), ("minus five", -5), ("a negative twelve", -12),
        ("five minus two", 5),
    ],
)  # fmt: skip
def test_numbers_in_digits_and_words(text: str, value: float | None) -> None:
    assert number_of(text) == value


def test_spelled_answer_accepts_digits() -> None:
    assert is_correct(item("eight", "number"), " 8") is True


def test_regex_matches_from_the_first_character() -> None:
    close = item("}", "regex", pattern=r"\s*\}(?!\s*\})")
    assert is_correct(close, " }")
    assert is_correct(close, "}\n}")
    assert not is_correct(close, " }}")
    assert not is_correct(close, " 3 }")
    assert read_answer(close, " } and more") == "}"


def test_marks_alone_are_compared_as_they_are() -> None:
    assert is_correct(item("}"), " }")
    assert not is_correct(item("}"), " ]")


def test_free_answers_wait_for_a_judge() -> None:
    assert is_correct(item("anything", "free"), " anything") is None
    assert read_answer(item("anything", "free"), " a long. answer\nand more") == "a long. answer"


def test_a_pattern_ends_at_its_comma() -> None:
    rising = item("8", "number", task="pattern", prompt="2, 4, 6,")
    assert read_answer(rising, " 8, 10, 12") == "8"
    assert is_correct(rising, " 8, 10, 12")


def test_format_of_numbers_words_and_marks() -> None:
    assert format_score(item("27", "number"), " 99 is wrong but a number") == 1
    assert format_score(item("27", "number"), " the sum 99") == 0
    assert format_score(item("Paris"), " banana") == 1
    assert format_score(item("Paris"), " = = =") == 0
    assert format_score(item("}"), " ]") == 1
    assert format_score(item("}"), " word") == 0
    assert format_score(item("x", "free"), " word") == 1
    assert format_score(item("x", "free"), "\n") == 0


def test_format_of_json_and_python() -> None:
    entry = item("}", "regex", prompt='{ "a": 1 }\n{ "a": 2', pattern=r"\s*\}")
    assert format_score(entry, " }\nmore") == 1
    assert format_score(entry, ' , "b": 3 }') == 1
    assert format_score(entry, " ]") == 0
    loop = item("in", "regex", task="code", prompt="for ball", pattern=r"\s*in")
    assert format_score(loop, " in items:\n") == 1
    assert format_score(loop, " in in in") == 0
    function = item("return", "regex", task="code", prompt="def f(a):\n   ", pattern=r"\s*return")
    assert format_score(function, " return a + 1") == 1
    assert format_score(function, " retur a +") == 0
    shown = item("]", "regex", task="code", prompt="for ball in\nx = [1, 2", pattern=r"\]")
    assert format_score(shown, "]\n") == 1


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0), ("one two three", 0.0), ("a b c d e", 0.0), ("a a a a a", 0.5),
        ("the cat sat down the cat sat down", 1 - 4 / 5), ("x " * 103, 0.99),
    ],
)  # fmt: skip
def test_repetition(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)
