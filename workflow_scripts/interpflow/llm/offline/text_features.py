"""What can be counted in a text: its words and pairs of words, and plain features of its form."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_DIGIT = re.compile(r"\d")
# Name of a feature -> how a text that has more of it is described.
FORM_FEATURES = {
    "words": "are longer (words)",
    "word_length": "use longer words (letters)",
    "sentence_length": "have longer sentences (words)",
    "digit_share": "hold more digits (share of characters)",
    "punctuation_share": "hold more punctuation (share of characters)",
    "capital_share": "hold more capital letters (share of letters)",
    "questions": "ask more questions (question marks)",
    "exclamations": "use more exclamation marks",
    "lines": "have more lines",
}


@dataclass(frozen=True)
class TextCounts:
    """`terms`: occurrences of words and of pairs of neighbouring words ("not good"), lower case.
    `n_words`: number of words. `form`: value of each of FORM_FEATURES."""

    terms: Counter[str]
    n_words: int
    form: dict[str, float]


def count_text(text: str) -> TextCounts:
    """Counts of one text; an empty text has none and a form of zeros."""
    words = [word.lower().replace("’", "'") for word in WORD.findall(text)]
    terms = Counter(words)
    # Pairs do not span the end of a sentence or line.
    for sentence in re.split(r"[.!?;:\n]+", text):
        inside = [word.lower().replace("’", "'") for word in WORD.findall(sentence)]
        terms.update(f"{first} {second}" for first, second in pairwise(inside))
    return TextCounts(terms, len(words), _form(text, words))


def _form(text: str, words: list[str]) -> dict[str, float]:
    characters = max(sum(not c.isspace() for c in text), 1)
    letters = max(sum(c.isalpha() for c in text), 1)
    n_sentences = max(len(_SENTENCE_END.findall(text)), 1)
    n_words = len(words)
    return {
        "words": float(n_words),
        "word_length": sum(map(len, words)) / max(n_words, 1),
        "sentence_length": n_words / n_sentences,
        "digit_share": len(_DIGIT.findall(text)) / characters,
        "punctuation_share": sum(not c.isalnum() and not c.isspace() for c in text) / characters,
        "capital_share": sum(c.isupper() for c in text) / letters,
        "questions": float(text.count("?")),
        "exclamations": float(text.count("!")),
        "lines": float(len([line for line in text.splitlines() if line.strip()])),
    }
