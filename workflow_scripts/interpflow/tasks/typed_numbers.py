"""Numbers as people and models type them, read exactly.

Signs (also typographic ones), decimals, fractions, mixed numbers, powers of ten, and thousands set
off by commas or spaces. Currency and percent signs are units: "$5" and "5 %" both read 5.
What has two readings has none: "3,5" may be a decimal or a list.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

# Longer ones are noise, and would cost quadratic time.
MAX_DIGITS = 100
MAX_EXPONENT = 100
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
MINUS_SIGNS = "−﹣－‐‑‒–"
CURRENCY = "$€£¥₹"
SPACES = " \u00a0\u2009\u202f"
# Possessive quantifiers: a number is taken whole or not at all.
DECIMAL = rf"""(?<!\w)(?<!\d[.,:])(?:[{CURRENCY}][{SPACES}]?)?
    (?P<whole>\d{{1,3}}(?:,\d{{3}})++(?!\d) | \d{{1,3}}(?:[{SPACES}]\d{{3}})++(?!\d) | \d++
    | (?=\.\d))
    (?P<decimals>\.\d++)?
    (?P<exponent>[eE][+-]?\d{{1,4}}+(?!\w))?"""
BEHIND = r"(?![,.:]\d)(?!(?:st|nd|rd|th)\b)"
UNSIGNED = re.compile(DECIMAL + BEHIND, re.VERBOSE)
NUMBER = re.compile(
    rf"""(?<!\d/){DECIMAL}
    (?:(?P<mixed>[{SPACES}]\d++)?/(?P<denominator>\d++))?
    {BEHIND}(?!/\d)(?:[{SPACES}]?[%{CURRENCY}])?""",
    re.VERBOSE,
)
# Behind a number or a closing bracket, with or without a space, a sign is an operator.
SIGN = re.compile(rf"(?<![\w)\]}}%])(?<![\d)\]}}%][{SPACES}])([+-])$")


@dataclass(frozen=True)
class TypedNumber:
    """A number of the characters [start, end) of a plain text, its sign and unit among them."""

    start: int
    end: int
    value: Fraction


def plain_text(text: str) -> str:
    """ASCII digits, signs and operators; nothing invisible, no LaTeX around numbers."""
    text = re.sub(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text)
    text = text.replace("{,}", ",").replace("\\$", "$").replace("\\%", "%")
    text = re.sub(r"(?<=\d)\\[,;!:](?=\d{3})", " ", text)
    text = text.replace("\\times", "×").replace("\\cdot", "×").replace("\\div", "÷")
    text = text.translate(INVISIBLE)
    if text.isascii():
        return text
    characters: list[str] = []
    for character in text:
        decimal = unicodedata.decimal(character, None)
        if character in MINUS_SIGNS:
            characters.append("-")
        elif decimal is not None:
            characters.append(str(decimal))
        elif unicodedata.decomposition(character).startswith("<fraction>"):
            spelled = unicodedata.normalize("NFKC", character).replace("\u2044", "/")
            follows = characters and characters[-1].isdigit()
            characters.append(f" {spelled}" if follows else spelled)
        elif "！" <= character <= "～":
            characters.append(unicodedata.normalize("NFKC", character))
        else:
            characters.append(character)
    return "".join(characters)


def operand_at(text: str, at: int) -> TypedNumber | None:
    """The number that begins at a character of a plain text, without sign, fraction or percent:
    an operand of an expression."""
    match = UNSIGNED.match(text, at)
    value = _value(match) if match else None
    return None if match is None or value is None else TypedNumber(at, match.end(), value)


def find_numbers(text: str) -> list[TypedNumber]:
    """Every number of a plain text in order. A sign behind a number or a closing bracket is an
    operator: "12-7" holds 12 and 7."""
    found: list[TypedNumber] = []
    for match in NUMBER.finditer(text):
        value = _value(match)
        if value is None:
            continue
        start = match.start()
        sign = SIGN.search(text, 0, start) if start and text[start - 1] in "+-" else None
        if sign:
            start, value = sign.start(), -value if sign[1] == "-" else value
        found.append(TypedNumber(start, match.end(), value))
    return found


def parse_number(text: str) -> Fraction | None:
    """The number that is the whole text, spaces and a final full stop apart; else None."""
    plain = plain_text(text).strip().removesuffix(".").rstrip()
    found = find_numbers(plain)
    whole = len(found) == 1 and (found[0].start, found[0].end) == (0, len(plain))
    return found[0].value if whole else None


def canonical(value: Fraction) -> str:
    """The one way a number is written in tables: "-3", "7/2", and "1/2" for 0.5."""
    return str(value)


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > MAX_DIGITS:
        return None
    whole = re.sub(rf"[,{SPACES}]", "", match["whole"]) or "0"
    value = Fraction(whole + (match["decimals"] or ""))
    if match["exponent"]:
        power = int(match["exponent"][1:])
        if abs(power) > MAX_EXPONENT:
            return None
        value *= Fraction(10) ** power
    if "denominator" in match.re.groupindex and match["denominator"]:
        below = int(match["denominator"])
        if below == 0 or match["decimals"] or match["exponent"]:
            return None
        if match["mixed"]:
            return value + Fraction(int(match["mixed"]), below)
        return value / below
    return value
