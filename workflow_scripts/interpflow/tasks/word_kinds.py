"""The words of a question by what they are for: protected, main, other."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from interpflow.tasks.perturbations.text import SourceText, Span
from interpflow.tasks.typos import NUMBER_WORDS

# Main words of a question of unknown wording: this share of its content words, at most so many.
MAIN_SHARE, MAX_MAIN_WORDS = 1 / 3, 5
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# A number as typed: thousands, decimals and a sign that follows no other number or letter.
NUMBER = re.compile(r"(?:(?<![\w)])[-−+])?\d+(?:[.,\u00a0\u202f]\d+)*(?:/\d+)?")
# What stands between numbers as an operation; a full stop or comma does not.
OPERATOR = re.compile(r"(?<=\d)\s*[-−+*/×÷=^]|[×÷=]|(?<=\s)[-−+*/^](?=\s|\d)")
# fmt: off
STOPWORDS = frozenset(
    {
        "a", "about", "above", "after", "again", "all", "also", "am", "an", "and", "any", "are",
        "as", "at", "be", "because", "been", "before", "being", "below", "between", "both", "but",
        "by", "can", "could", "did", "do", "does", "doing", "down", "during", "each", "every",
        "few", "for", "from", "had", "has", "have", "having", "he", "her", "here", "hers", "him",
        "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "many", "may", "me",
        "might", "more", "most", "much", "must", "my", "no", "nor", "not", "now", "of", "off",
        "on", "once", "only", "or", "other", "our", "out", "over", "own", "please", "same", "shall",
        "she", "should", "so", "some", "such", "than", "that", "the", "their", "them", "then",
        "there", "these", "they", "this", "those", "through", "to", "too", "under", "until", "up",
        "us", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who",
        "whom", "why", "will", "with", "would", "you", "your",
    }
)
# fmt: on


def words_of(text: str) -> list[Span]:
    """Every word, letters and apostrophes; numbers in digits are none."""
    return [match.span() for match in WORD.finditer(text)]


def number_spans(text: str) -> tuple[Span, ...]:
    """Numbers in digits, with sign, decimals and thousands, and number words ("twelve", "half")."""
    spelled = [match.span() for match in WORD.finditer(text) if match[0].lower() in NUMBER_WORDS]
    return tuple(sorted([*(match.span() for match in NUMBER.finditer(text)), *spelled]))


def protected_spans(text: str) -> tuple[Span, ...]:
    """Numbers, and the signs of operations between them."""
    numbers = number_spans(text)
    signs = [
        (match.end() - 1, match.end())
        for match in OPERATOR.finditer(text)
        if not any(start < match.end() <= end for start, end in numbers)
    ]
    return tuple(sorted([*numbers, *signs]))


def bearing_spans(text: str, answer: str | None) -> list[Span]:
    """Where a question holds content words of its answer; none for an answer without any."""
    if answer is None:
        return []
    bearing = {answer[start:end].lower() for start, end in content_words(answer)}
    return [
        (start, end) for start, end in content_words(text) if text[start:end].lower() in bearing
    ]


def content_words(text: str, protected: Sequence[Span] | None = None) -> list[Span]:
    """Words that are neither protected nor function words."""
    kept = protected_spans(text) if protected is None else protected
    return [
        (start, end)
        for start, end in _unprotected_words(text, kept)
        if text[start:end].lower() not in STOPWORDS
    ]


def source_text(
    text: str, *, main: Collection[Span] | None = None, answer: str | None = None
) -> SourceText:
    """A question with its words by kind.

    answer: a gold answer in words; where the question holds its content words (one of the options
    to choose from), they are protected as well.
    main: the words that the task turns on; None chooses by a rule, as nothing is known of the
    wording: of the content words the longest third (one at least, 5 at most; the first of equals).
    Other words are the content words left. Function words belong to no kind, but where a question
    has no others ("How much is 12 + 7?") they stand for content words.
    """
    protected = tuple(sorted([*protected_spans(text), *bearing_spans(text, answer)]))
    content = content_words(text, protected) or _unprotected_words(text, protected)
    if main is None:
        n = min(MAX_MAIN_WORDS, max(1, round(MAIN_SHARE * len(content))))
        main = sorted(content, key=lambda span: span[0] - span[1])[:n]
    chosen = set(main)
    return SourceText(
        text,
        protected=protected,
        main=tuple(sorted(chosen)),
        other=tuple(span for span in content if span not in chosen),
    )


def _unprotected_words(text: str, protected: Sequence[Span]) -> list[Span]:
    return [
        (start, end)
        for start, end in words_of(text)
        if not any(start < stop and begin < end for begin, stop in protected)
    ]
