"""Kinds of error by the first step that differs from the right one."""

from __future__ import annotations

import pytest

from interpflow.tasks.answer_errors import equations_of, error_kind
from interpflow.tasks.arithmetic import is_correct, read_answer

RIGHT = " 5 * 3 = 15. 15 - 4 = 11. The answer is 11."


def kind_of(generated: str, chain: str | None = RIGHT, gold: str = "11") -> str:
    reading = read_answer(generated, "number")
    return error_kind(
        generated,
        lenient=reading.lenient,
        lenient_correct=bool(is_correct(reading.lenient, gold, "number")),
        right_chain=chain,
    )


@pytest.mark.parametrize(
    ("generated", "kind"),
    [
        (" 5 + 3 = 8. 8 - 4 = 4. The answer is 4.", "wrong operation"),
        (" 3 × 5 = 15. 15 - 3 = 12. The answer is 12.", "wrong operand"),
        (" 5 * 3 = 16. 16 - 4 = 12. The answer is 12.", "slip in arithmetic"),
        (" 5 * 3 = 15. The answer is 15.", "missing step"),
        (" 5 * 3 = 15. 15 - 4 = 11. 11 + 2 = 13. The answer is 13.", "extra step"),
        (" 5 * 3 = 15. 15 - 4 = 11. The answer is 12.", "steps right, answer wrong"),
        (" 4 - 15 = -11. The answer is -11.", "wrong operation"),
        ("", "no answer"),
        (" I do not know.", "no answer"),
        (" It is perhaps 11 or so", "right number, form not as declared"),
        (" It is perhaps 14 or so", "other"),
    ],
)
def test_the_first_difference_decides(generated: str, kind: str) -> None:
    assert kind_of(generated) == kind


def test_subtraction_knows_its_order_and_addition_does_not() -> None:
    assert kind_of(" 4 - 15 = 11. The answer is 10.", " 15 - 4 = 11.") == "wrong operand"
    assert kind_of(" 4 + 15 = 20. The answer is 20.", " 15 + 4 = 19.") == "slip in arithmetic"


def test_without_a_right_chain_the_kind_is_unknown() -> None:
    assert kind_of(" 5 + 3 = 8. The answer is 8.", None) == "other"


def test_equations_of_typed_numbers() -> None:
    found = equations_of("1,200 ÷ 4 = 300; 2.5*2=5 and 3 - −1 = 2")
    assert [(e.sign, e.result, e.holds) for e in found[:2]] == [("/", 300, True), ("*", 5, True)]
    assert not equations_of("no equation: 5 + 3, x = 4")
