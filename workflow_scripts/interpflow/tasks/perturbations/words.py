"""The words of a text, and which of them must stay: numbers, operators, negations, protected."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from interpflow.tasks.perturbations.text import Placement, SourceText, Span

MIN_WORD_LETTERS = 4  # a shorter word is easily turned into another word
# fmt: off
NUMBER_WORDS = frozenset(
    {
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
        "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
        "hundred", "thousand", "half", "twice", "double", "triple", "dozen",
    }
)
# Beside those that problems are made with, what else says how many.
QUANTITIES = NUMBER_WORDS | {
    "million", "billion", "hundreds", "thousands", "millions", "dozens", "halves", "third",
    "thirds", "quarter", "quarters", "thrice", "quadruple",
}
NEGATIONS = frozenset(
    {
        "no", "not", "never", "none", "nobody", "nothing", "nor", "neither", "nowhere", "without",
        "cannot", "cant", "dont", "doesnt", "isnt", "arent", "wasnt", "wont", "except", "unless",
    }
)
# fmt: on
_DIGITS = r"[^\W_]*\d(?:[^\W_]|[.,](?=\d))*"  # 12, 3.5, 1,000, also 3rd and x2
_LETTERS = r"[^\W\d_]+(?:['’][^\W\d_]+)*"
TOKEN = re.compile(rf"({_DIGITS})|({_LETTERS})")
OPERATORS_OF_ARITHMETIC = re.compile(r"[-+*/=×÷−^%<>≤≥√]")
# fmt: off
_COUNTED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on
_NUMBER_VALUES = {word: str(value) for value, word in enumerate(_COUNTED)} | {
    word: str(10 * value) for value, word in enumerate(_TENS, 3)
}


@dataclass(frozen=True)
class Word:
    """One word at characters [start, end); a number only where protected words may be edited."""

    text: str
    start: int
    end: int
    editable: bool
    is_main: bool
    is_other: bool

    @property
    def span(self) -> Span:
        return self.start, self.end

    @property
    def is_long(self) -> bool:
        """Long enough to be edited before others; every number is."""
        return len(self.text) >= MIN_WORD_LETTERS or self.text[0].isdigit()

    def stands_at(self, placement: Placement) -> bool:
        return placement == "any" or (self.is_main if placement == "main" else self.is_other)


@dataclass(frozen=True)
class TextWords:
    """All words of a text in order, and the words that no edit may produce (lower case)."""

    text: str
    words: tuple[Word, ...]
    guarded: frozenset[str]
    edit_protected: bool

    def gap(self, index: int) -> str:
        """What stands between a word and the next one, or the end of the text."""
        last = index + 1 == len(self.words)
        return self.text[self.words[index].end : None if last else self.words[index + 1].start]


def is_negation(word: str) -> bool:
    lower = word.lower()
    return lower in NEGATIONS or lower.endswith(("n't", "n’t"))


def is_quantity(word: str) -> bool:
    """A number in digits (3, 3.5, 3rd) or in words."""
    return any(map(str.isdigit, word)) or word.lower() in QUANTITIES


def protected_spans(source: SourceText) -> tuple[Span, ...]:
    """What stays as it is, sorted: the given spans and, listed or not, every number in digits or
    words, arithmetic operator and negation. The spans may overlap."""
    found = [
        match.span()
        for match in TOKEN.finditer(source.text)
        if match[1] or is_quantity(match[2]) or is_negation(match[2])
    ]
    operators = [match.span() for match in OPERATORS_OF_ARITHMETIC.finditer(source.text)]
    return tuple(sorted({*source.protected, *found, *operators}))


def numbers_of(text: str) -> list[str]:
    """Every number of a text in order; cardinals up to ninety in digits however they are
    written, so that "twelve" and "12" are equal."""
    numbers = []
    for match in TOKEN.finditer(text):
        if match[1]:
            numbers.append(match[1].lower())
        elif match[2].lower() in QUANTITIES:
            numbers.append(_NUMBER_VALUES.get(match[2].lower(), match[2].lower()))
    return numbers


def negations_of(text: str) -> Counter[str]:
    return Counter(m[2].lower() for m in TOKEN.finditer(text) if m[2] and is_negation(m[2]))


@lru_cache(maxsize=256)
def words_of(source: SourceText, *, edit_protected: bool = False) -> TextWords:
    """The words of a source text with what may be done to them.

    Not editable: words of protected spans (see `protected_spans`) unless `edit_protected`, and
    words that a combining mark follows, which an edit would give to another letter. A number in
    digits is among the words, so that neighbours are known, and editable only by the same leave.
    """
    kept = () if edit_protected else protected_spans(source)
    ends = _merged(kept)
    main, other = _merged(source.main), _merged(source.other)
    words = []
    for match in TOKEN.finditer(source.text):
        start, end = match.span()
        marked = end < len(source.text) and unicodedata.combining(source.text[end]) > 0
        words.append(
            Word(
                match[0],
                start,
                end,
                editable=not marked and not _meets(ends, start, end),
                is_main=_meets(main, start, end),
                is_other=_meets(other, start, end),
            )
        )
    bearing = {m[2].lower() for s, e in source.protected for m in _letters(source.text[s:e])}
    return TextWords(source.text, tuple(words), frozenset(bearing), edit_protected)


def _letters(text: str) -> Iterable[re.Match[str]]:
    return (match for match in TOKEN.finditer(text) if match[2])


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif start < end:
            merged.append((start, end))
    return merged


def _meets(merged: list[Span], start: int, end: int) -> bool:
    at = bisect_right(merged, start, key=itemgetter(0)) - 1
    if at >= 0 and merged[at][1] > start:
        return True
    return at + 1 < len(merged) and merged[at + 1][0] < end


def adds_guarded_words(words: TextWords, before: str, after: str) -> bool:
    """Whether a piece of text, once edited, holds a number, a negation or a protected word that
    it did not hold before. Where protected words may be edited, digits may change."""
    return bool(_guarded_of(words, after) - _guarded_of(words, before))


def _guarded_of(words: TextWords, piece: str) -> Counter[str]:
    found = (token.lower() for match in TOKEN.finditer(piece) for token in match.groups() if token)
    return Counter(
        token
        for token in found
        if token in words.guarded
        or (_bears_meaning(token) and not (words.edit_protected and any(map(str.isdigit, token))))
    )


@lru_cache(maxsize=65536)
def _bears_meaning(token: str) -> bool:
    return is_quantity(token) or is_negation(token)


def window(text: str, start: int, end: int) -> Span:
    """Characters [start, end) with the words around them: out to the second blank each way."""
    for _ in range(2):
        start = max(text.rfind(blank, 0, max(0, start - 1)) for blank in " \n\t") + 1
        after = [at for blank in " \n\t" if (at := text.find(blank, end + 1)) >= 0]
        end = min(after, default=len(text))
    return max(0, start), end
