"""Which words take the same tokens in the same place of a list, for one tokenizer and wording."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from interpflow.models.tokens import encode_all, span_tokens
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.prompts import CountingTemplate, render

# The first word often follows a bracket instead of a space, the last precedes another mark than
# the others: some tokenizers take the mark and the word's first letters together.
FIRST, MIDDLE, LAST = 0, 1, 2

# Positions of three words in a row and the prompt's length: what must not change with the word.
Width = tuple[int, ...]


@dataclass(frozen=True)
class WordWidths:
    """Width of every unambiguous word as first, middle and last word of a list.

    `widths[place][word]`; two words of equal width in a place can stand for each other there
    without moving any other token. `alike[place][width]` are the words of a width, sorted.
    """

    widths: tuple[Mapping[str, Width], ...]
    alike: tuple[Mapping[Width, tuple[str, ...]], ...]

    def of(self, word: str, slot: int, length: int) -> Width | None:
        """Width of a word at `slot` of a list of `length`; None for a word that is not listed."""
        return self.widths[_place(slot, length)].get(word)

    def words_like(self, word: str, slot: int, length: int) -> tuple[str, ...]:
        """Words that take the same tokens as this one at this slot, itself included."""
        place = _place(slot, length)
        return self.alike[place].get(self.widths[place].get(word, ()), ())


def _place(slot: int, length: int) -> int:
    return FIRST if slot == 0 else LAST if slot == length - 1 else MIDDLE


def measure_widths(tokenizer: Any, lexicon: Lexicon, template: CountingTemplate) -> WordWidths:
    """Render every unambiguous word in each place between the same other words, and tokenize."""
    category = lexicon.categories[0]
    words = sorted({word for name in lexicon.categories for word in lexicon.members(name)})
    others = words[:2]
    tables = []
    for place in (FIRST, MIDDLE, LAST):
        prompts = [
            render(template, lexicon, category, (*others[:place], word, *others[place:]))
            for word in words
        ]
        encoded = encode_all(tokenizer, [prompt.text for prompt in prompts])
        tables.append(
            {
                word: (*chain(*span_tokens(tokens, prompt.word_spans)), len(tokens.ids))
                for word, prompt, tokens in zip(words, prompts, encoded)
            }
        )
    return WordWidths(tuple(tables), tuple(_by_width(table) for table in tables))


def _by_width(table: Mapping[str, Width]) -> dict[Width, tuple[str, ...]]:
    found: dict[Width, list[str]] = defaultdict(list)
    for word, width in table.items():
        found[width].append(word)
    return {width: tuple(words) for width, words in found.items()}
