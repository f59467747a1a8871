"""From a model's words to the count it states, or to the reason why it states none.

`parse_strict` reads the demanded form only. `parse_lenient` reads free text as a careful human
would, and rather returns nothing than guesses: a range, a bound, two different counts or a bare
enumeration have no value.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from itertools import islice

from interpflow.tasks.counting.numbers import NUMBER, Mention, find_mentions

# A new question begins: what follows answers something else, or repeats what was asked.
BLOCK = re.compile(
    r"(?:^|(?<=\s))(?:Count the number of|Type:|List:|Category:|Question:|Q:|How many of these"
    r"|Here are some words)"
)
THOUGHT = re.compile(r"<think>.*</think>", re.DOTALL)
MARKUP = re.compile(r"</?[A-Za-z]\w*>|<\|\w+\|>|\*\*|__|[`$]|\\[()\[\]]|[\ufe0f\u20e3]")
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
ANSWER_MARKER = re.compile(
    r"\banswer\b\"?[^.\n:=\d]{0,40}?(?:\bis\b|\bbe\b|[:=])|####|^A:", re.IGNORECASE | re.MULTILINE
)
CONCLUSION_MARKER = re.compile(
    r"\b(?:count|total|number|result|sum)\b\"?[^.\n:=\d]{0,60}?(?:\bis\b|\bare\b|\bof(?= \d)|[:=])"
    r"|→|->|=|\bequals\b|\b(?:that|which) makes\b"
    r"|\b(?:so|therefore|thus|hence)\b,? (?:there (?:is|are)|we have|it is|it's|that's|that is)",
    re.IGNORECASE,
)
# "fruits=3, animals=2": no equals sign of these introduces a result.
TALLY = re.compile(r"[^\W\d]\s*=\s*(\d+)\s*[,;\n]\s*[^\W\d]+\s*=\s*(?!\1\b)\d")
CORRECTION = re.compile(r"\b(?:wait|actually|correction|sorry|rather|instead|final|no),?\b", re.I)
DOUBT = re.compile(r"\b(?:or|maybe|perhaps|possibly|could|might|up to)\b|\?", re.I)
LEAD = re.compile(r"[\s:>(\[{\"'“=]*(?:(?:about|exactly|approximately|probably|only|just)\s+)?")
# No answer stands further behind its marker, and runaway outputs stay cheap to read.
CLAUSE_CHARACTERS = 400
MARKERS = 20
CLAUSE_END = re.compile(r"\n|[.!?](?=\s|$)")
ZERO = re.compile(
    r"\bnone\b|\bnot a single\b|(?:n't|\bnot) (?:\w+ )?any\b|^\W*no \w+\W*$"
    r"|\bnothing (?:match|in the list)"
    r"|\b(?:are|is|were|see|found|find|has|have|contains) no (?!other|more|idea|doubt|way)\w"
    r"|\bno (?:matching )?\w+ (?:in|match|matching|matches|are|is|of|from|that)\b",
    re.IGNORECASE,
)
# Roles that stand beside a count, and are one only where no other number is.
SECONDARY = ("total", "rest")


@dataclass(frozen=True)
class ParsedCount:
    """The stated count and how it was found, or None and why there is none.

    Reasons with a value: strict, boxed, answer, conclusion, number, zero_phrase. Without: empty,
    no_number, no_terminator, not_canonical, ambiguous, enumeration, negative, not_integer,
    unfinished.
    """

    value: int | None
    reason: str


def parse_strict(text: str, terminator: str) -> ParsedCount:
    """Read exactly an ASCII integer without leading zeros, then the terminator; spaces around the
    integer are allowed, anything may follow."""
    if not text.strip():
        return ParsedCount(None, "empty")
    match = re.match(r"\s*([0-9]{1,9})[ \t]*", text)
    if match is None:
        return ParsedCount(None, "no_number")
    if not text[match.end() :].startswith(terminator):
        return ParsedCount(None, "no_terminator")
    if match[1] != str(int(match[1])):
        return ParsedCount(None, "not_canonical")
    return ParsedCount(int(match[1]), "strict")


def parse_lenient(text: str) -> ParsedCount:
    """Read the count that free text states; see the module's docstring for what is refused."""
    if not text.strip():
        return ParsedCount(None, "empty")
    text = THOUGHT.sub(" ", text)
    if "<think>" in text:
        return ParsedCount(None, "unfinished")
    text = _this_question(_plain(text))
    boxed = BOXED.findall(text)
    if boxed:
        inside = _read_clause(boxed[-1])
        return inside if inside.value is None else replace(inside, reason="boxed")
    return (
        _after_markers(text, ANSWER_MARKER, "answer")
        or _bare_beginning(text)
        or _after_markers(text, CONCLUSION_MARKER, "conclusion")
        or _read_clause(text)
    )


def _bare_beginning(text: str) -> ParsedCount | None:
    """A number that is the whole first sentence or line: what follows is explanation."""
    first, *_ = find_mentions(text) or [None]
    lead = LEAD.match(text)
    if first is None or first.role != "count" or lead is None or lead.end() != first.start:
        return None
    bare = re.match(r"[)\]\"']*(?:[.!](?=\s|$)|\s*\n)", text[first.end :])
    explained = re.search(r"[^\W\d_]", text[first.end :])
    return ParsedCount(first.value, "number") if bare and explained else None


