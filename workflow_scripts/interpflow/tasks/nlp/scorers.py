"""What answers a prompt within generated text, and whether it is right."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from interpflow.tasks.counting.numbers import TENS, UNITS
from interpflow.tasks.nlp.builtin import end_of
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.typed_numbers import find_numbers, plain_text

EDGES = " \t\n.,;:!?*_`\"'“”‘’()[]{}<>"
# Words of numbers below a thousand: longer ones are written in digits.
_UNIT = "|".join(sorted(UNITS, key=len, reverse=True))
_TENS = "|".join(TENS)
_BELOW_HUNDRED = rf"(?:(?:{_TENS})(?:[- ](?:{_UNIT}))?|{_UNIT})"
SPELLED = re.compile(
    rf"\b(?:(?P<hundreds>{_UNIT}|a)\s+hundred(?:\s+and)?\s*)?(?P<rest>{_BELOW_HUNDRED})?\b",
    re.IGNORECASE,
)

MINUS = re.compile(r"\b(?:minus|negative)\s+\Z", re.IGNORECASE)


def read_answer(item: TaskItem, text: str) -> str:
    """The answer that a continuation of the prompt states, without outer spaces; "" for none.

    What stands before a line break and what ends answers of the task; of it, for words, as many
    words as the reference answer has; for numbers, the first number as it is written; for
    patterns, what matches, else all; for free answers all.
    """
    stated = stated_part(item, text)
    if item.scorer == "number":
        found = first_number(stated)
        return stated[found[0] : found[1]].strip() if found else ""
    if item.scorer == "regex":
        match = re.match(item.pattern, stated)
        return (match[0] if match else stated).strip()
    if item.scorer == "free":
        return stated
    return first_words(stated, len(item.answer.split()))


def is_correct(item: TaskItem, text: str) -> bool | None:
    """Whether a continuation of the prompt begins with a right answer; None where a judge decides.

    exact and set: its first words are those of an accepted answer, but for capitals and the
    punctuation around them. number: the first number in it has the value of an accepted one,
    whether in digits or words. regex: the pattern matches from its first character on.
    """
    if item.scorer == "free":
        return None
    stated = stated_part(item, text)
    accepted = item.accepted or (item.answer.strip(),)
    if item.scorer == "number":
        found = first_number(stated)
        return found is not None and any(found[2] == number_of(each) for each in accepted)
    if item.scorer == "regex":
        return re.match(item.pattern, stated) is not None
    return any(
        _normal(first_words(stated, len(each.split()))) == _normal(each) for each in accepted
    )


def stated_part(item: TaskItem, text: str) -> str:
    """The text up to a line break, or to the mark that ends the task's answers before a space."""
    stated = text.lstrip(" \t").split("\n", 1)[0]
    mark = end_of(item.task).strip()
    if mark and item.scorer != "free":
        stated = re.split(rf"{re.escape(mark)}(?=\s|$)", stated, maxsplit=1)[0]
    return stated.rstrip()


def first_words(text: str, n: int) -> str:
    """The first `n` words as they are spaced."""
    found = re.match(r"\S+(?:\s+\S+)" + f"{{0,{max(n, 1) - 1}}}", text)
    return found[0] if found else ""


def number_of(text: str) -> Fraction | None:
    """The first number of a text."""
    found = first_number(text)
    return found[2] if found else None


def first_number(text: str) -> tuple[int, int, Fraction] | None:
    """Start, end and value of the first number, in digits or in words below a thousand.

    None also where the text would have to be rewritten to be read, as with LaTeX around numbers.
    """
    plain = plain_text(text)
    digits = find_numbers(plain) if len(plain) == len(text) else []
    spelled = next(
        (match for match in SPELLED.finditer(plain) if match["hundreds"] or match["rest"]), None
    )
    if spelled and (not digits or spelled.start() < digits[0].start):
        start, end, value = spelled.start(), spelled.end(), _spelled_value(spelled)
        sign = MINUS.search(plain, 0, start)
        if sign:
            start, value = sign.start(), -value
        return start, len(text[:end].rstrip()), value
    return (digits[0].start, digits[0].end, digits[0].value) if digits else None


def _spelled_value(match: re.Match[str]) -> Fraction:
    hundreds, rest = (match["hundreds"] or "").lower(), (match["rest"] or "").lower()
    value = 100 * UNITS.get(hundreds, 1) if hundreds else 0
    return Fraction(
        value + sum(TENS.get(word, UNITS.get(word, 0)) for word in re.split("[- ]", rest))
    )


def _normal(text: str) -> str:
    """The form that words are compared in; of text that is all punctuation, itself."""
    # An accent of its own and a letter that has it are the same text.
    folded = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return folded.strip(EDGES) or folded
