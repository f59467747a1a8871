"""The one arithmetic expression that a text asks to be worked out, evaluated exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from interpflow.tasks.typed_numbers import operand_at, plain_text

OPERATORS = {"+": "+", "-": "-", "*": "*", "/": "/"}
OPERATORS |= dict.fromkeys("×✕✖·⋅∙∗", "*") | dict.fromkeys("÷∕⁄", "/")
# Next to one of these, what looks like an expression is part of something else.
UNREAD = "^%!√²³_\\"
MAX_TOKENS = 400
MAX_DEPTH = 50
DATE = re.compile(r"\b(?:\d{4}([/.-])\d\d?\1\d\d?|\d\d?([/.-])\d\d?\2\d{4})\b")
# "5-10 sentences", "1/2 cup": a range and a measure, not a task.
TIGHT = re.compile(r"(\d+)([-/])(\d+)(?=\s+[A-Za-z])")


class _NotAnExpressionError(ValueError):
    pass


def evaluate_expression(text: str) -> Fraction | None:
    """The value of the only arithmetic expression in a text: + - * / × ÷, parentheses, signs.

    None where there is none or more than one, where one is incomplete, stands beside a power,
    percent sign or variable, or divides by zero; also for dates and ranges ("5-10 sentences").
    """
    plain = DATE.sub(" date ", plain_text(text))
    plain = TIGHT.sub(_without_range, plain)
    values: list[Fraction] = []
    for tokens in _runs(plain):
        if tokens is None:
            return None
        binary = sum(isinstance(token, Fraction) for token in tokens) > 1
        if not binary and not any(token in tuple("+-*/") for token in tokens[1:]):
            continue
        if len(tokens) > MAX_TOKENS or values:
            return None
        try:
            values.append(_Parser(tokens).value())
        except (_NotAnExpressionError, ZeroDivisionError):
            return None
    return values[0] if values else None


def _without_range(match: re.Match[str]) -> str:
    low, sign, high = int(match[1][:18]), match[2], int(match[3][:18])
    return match[0] if sign == "-" and low >= high else "range"


def _runs(text: str) -> list[list[Fraction | str] | None]:
    """Stretches of numbers, operators and parentheses; None for one that cannot be read."""
    runs: list[list[Fraction | str] | None] = []
    tokens: list[Fraction | str] = []
    start = at = 0

    def close(end: int) -> None:
        if any(isinstance(token, Fraction) for token in tokens):
            runs.append(_trimmed(list(tokens), text, start, end))
        tokens.clear()

    while at < len(text):
        character = text[at]
        number = operand_at(text, at)
        times = character in "xX" and re.match(r"[xX]\s*[\d(]", text[at:]) and tokens
        if not tokens:
            start = at
        if number is not None:
            tokens.append(number.value)
            at = number.end
            continue
        if character.isspace() and character != "\n":
            at += 1
            continue
        if character in OPERATORS or (times and (at == 0 or not text[at - 1].isalpha())):
            tokens.append(OPERATORS.get(character, "*"))
        elif character in "()":
            tokens.append(character)
        else:
            close(at)
        at += 1
    close(len(text))
    return runs


def _trimmed(
    tokens: list[Fraction | str], text: str, start: int, end: int
) -> list[Fraction | str] | None:
    """A run without the parentheses of the sentence around it; None where it cannot be read."""
    inner = text[start:end].strip()
    before, after = text[:start].rstrip(), text[end:].lstrip()
    calculates = sum(isinstance(token, Fraction) for token in tokens) > 1
    if (before[-1:] and before[-1] in UNREAD) or (after[:1] and after[0] in UNREAD):
        return None if calculates or tokens[-1] in OPERATORS or tokens[0] in OPERATORS else tokens
    # "x - 5 + 3": an operator after a word and before a space has lost its left side.
    if inner[:1] in OPERATORS and inner[1:2].isspace() and calculates:
        return None
    depth = lowest = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        lowest = min(lowest, depth)
    for _ in range(-lowest):  # closed here, opened in the words before: "(namely 5 + 3)", "a) 5"
        if tokens[0] == ")":
            tokens = tokens[1:]
        elif tokens[-1] == ")" and "(" in text[:start]:
            tokens = tokens[:-1]
        else:
            return None
    for _ in range(depth - lowest):
        if tokens[0] != "(" or ")" not in text[end:]:
            return None
        tokens = tokens[1:]
    return tokens


class _Parser:
    """Recursive descent over sum, product, signed and bracketed terms."""

    def __init__(self, tokens: list[Fraction | str]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    def value(self) -> Fraction:
        value = self._sum()
        if self.at < len(self.tokens):
            raise _NotAnExpressionError
        return value

    def _next(self) -> Fraction | str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _sum(self) -> Fraction:
        value = self._product()
        while (operator := self._next()) in ("+", "-"):
            self.at += 1
            right = self._product()
            value = value + right if operator == "+" else value - right
        return value

    def _product(self) -> Fraction:
        value = self._term()
        while (operator := self._next()) in ("*", "/"):
            self.at += 1
            right = self._term()
            value = value * right if operator == "*" else value / right
        return value

    def _term(self) -> Fraction:
        token = self._next()
        self.at += 1
        self.depth += 1
        if token is None or self.depth > MAX_DEPTH:
            raise _NotAnExpressionError
        if token in ("+", "-"):
            value = self._term() if token == "+" else -self._term()
        elif token == "(":
            value = self._sum()
            if self._next() != ")":
                raise _NotAnExpressionError
            self.at += 1
        elif isinstance(token, Fraction):
            value = token
        else:
            raise _NotAnExpressionError
        self.depth -= 1
        return value