def _after_markers(text: str, marker: re.Pattern[str], reason: str) -> ParsedCount | None:
    """The count after the last marker that a number follows; None where no marker has one.

    Answers that differ are ambiguous unless the text corrects itself; a conclusion replaces the
    ones before it, as in a count aloud.
    """
    matches = list(marker.finditer(text))
    if TALLY.search(text):
        matches = [match for match in matches if match[0] != "="]
    direct = reason == "answer"
    clauses = (_clause_after(text, match.end()) for match in reversed(matches[-MARKERS:]))
    counted = (clause for clause in clauses if find_mentions(clause))
    read = [_read_clause(c, direct=direct) for c in islice(counted, MARKERS if direct else 1)]
    if not read:
        return None
    if len({item.value for item in read}) > 1 and not CORRECTION.search(text):
        return ParsedCount(None, "ambiguous")
    last = read[0]
    return last if last.value is None else replace(last, reason=reason)


def _plain(text: str) -> str:
    """ASCII digits, plain minus, no markup."""
    characters = []
    for character in MARKUP.sub("", text):
        decimal = unicodedata.decimal(character, None)
        if decimal is not None:
            characters.append(str(decimal))
        elif "①" <= character <= "⑳":
            characters.append(f" {int(unicodedata.numeric(character))} ")
        elif character in "−﹣－":
            characters.append("-")
        elif "！" <= character <= "～":
            characters.append(unicodedata.normalize("NFKC", character))
        else:
            characters.append(character)
    return "".join(characters)


def _this_question(text: str) -> str:
    """Cut what a model adds after its answer, and what it repeats of the question before it."""
    starts = [match.start() for match in BLOCK.finditer(text)]
    if not starts:
        return text
    if starts[0] > 0 and not text[: starts[0]].isspace():
        lead = LEAD.match(text)
        begins = lead is not None and NUMBER.match(text, lead.end())
        return text[: starts[0]] if begins or ANSWER_MARKER.match(text) else text
    segments = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)])]
    return next((segment for segment in segments if find_mentions(segment)), text)


def _clause_after(text: str, at: int) -> str:
    """From `at`, over line breaks, to the end of the clause that has begun
    or for CLAUSE_CHARACTERS."""
    rest = text[at : at + CLAUSE_CHARACTERS].lstrip()
    end = CLAUSE_END.search(rest)
    return rest[: end.start()] if end else rest


def _read_clause(text: str, *, direct: bool = False) -> ParsedCount:
    """The one count in a piece of text. `direct`: a number at its beginning is the answer,
    whatever reasons follow, unless another number qualifies it."""
    mentions = find_mentions(text)
    if not mentions:
        return (
            ParsedCount(0, "zero_phrase") if ZERO.search(text) else ParsedCount(None, "no_number")
        )
    counts = [mention for mention in mentions if mention.role == "count"]
    if direct and counts and _is_direct(text, mentions):
        return ParsedCount(mentions[0].value, "number")
    if not counts:
        counts = [mention for mention in mentions if mention.role in SECONDARY]
    if not counts:
        return ParsedCount(None, _why_none({mention.role for mention in mentions}))
    if any(mention.role in ("range", "negative", "fraction", "term") for mention in mentions):
        return ParsedCount(None, "ambiguous")
    values = [mention.value for mention in counts]
    if len(set(values)) == 1 and not _one_of_each(text, counts):
        return ParsedCount(values[0], "number")
    if values == list(range(1, len(values) + 1)):
        return ParsedCount(None, "enumeration")
    closing = _closing_number(text)
    return ParsedCount(closing, "ambiguous" if closing is None else "number")


def _is_direct(text: str, mentions: list[Mention]) -> bool:
    first = mentions[0]
    lead = LEAD.match(text)
    if first.role != "count" or lead is None or lead.end() != first.start:
        return False
    if len(mentions) == 1:
        return True
    gap = text[first.end : mentions[1].start]
    return bool(re.search(r"[^\W\d_]", gap)) and not DOUBT.search(gap)


def _one_of_each(text: str, counts: list[Mention]) -> bool:
    """Whether "1 apple, 1 pear" lists things one by one, so that no count is stated."""
    nouns = {
        match[0].lower()
        for mention in counts
        if mention.value == 1 and (match := re.match(r"\s+[^\W\d_]+", text[mention.end :]))
    }
    return len(nouns) > 1


def _closing_number(text: str) -> int | None:
    """A number that stands alone on the last line, or in parentheses at the end."""
    *before, last = text.strip().splitlines()
    alone = re.fullmatch(r"\s*\(?(\d+)\)?[.)]*", last)
    if alone and re.search(r"[^\W\d_]", "".join(before)):
        return int(alone[1])
    closed = re.search(r"[.:,;\w]\s*\((\d+)\)[.)]*\s*$", last)
    return int(closed[1]) if closed else None


def _why_none(roles: set[str]) -> str:
    if roles & {"range", "bound", "term"}:
        return "ambiguous"
    for role, reason in (
        ("negative", "negative"),
        ("fraction", "not_integer"),
        ("enumerator", "enumeration"),
    ):
        if role in roles:
            return reason
    return "no_number"
