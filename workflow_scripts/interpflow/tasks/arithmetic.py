"""Reading the answer to an arithmetic question from a model's own words, and judging it.

Only what the model generated is read: with the prompt in front, its numbers would be found. Two
readings are made. The strict one takes an answer that is stated in a declared form; what comes
after the first such statement (a further exercise, a year) does not change it. The lenient one
also takes a number from free text, the last of the sentence that states a result.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from interpflow.tasks.expressions import evaluate_expression
from interpflow.tasks.typed_numbers import (
    TypedNumber,
    canonical,
    find_numbers,
    parse_number,
    plain_text,
)

__all__ = ["Reading", "canonical_answer", "evaluate_expression", "is_correct", "read_answer"]

# A decimal stands for a gold number that no decimal can state (1/3) from this many places on.
LEAST_PLACES = 2
# No statement is longer, and runaway outputs stay cheap to read.
READ_CHARACTERS = 4000
# The model goes on to something else that it was not asked.
NEXT_EXERCISE = re.compile(
    r"(?:^|(?<=\s))(?:Question\b|Q\s*\d*\s*:|(?:Exercise|Problem|Task|Example)\s*(?:\d+\s*)?:"
    r"|(?:Next|Another|New) (?:question|exercise|problem|task)\b|Human:|User:"
    r"|(?:How (?:many|much)|What is)\b[^.\n]*\?)"
)
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
MARKUP = re.compile(r"\*\*|__|`|\\[()\[\]]|\\text\s*(?=\{)|</?[A-Za-z]\w*>|<\|\w+\|>")
STATED = re.compile(
    r"\banswer\b(?:\s+(?:to|of|for)\b[^.\n:=\d]{0,60})?\s*"
    r"(?:\bis\b|\b(?:would|should|must|will) be\b|[:=])\s*:?\s*"
    r"|####\s*",
    re.IGNORECASE,
)
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|sorry|mistake|rather|instead|let me (?:re|check))\w*\b", re.I
)
LEAD = re.compile(
    r"[\s:=≈(\[{\"'“$]*(?:[A-Za-z]\s*=\s*)?(?:(?:exactly|about|approximately|just)\s+)?(?:\\boxed\s*\{)?\s*"
)
# A sign that stands apart from its number, or is spelled; elsewhere a dash before a blank subtracts
# or begins a line of a list.
SPACED_SIGN = re.compile(
    r"((?:[=≈:(]|\b(?:is|equals))[^\S\n]*+|^\s*+(?=[a-z]))(?:-[^\S\n]+|(?:minus|negative)[^\S\n]+)"
    r"(?=[$€£]?\d)",
    re.IGNORECASE,
)
EQUALS = re.compile(r"(?<![<>!=:])=(?!=)|≈|≅")
SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
RESULT = re.compile(
    r"[=≈]|\b(?:is|are|was|were|be|makes?|equals?|gives|leaves|total|left|remain\w*|altogether"
    r"|has|have|gets?|becomes|so|therefore|thus|hence|result|sum|difference|product)\b",
    re.IGNORECASE,
)
CHECK = re.compile(r"\b(?:check|verif\w+|indeed|because|since|as)\b", re.IGNORECASE)
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
OPTION = re.compile(r"\(?([A-Za-z])\)\s+(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """The answer as each reading finds it, and the rule that found it or why none did.

    Numbers are written in one way ("-3", "7/2"), texts as generated. Rules with a value: boxed,
    stated, equation, alone, and for the lenient reading also sentence, last. Without: empty,
    no_number, no_form (there is a number, but in no declared form), no_gold.
    """

    strict: str | None
    strict_rule: str
    lenient: str | None
    lenient_rule: str


def read_answer(generated: str, gold_kind: str) -> Reading:
    """Both readings of a generated text (without its prompt), for gold answers of a kind: number,
    text, or "" for questions without a gold answer."""
    if not gold_kind:
        return Reading(None, "no_gold", None, "no_gold")
    text = _this_exercise(THOUGHT.sub(" ", generated))
    if not text.strip():
        return Reading(None, "empty", None, "empty")
    if gold_kind == "text":
        return _read_text(text)
    text = SPACED_SIGN.sub(r"\1-", plain_text(MARKUP.sub("", text)))
    strict = _first_statement(text) or _equation(text)
    if strict is not None:
        value, rule = strict
        return Reading(canonical(value), rule, canonical(value), rule)
    numbers = find_numbers(text)
    if not numbers:
        return Reading(None, "no_number", None, "no_number")
    value, rule = _free_number(text, numbers)
    return Reading(None, "no_form", canonical(value), rule)


def canonical_answer(gold: str, gold_kind: str) -> str | None:
    """A gold answer as tables hold it: a number in its one form, None where it is none; a text
    with its spaces in order."""
    if gold_kind == "number":
        value = parse_number(gold)
        return None if value is None else canonical(value)
    return " ".join(gold.split()) or None


def is_correct(value: str | None, gold: str | None, gold_kind: str) -> bool | None:
    """Whether a reading's value is the gold answer; None where there is no gold answer.

    Numbers must be equal exactly. Only where the gold number has no finite decimal form, a decimal
    of at least two places counts that is less than one unit of its last place away: 0.33 and
    0.333 for 1/3, not 0.3. Texts must be equal but for case, punctuation, articles and spaces; of
    an option ("B) whale") its letter or its text alone will do. Nothing read is wrong.
    """
    if gold is None or not gold_kind:
        return None
    if gold_kind == "text":
        return value is not None and _normalised(value) in _forms(gold)
    truth = parse_number(gold)
    if truth is None:
        return None
    stated = parse_number(value) if value is not None else None
    if stated is None or stated == truth:
        return stated is not None
    places = _places(stated)
    if _places(truth) is not None or places is None or places < LEAST_PLACES:
        return False
    return abs(stated - truth) < Fraction(1, 10**places)


def _this_exercise(text: str) -> str:
    """The text up to where the model asks itself the next question, shortened if it runs away."""
    text = text[:READ_CHARACTERS]
    for match in NEXT_EXERCISE.finditer(text):
        if text[: match.start()].strip():
            return text[: match.start()]
    return text


def _first_statement(text: str) -> tuple[Fraction, str] | None:
    """The first answer stated as such: a number alone at the beginning, "The answer is N", a box.

    One that the text itself takes back gives way to the statement after it.
    """
    stated: list[tuple[int, Fraction, str]] = []
    alone = _alone_at_start(text)
    if alone is not None:
        stated.append((alone.end, alone.value, "alone"))
    for match in STATED.finditer(text):
        number = _number_at(text, match.end())
        if number is not None:
            stated.append((number.end, number.value, "stated"))
    for match in BOXED.finditer(text):
        value = parse_number(_last_side(match[1]))
        if value is not None:
            stated.append((match.end(), value, "boxed"))
    if not stated:
        return None
    stated.sort(key=lambda item: item[0])
    end, value, rule = stated[0]
    for later_end, later, later_rule in stated[1:]:
        if CORRECTION.search(text, end, later_end):
            end, value, rule = later_end, later, later_rule
    return value, rule


def _alone_at_start(text: str) -> TypedNumber | None:
    """A number that is the whole first line or sentence; "1. First …" begins a list instead."""
    first = next(iter(find_numbers(text)), None)
    if first is None or text[: first.start].strip(" \t\n$(\"'"):
        return None
    rest = text[first.end :]
    end = re.match(r"[)\"'$]*[ \t]*(?:\.[ \t]*(?=\n|$)|\n|$|[.!](?=\s))", rest)
    if end is None:
        return None
    listed = first.value == 1 and rest.startswith(".") and rest[1:].strip()
    return None if listed else first


def _number_at(text: str, at: int) -> TypedNumber | None:
    """The number that a statement names: the first thing behind it, or the end of the equation
    that is ("the answer is 12 + 7 = 19")."""
    lead = LEAD.match(text, at)
    start = lead.end() if lead else at
    end = SENTENCE_END.search(text, start)
    clause = text[start : end.start() if end else len(text)]
    found = find_numbers(clause)
    if not found or found[0].start > 0:
        return None
    chosen = found[0]
    follows = clause[chosen.end :].lstrip()
    if follows[:1] and follows[0] in "+-*/×÷=":
        sides = list(EQUALS.finditer(clause))
        last = next((n for n in found if sides and n.start >= sides[-1].end()), None)
        if last is None:
            return None
        chosen = last
    return TypedNumber(start + chosen.start, start + chosen.end, chosen.value)


def _equation(text: str) -> tuple[Fraction, str] | None:
    """The result of the last equation of the chain that begins with the first one.

    An equation belongs to the chain when it uses a result of the chain. One that uses none may be
    of another exercise: "12 + 7 = 19. 8 + 2 = 10." Checks ("indeed 19 - 7 = 12") do not count.
    """
    chain: set[Fraction] = set()
    last: Fraction | None = None
    for clause in _clauses(text):
        sides = EQUALS.split(clause)
        result = _result(sides) if len(sides) > 1 and not CHECK.search(clause) else None
        if result is None:
            continue
        used = {number.value for number in find_numbers(" ".join(sides[:-1]))}
        if last is None or used & chain:
            last = result
            chain.add(result)
    return None if last is None else (last, "equation")


def _result(sides: list[str]) -> Fraction | None:
    """The number on the last side that states one rather than a calculation."""
    for side in reversed(sides[1:]):
        found = find_numbers(side)
        lead = LEAD.match(side)
        if not found or lead is None or found[0].start > lead.end():
            continue
        follows = side[found[0].end :].lstrip()
        if not (follows[:1] and follows[0] in "+-*/×÷("):
            return found[0].value
    return None


def _clauses(text: str) -> list[str]:
    return re.split(r"\n|[.!?;](?=\s|$)|,(?=\s)", text)


def _free_number(text: str, numbers: list[TypedNumber]) -> tuple[Fraction, str]:
    """The last number of the first sentence that states a result, else the last of the text."""
    for sentence in re.split(r"\n|[.!?](?=\s|$)", text):
        found = find_numbers(sentence)
        if found and RESULT.search(sentence):
            return found[-1].value, "sentence"
    return numbers[-1].value, "last"


def _last_side(boxed: str) -> str:
    """What a box says: its last side, without the words of a unit."""
    side = re.sub(r"\{([^{}]*)\}", r" \1", EQUALS.split(boxed)[-1])
    return re.sub(r"\s*[A-Za-z][A-Za-z ]*$", "", side).strip("$ ")


def _read_text(text: str) -> Reading:
    boxed, stated = BOXED.search(text), STATED.search(text)
    text = MARKUP.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if boxed:
        found, rule = boxed[1], "boxed"
    elif stated:
        stated = STATED.search(text) or stated
        found, rule = re.split(r"\n|[.!?](?=\s|$)", text[stated.end() :])[0], "stated"
    elif len(lines) == 1:
        found, rule = lines[0], "alone"
    else:
        return Reading(None, "no_form", lines[0], "sentence")
    found = " ".join(found.split()).strip("\"'“”")
    if not found:
        return Reading(None, "no_form", lines[0], "sentence")
    return Reading(found, rule, found, rule)


def _forms(gold: str) -> set[str]:
    """A gold text as it may be stated, normalised."""
    option = OPTION.fullmatch(gold.strip())
    if option is None:
        return {_normalised(gold)}
    letter, text = option[1].casefold(), _normalised(option[2])
    return {letter, text, f"{letter} {text}"}


def _normalised(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[^\w\s]", " ", folded)
    forms = ARTICLES.sub(" ", words), words, folded
    return next((form for each in forms if (form := " ".join(each.split()))), "")


def _places(value: Fraction) -> int | None:
    """Decimal places that state a number exactly; None where no number of them does."""
    denominator, places = value.denominator, 0
    for factor in (2, 5):
        count = 0
        while denominator % factor == 0:
            denominator //= factor
            count += 1
        places = max(places, count)
    return places if denominator == 1 else None
