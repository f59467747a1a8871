"""Typed numbers, expressions, and what counts as the answer in a model's words."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpflow.tasks.arithmetic import (
    canonical_answer,
    evaluate_expression,
    is_correct,
    read_answer,
)
from interpflow.tasks.typed_numbers import canonical, find_numbers, parse_number, plain_text
from interpflow.tasks.word_problems import make_problems


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("it is -3", ["-3"]),
        ("5 -3", ["5", "3"]),
        ("= −$3", ["-3"]),
        ("1,234.50", ["2469/2"]),
        ("1 234 567", ["1234567"]),
        ("1\u202f234", ["1234"]),
        ("1.234,50 and 3,5 and 1,2,3", []),  # two readings: none
        ("12/05/2024 at 5:30, version 1.2.3", []),
        ("7/2 and 3 1/2 and 3½", ["7/2", "7/2", "7/2"]),
        ("7/0", []),
        ("$5, 5 %, €5", ["5", "5", "5"]),
        ("the 2nd of x2", []),
        ("1e3", ["1000"]),
        (r"\frac{7}{2} of \$1{,}234", ["7/2", "1234"]),
        ("5-10", ["5", "10"]),
        ("- 3 apples", ["3"]),
        ("14/2 = 7", ["7", "7"]),
        ("٣ or 1\u200b2", ["3", "12"]),
        ("9" * 101, []),
    ],
)
def test_numbers_are_found_as_they_are_typed(text: str, values: list[str]) -> None:
    assert [canonical(number.value) for number in find_numbers(plain_text(text))] == values


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}"]))
def test_whole_numbers_read_back(value: int, form: str) -> None:
    assert parse_number(form.format(value)) == value
    assert parse_number(form.format(value).replace(",", " ").replace("-", "−")) == value


@given(st.fractions(max_denominator=999))
def test_canonical_numbers_read_back(value: Fraction) -> None:
    assert parse_number(canonical(value)) == value


@given(st.text(alphabet="0123456789 .,-−/+*=()$%eE^x\n½²", max_size=40))
def test_no_text_breaks_the_readers(text: str) -> None:
    read_answer(text, "number")
    evaluate_expression(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("How much is 12 + 7?", "19"),
        ("How much is 12-7?", "5"),
        ("What is 3 × (4 + 2) ÷ 9?", "2"),
        ("3 x 4", "12"),
        ("8/4/2", "1"),
        ("5 ÷ 2 =", "5/2"),
        ("1,234 + 1", "1235"),
        ("-5 + 3", "-2"),
        ("5 * -3", "-15"),
        ("a) 5 + 3", "8"),
        ("Work this out (namely 5 + 3).", "8"),
        ("On 12/05/2024, what was 2 + 2?", "4"),
        ("x - 5 + 3", None),
        ("x + 7 = 12", None),
        ("2^3 + 1", None),
        ("5 + 3²", None),
        ("12 ** 2", None),
        ("2(3+4)", None),
        ("(2 + 3 * 4", None),
        ("100 - 20%", None),
        ("5 + 3 and 2 + 2", None),
        ("12 / 0", None),
        ("Write 5-10 sentences", None),
        ("Add 1/2 cup of 3 things", None),
        ("3 apples", None),
        ("__import__('os') 1 +", None),
        ("(" * 60 + "1 + 1" + ")" * 60, None),
    ],
)
def test_the_one_expression_of_a_text(text: str, value: str | None) -> None:
    found = evaluate_expression(text)
    assert (None if found is None else canonical(found)) == value


def test_expressions_agree_with_exact_arithmetic() -> None:
    rng = random.Random(0)
    for _ in range(500):
        text = str(rng.randint(1, 99))
        for _ in range(rng.randint(1, 4)):
            operand = str(rng.randint(1, 99))
            if rng.random() < 0.3:
                operand = f"({operand} {rng.choice('+-*')} {rng.randint(1, 9)} + 0.5)"
            text += f" {rng.choice('+-*')} {operand}"
        expected = Fraction(str(eval(text)))  # of this test's own digits and operators
        assert evaluate_expression(f"What is {text} ?") == expected, text


@pytest.mark.parametrize(
    ("generated", "strict", "rule"),
    [
        (" 16 - 3 = 13. 13 * 2 = 26. The answer is 26.", "26", "stated"),
        ("The final answer is: **$1,234**.", "1234", "stated"),
        ("So the answer is 12 + 7 = 19.", "19", "stated"),
        ("#### 48", "48", "stated"),
        (r"Hence \boxed{\frac{7}{2}}.", "7/2", "boxed"),
        (r"\[ \boxed{12 + 7 = 19 \text{ apples}} \]", "19", "boxed"),
        ("19", "19", "alone"),
        (" 19.", "19", "alone"),
        ("= -3", "-3", "equation"),
        ("5 - 8 = - 3", "-3", "equation"),
        ("5 - 8 = −\u00a03", "-3", "equation"),
        ("The answer is - 3.", "-3", "stated"),
        ("The answer is negative 3", "-3", "stated"),
        ("Minus 3", "-3", "alone"),
        ("The answer is $-3$.", "-3", "stated"),
        ("The answer is 12 - 7 = 5", "5", "stated"),
        ("12 + 7 = 19 apples", "19", "equation"),
        ("3 * 4 = 12. 5 * 2 = 10. 12 + 10 = 22.", "22", "equation"),
        ("2 * 3 + 1 = 6 + 1 = 7", "7", "equation"),
        ("12 + 7 = 19. To check: 19 - 7 = 12.", "19", "equation"),
        ("The answer is 5. Wait, that is a mistake. The answer is 6.", "6", "stated"),
        ("<think>It is 7.</think>The answer is 8.", "8", "stated"),
        # What comes after the statement does not change it.
        ("19. In 1999 there were 20 of them.", "19", "alone"),
        ("19\n\n13 + 8 = 21", "19", "alone"),
        ("12 + 7 = 19. 13 + 8 = 21.", "19", "equation"),
        ("The answer is 19. How much is 13 + 8? The answer is 21.", "19", "stated"),
        ("12 + 7 = 19\nExercise 2: 19 + 8 = 27", "19", "equation"),
        ("The answer is 19, as it was in 2024.", "19", "stated"),
        ("The answer is 19. The answer is 21.", "19", "stated"),
        # No declared form.
        ("", None, "empty"),
        ("I do not know.", None, "no_number"),
        ("He has 48 apples.", None, "no_form"),
        ("1. First, take the 12 apples", None, "no_form"),
        ("The answer is not 5", None, "no_form"),
        ("19 = 12 + 7", None, "no_form"),
    ],
)
def test_the_strict_reading(generated: str, strict: str | None, rule: str) -> None:
    reading = read_answer(generated, "number")
    assert (reading.strict, reading.strict_rule) == (strict, rule)
    if strict is not None:
        assert (reading.lenient, reading.lenient_rule) == (strict, rule)


@pytest.mark.parametrize(
    ("generated", "lenient", "rule"),
    [
        ("He has 48 apples. In 2024 he had more.", "48", "sentence"),
        ("From 50, 2 go, so 48 are there. Then 7 come.", "48", "sentence"),
        ("Apples: 48", "48", "last"),
        ("What there is:\n- 48 apples", "48", "last"),
        ("He has 48 apples. Question: 3 apples and 4 are 7", "48", "sentence"),
        ("no idea", None, "no_number"),
    ],
)
def test_the_lenient_reading(generated: str, lenient: str | None, rule: str) -> None:
    reading = read_answer(generated, "number")
    assert reading.strict is None
    assert (reading.lenient, reading.lenient_rule) == (lenient, rule)


def test_silence_is_never_right() -> None:
    """The last integer of prompt and answer together was taken for the answer elsewhere: where the
    result equals the second operand, saying nothing was right."""
    for total, part in [(14, 7), (2, 1), (48, 24)]:
        assert evaluate_expression(f"How much is {total} - {part}?") == part
        for silence in ("", " ", "\n", "Hmm."):
            reading = read_answer(silence, "number")
            assert is_correct(reading.strict, str(part), "number") is False
            assert is_correct(reading.lenient, str(part), "number") is False


@pytest.mark.parametrize(
    ("value", "gold", "correct"),
    [
        ("1/2", "0.5", True),
        ("1234", "1,234", True),
        ("333/1000", "1/3", True),
        ("67/100", "2/3", True),
        ("3/10", "1/3", False),  # one place is no statement of a third
        ("7/20", "1/3", False),
        ("19999/40000", "0.5", False),  # 0.499975: a finite gold is met exactly or not
        ("7", "-7", False),
        (None, "7", False),
        ("7", "seven", None),
        ("7", None, None),
    ],
)
def test_numbers_are_compared_exactly(value: str | None, gold: str | None, correct: bool) -> None:
    assert is_correct(value, gold, "number") is correct


def test_texts_are_compared_without_case_and_articles() -> None:
    reading = read_answer("The answer is the Eiffel  Tower.\nIt is in Paris.", "text")
    assert is_correct(reading.strict, "Eiffel tower", "text") is True
    assert is_correct(reading.strict, "Paris", "text") is False
    assert read_answer("Paris.", "text").strict_rule == "alone"
    assert is_correct(read_answer("Paris.\nIn France.", "text").lenient, "paris", "text") is True
    assert is_correct(read_answer("", "text").lenient, "paris", "text") is False


@pytest.mark.parametrize("letter", ["A", "B"])
def test_an_option_may_be_stated_by_letter_or_text(letter: str) -> None:
    gold = f"{letter}) blue whale"
    for said in (gold, letter, f"({letter})", f"{letter.lower()}.", "The blue whale.",
                 f"{letter}: Blue whale"):  # fmt: skip
        assert is_correct(said, gold, "text"), said
    for said in ("C", "C) blue whale", "whale", "", f"{letter} or C"):
        assert not is_correct(said, gold, "text"), said


def test_without_a_gold_answer_nothing_is_judged() -> None:
    assert read_answer("The answer is 5.", "").strict is None
    assert is_correct("5", "5", "") is None
    assert canonical_answer("1,234", "number") == "1234"
    assert canonical_answer("many", "number") is None


def test_every_chain_of_the_word_problems_reads_as_its_answer() -> None:
    for problem in make_problems(200, seed=3):
        reading = read_answer(problem.chain, "number")
        assert reading.strict_rule == "stated"
        assert is_correct(reading.strict, str(problem.answer), "number") is True
        unstated = problem.chain.split(" The answer")[0]
        assert read_answer(unstated, "number").strict == str(problem.answer)
