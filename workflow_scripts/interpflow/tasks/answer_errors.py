"""What a wrong answer to an arithmetic question gets wrong, by its equations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from interpflow.tasks.typed_numbers import parse_number, plain_text

NO_ANSWER = "no answer"
FORMAT = "right number, form not as declared"
OPERATION = "wrong operation"
OPERAND = "wrong operand"
SLIP = "slip in arithmetic"
MISSING_STEP = "missing step"
EXTRA_STEP = "extra step"
CONCLUSION = "steps right, answer wrong"
OTHER = "other"
ERROR_KINDS = (
    NO_ANSWER, FORMAT, OPERATION, OPERAND, SLIP, MISSING_STEP, EXTRA_STEP, CONCLUSION, OTHER,
)  # fmt: skip
_NUMBER = r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?"
_EQUATION = re.compile(rf"({_NUMBER})\s*([-+*/×÷])\s*(-?\d[\d,]*(?:\.\d+)?)\s*=\s*({_NUMBER})")
_ONE_SIGN = {"×": "*", "÷": "/"}
_COMMUTES = "+*"


@dataclass(frozen=True)
class Equation:
    """left sign right = result, as stated, right or not; signs are + - * /."""

    left: Fraction
    sign: str
    right: Fraction
    result: Fraction

    @property
    def holds(self) -> bool:
        if self.sign == "/":
            return self.right != 0 and self.left / self.right == self.result
        found = {
            "+": self.left + self.right,
            "-": self.left - self.right,
            "*": self.left * self.right,
        }
        return found[self.sign] == self.result

    @property
    def operands(self) -> tuple[Fraction, ...]:
        """Both operands; in order of size where their order does not matter."""
        both = (self.left, self.right)
        return tuple(sorted(both)) if self.sign in _COMMUTES else both


def equations_of(text: str) -> tuple[Equation, ...]:
    """The equations of one operation that a text states, in order."""
    found = []
    for match in _EQUATION.finditer(plain_text(text)):
        left, right, result = (parse_number(match[i]) for i in (1, 3, 4))
        if left is not None and right is not None and result is not None:
            sign = _ONE_SIGN.get(match[2], match[2])
            found.append(Equation(left, sign, right, result))
    return tuple(found)


# One question has many variants.
_right_steps = lru_cache(maxsize=4096)(equations_of)


def error_kind(
    generated: str, *, lenient: str | None, lenient_correct: bool, right_chain: str | None
) -> str:
    """One of `ERROR_KINDS`, for an answer that is not right by the strict reading.

    `lenient`, `lenient_correct`: the lenient reading and whether it is right. `right_chain`: the
    right continuation, whose equations are the right steps; without any, what cannot be told apart
    is "other". The first step that differs decides: another sign, other operands, or another
    result of the right ones. In later steps, operands that follow from an earlier slip are not
    wrong operands, as only the first difference counts.
    """
    if lenient is None:
        return NO_ANSWER
    if lenient_correct:
        return FORMAT
    right = _right_steps(right_chain) if right_chain else ()
    stated = equations_of(generated)
    if not right or not stated:
        return OTHER
    for ours, theirs in zip(stated, right, strict=False):
        kind = _difference(ours, theirs)
        if kind:
            return kind
    if len(stated) < len(right):
        return MISSING_STEP
    return EXTRA_STEP if len(stated) > len(right) else CONCLUSION


def _difference(stated: Equation, right: Equation) -> str:
    if stated.sign != right.sign:
        return OPERATION
    if stated.operands != right.operands:
        return OPERAND
    return "" if stated.result == right.result else SLIP
