"""Numbers in free text, as digits or words, each with the role it plays."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_UNIT_WORDS = "|".join(sorted(UNITS, key=len, reverse=True))
NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]]-)(?<![\w)\]])-|\bminus )?"
    r"(?:(?<![\w.])(?P<digits>\d{1,3}(?:,\d{3}){1,2}|\d{1,9})(?P<fraction>\.\d+)?"
    r"(?![A-Za-z0-9_²³¼½¾]|\.\d)"
    rf"|\b(?P<tens>{'|'.join(TENS)})(?:[- ](?P<unit>{_UNIT_WORDS}))?\b|\b(?P<word>{_UNIT_WORDS})\b"
    r"|\b(?P<single>a single)\b)",
    re.IGNORECASE,
)

BETWEEN_RANGE = re.compile(r"\s*(?:-|–|—|~|to|or|/?or)\s*", re.IGNORECASE)
ARITHMETIC = re.compile(r"\s*(?:\([^()]*\)\s*)?(?:\+|×|\*|plus|times)\s*", re.IGNORECASE)
# Words just before a number that give it another role than the count.
BEFORE = {
    "label": re.compile(r"\b(?:step|item|example|line|note|option|part|word)\s+#?$", re.I),
    "negated": re.compile(r"(?:\bnot|n't)\s+$", re.I),
    "bound": re.compile(
        r"\b(?:at least|at most|more than|fewer than|less than|up to|over|under|no less than"
        r"|(?:minimum|maximum)(?: of)?)\s+$",
        re.I,
    ),
    "denominator": re.compile(
        r"\b(?:out of|of the|of these|of those|of all|among|among the)\s+(?:the\s+|all\s+)?$"
        r"|(?:^|[.\n]\s*)of\s+$",
        re.I,
    ),
    "total": re.compile(r"\blist (?:has|contains|includes|consists of|of|with)\s+$", re.I),
    "rest": re.compile(r"\b(?:remaining|others?|rest of the):?\s+$", re.I),
}
AFTER = {
    "percent": re.compile(r"\s*(?:%|percent\b)", re.I),
    "bound": re.compile(r"\s+(?:at (?:most|least)|or (?:more|fewer|less))\b", re.I),
    "total": re.compile(
        r"\s+(?:words?|items?|entries|elements)"
        r"(?:\s+(?:in the list\b(?! that)|in total|altogether|listed)|,| and\b)",
        re.I,
    ),
    "rest": re.compile(
        r"\s+(?:\w+\s+)?(?:others?\b|remaining|non-|do not|don't|are not|aren't|that are not)", re.I
    ),
}
PRONOUN_ONE = re.compile(
    r"\b(?:this|that|the|each|every|which|any|another|first|last|second|third|other|no|some)\s+$",
    re.I,
)
ENUMERATOR = re.compile(r"^\s*\(?(\d+)[.)](?=\s+\S)", re.MULTILINE)
# Far enough for every form in BEFORE, and bounded, so that long texts stay cheap.
LOOK_BACK = 40


@dataclass(frozen=True)
class Mention:
    """A number at text[start:end]; `value` is None for a fraction; the role is "count" unless the
    words around it show another: enumerator, label, negated, bound, denominator, total, rest,
    percent, negative, fraction, range, term."""

    value: int | None
    start: int
    end: int
    role: str = "count"


def find_mentions(text: str) -> list[Mention]:
    """Every number of the text in order, with its role."""
    listed = _enumerators(text)
    found: list[Mention] = []
    for match in NUMBER.finditer(text):
        before = text[max(0, match.start() - LOOK_BACK) : match.start()]
        after = text[match.end() : match.end() + LOOK_BACK]
        word = (match["word"] or match["single"] or "").lower()
        if word == "one" and PRONOUN_ONE.search(before):
            continue
        if match["single"] and re.search(r"\bnot\s+$", before, re.I):
            continue
        if match.start("digits") in listed:
            role = "enumerator"
        else:
            role = next((name for name, form in BEFORE.items() if form.search(before)), "")
            role = role or next((name for name, form in AFTER.items() if form.match(after)), "")
        value = _value(match)
        if match["sign"] and value:
            role = "negative"
        elif value is None:
            role = role or "fraction"
        found.append(Mention(value, match.start(), match.end(), role or "count"))
    return _with_neighbours(text, found)


def _value(match: re.Match[str]) -> int | None:
    if match["digits"]:
        if match["fraction"] and match["fraction"].strip(".0"):
            return None
        return int(match["digits"].replace(",", ""))
    if match["tens"]:
        return TENS[match["tens"].lower()] + UNITS.get((match["unit"] or "").lower(), 0)
    return UNITS[match["word"].lower()] if match["word"] else 1


def _enumerators(text: str) -> set[int]:
    """Starts of the numbers 1, 2, … that open lines; a single one is no list."""
    matches = list(ENUMERATOR.finditer(text))
    run: list[int] = []
    for match in matches:
        if int(match[1]) == len(run) + 1:
            run.append(match.start(1))
    return set(run) if len(run) > 1 else set()


def _with_neighbours(text: str, mentions: list[Mention]) -> list[Mention]:
    """Roles that two numbers have together: a range, a fraction of a total, a sum."""
    result = list(mentions)
    for index in range(len(result) - 1):
        first, second = result[index], result[index + 1]
        gap = text[first.end : second.start]
        opened = (
            text[max(0, first.start - LOOK_BACK) : first.start]
            .rstrip()
            .lower()
            .endswith(("between", "from"))
        )
        if BETWEEN_RANGE.fullmatch(gap) or (opened and gap.strip().lower() in ("and", "to")):
            if first.value != second.value:
                result[index] = replace(first, role="range")
                result[index + 1] = replace(second, role="range")
        elif re.fullmatch(r"\s*(?:/|out of|of|of the)\s*", gap, re.I):
            result[index + 1] = replace(second, role="denominator")
        elif ARITHMETIC.fullmatch(gap):
            result[index] = replace(first, role="term")
            result[index + 1] = replace(second, role="term")
    return result
