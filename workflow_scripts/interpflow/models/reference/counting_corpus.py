"""Counting rows, drill rows and interchange pairs drawn from the lexicon and the wordings."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from interpflow.models.reference.recipe import CorpusConfig
from interpflow.models.reference.rows import Row
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.prompts import CountingTemplate, answer_text, render

HELD_OUT_SHARE = 16  # one list in sixteen, by checksum, is never trained on


@dataclass(frozen=True)
class CountingList:
    """A category and a list of words; `matches` says which words belong."""

    category: str
    words: tuple[str, ...]
    matches: tuple[bool, ...]

    @property
    def count(self) -> int:
        return sum(self.matches)

    @property
    def held_out(self) -> bool:
        """Decided by the list itself, so training and evaluation can never share one."""
        key = f"{self.category}:{' '.join(self.words)}".encode()
        return zlib.crc32(key) % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class InterchangePair:
    """Two lists with the same words from word `start` on and different counts before it."""

    base: CountingList
    donor: CountingList
    start: int

    @property
    def shift(self) -> int:
        """Difference of the running counts, donor − base."""
        return self.donor.count - self.base.count


class CountingCorpus:
    """Draws counting material; every draw takes the generator, so a seed fixes the rows."""

    def __init__(
        self, lexicon: Lexicon, templates: Sequence[CountingTemplate], config: CorpusConfig
    ) -> None:
        self.lexicon, self.config = lexicon, config
        self.templates = tuple(templates)
        self._shortened = {t.id: without_instruction(t) for t in templates}
        self._members = {c: lexicon.members(c) for c in lexicon.categories}
        self._others = {c: lexicon.non_members(c) for c in lexicon.categories}

    def draw_list(
        self, rng: random.Random, held_out: bool, shape: tuple[int, int] | None = None
    ) -> CountingList:
        """A list of the given (length, count); without it the length is uniform, then the count."""
        while True:
            category = rng.choice(self.lexicon.categories)
            length, count = shape or self._draw_shape(rng)
            drawn = self._fill(category, length, count, (), rng)
            if drawn.held_out == held_out:
                return drawn

    def _draw_shape(self, rng: random.Random) -> tuple[int, int]:
        length = rng.randint(self.config.min_length, self.config.max_length)
        return length, rng.randint(0, length)

    def draw_pair(self, rng: random.Random, held_out: bool) -> InterchangePair:
        """A shared suffix after two prefixes of equal length and different counts."""
        while True:
            category = rng.choice(self.lexicon.categories)
            length = rng.randint(self.config.min_length, self.config.max_length)
            start = rng.randint(1, length - 1)
            suffix_length = length - start
            suffix = self._fill(category, suffix_length, rng.randint(0, suffix_length), (), rng)
            counts = rng.sample(range(start + 1), 2)
            base, donor = (
                self._fill(category, start, count, suffix.words, rng) for count in counts
            )
            pair = InterchangePair(_joined(base, suffix), _joined(donor, suffix), start)
            if pair.base.held_out == held_out and pair.donor.held_out == held_out:
                return pair

    def _fill(
        self, category: str, length: int, count: int, taken: tuple[str, ...], rng: random.Random
    ) -> CountingList:
        words = [
            *_sample_without(self._members[category], count, taken, rng),
            *_sample_without(self._others[category], length - count, taken, rng),
        ]
        order = list(range(length))
        rng.shuffle(order)
        return CountingList(
            category, tuple(words[i] for i in order), tuple(i < count for i in order)
        )

    def row(self, drawn: CountingList, template: CountingTemplate, shortened: bool) -> Row:
        """A list asked with a wording, with or without its leading instruction."""
        wording = self._shortened[template.id] if shortened else template
        prompt = render(wording, self.lexicon, drawn.category, drawn.words)
        answer = answer_text(wording, drawn.count)
        return Row.answering(prompt.text, answer, prompt.word_spans, drawn.matches)

    def task_rows(self, rng: random.Random, n: int) -> list[Row]:
        """Training lists, each with a wording of its own."""
        return [
            self.row(
                self.draw_list(rng, held_out=False),
                rng.choice(self.templates),
                rng.random() >= self.config.instruction_share,
            )
            for _ in range(n)
        ]

    def drill_rows(self, rng: random.Random, n: int) -> list[Row]:
        """Dense word → category facts: a word after a space or a line end, the category's name in
        the singular or plural.
        """
        return [self._drill_row(rng) for _ in range(n)]

    def _drill_row(self, rng: random.Random) -> Row:
        opening, in_plural = rng.choice((" ", "\n")), rng.random() < 0.5
        text, scored = "", []
        for word in rng.sample(self.lexicon.words, self.config.facts_per_drill_row):
            text += opening + word
            category = rng.choice(sorted(self.lexicon.categories_of(word)))
            category = self.lexicon.plural(category) if in_plural else category
            scored.append((len(text), len(text) + len(category) + 1))
            text += f" {category}"
        return Row(text, tuple(scored))


def without_instruction(template: CountingTemplate) -> CountingTemplate:
    """The wording without its leading lines that name neither the category nor the words."""
    lines = template.text.split("\n")
    while "{" not in lines[0]:
        lines = lines[1:]
    return CountingTemplate(
        template.id, "\n".join(lines), template.separator, template.answer, template.terminator
    )


def corpus_texts(lexicon: Lexicon, templates: Sequence[CountingTemplate]) -> list[str]:
    """Every piece of text the wordings can produce apart from numbers and list words."""
    word = lexicon.words[0]
    texts = [f" {category}" for category in lexicon.categories]
    for template in templates:
        for wording in (template, without_instruction(template)):
            for category in lexicon.categories:
                prompt = render(wording, lexicon, category, (word, word))
                texts.append(prompt.text + answer_text(wording, 0))
    return texts


def _sample_without(
    words: tuple[str, ...], n: int, taken: tuple[str, ...], rng: random.Random
) -> list[str]:
    drawn = [w for w in rng.sample(words, n + len(taken)) if w not in taken]
    return drawn[:n]


def _joined(prefix: CountingList, suffix: CountingList) -> CountingList:
    return CountingList(
        prefix.category, prefix.words + suffix.words, prefix.matches + suffix.matches
    )
