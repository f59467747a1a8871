"""The systematic source: a full factorial design over category × length × count."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from interpflow.config.identity import content_hash, derived_seed
from interpflow.errors import UserError
from interpflow.tasks.counting.lexicon import Lexicon

MAX_REDRAWS = 50  # of one list, before the design is declared impossible at this similarity


@dataclass(frozen=True)
class CountingExample:
    """One base list asked with one wording. `family_id` is the base list: the unit of inference."""

    example_id: str
    family_id: str
    source: str
    category: str
    template_id: str
    words: tuple[str, ...]
    is_match: tuple[bool, ...]

    @property
    def length(self) -> int:
        return len(self.words)

    @property
    def count(self) -> int:
        return sum(self.is_match)

    @property
    def match_positions(self) -> tuple[int, ...]:
        return tuple(i for i, match in enumerate(self.is_match) if match)

    @property
    def running_count(self) -> tuple[int, ...]:
        """Members among words 0..k, for every k."""
        total, running = 0, []
        for match in self.is_match:
            total += match
            running.append(total)
        return tuple(running)


@dataclass(frozen=True)
class FactorialDesign:
    """What to cross; `counts` None means every count from 0 to the list's length."""

    categories: tuple[str, ...]
    lengths: tuple[int, ...]
    counts: tuple[int, ...] | None
    template_ids: tuple[str, ...]
    crossed_templates: bool
    replicates: int
    max_similarity: float
    seed: int

    def cells(self) -> list[tuple[str, int, int]]:
        """Every (category, length, count) of the design, in order."""
        return [
            (category, length, count)
            for category in self.categories
            for length in self.lengths
            for count in (range(length + 1) if self.counts is None else self.counts)
            if count <= length
        ]

    @cached_property
    def entries(self) -> tuple[tuple[str, int, int], ...]:
        """Every list to be made, as the cell it fills: all cells, once per replicate."""
        return tuple(self.cells() * self.replicates)


@dataclass
class _Usage:
    """How often each word, distractor category and match position has been used so far."""

    words: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    positions: defaultdict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))


def check_design(design: FactorialDesign, lexicon: Lexicon) -> None:
    """Refuse a design that the lexicon cannot fill, naming the config key."""
    for category in design.categories:
        if category not in lexicon.categories:
            raise UserError(
                f"unknown category {category!r}",
                where="counting.data.categories",
                remedy=f"choose from: {', '.join(lexicon.categories)}",
            )
        needed = max((c for _, _, c in design.cells()), default=0)
        have = len(lexicon.members(category))
        if have < needed:
            raise UserError(
                f"category {category!r} has {have} unambiguous words, a list needs up to {needed}",
                where="counting.data.counts",
                remedy="lower the counts and lengths, or give the category more words",
            )
        fillers = max(length - count for _, length, count in design.cells())
        if len(lexicon.non_members(category)) < fillers:
            raise UserError(
                f"category {category!r} has only {len(lexicon.non_members(category))} "
                f"non-members, a list needs up to {fillers}",
                where="counting.lexicon",
                remedy="add word lists of other categories",
            )


def written_entries(design: FactorialDesign, share: float) -> frozenset[int]:
    """Entries (places in `design.entries`) that a language model writes, drawn by the seed.

    `share` 0 gives none, 1 all of them.
    """
    entries = list(range(len(design.entries)))
    random.Random(derived_seed(design.seed, "counting", "written")).shuffle(entries)
    return frozenset(entries[: round(share * len(entries))])


def template_ids_of(design: FactorialDesign, entry: int) -> tuple[str, ...]:
    """The wordings in which an entry's list is asked."""
    if design.crossed_templates:
        return design.template_ids
    return (design.template_ids[_latin(design, entry, *design.entries[entry])],)


def factorial_examples(
    design: FactorialDesign, lexicon: Lexicon, leave_out: Collection[int] = ()
) -> list[CountingExample]:
    """Fill every entry of the design with a list, but for those to leave out.

    Words and match positions are drawn least-used first (ties by the seed), distractors are
    spread over the other categories and are members of the asked one by no sense. Two lists of
    a category never share more than `max_similarity` (Jaccard) of their words.
    """
    check_design(design, lexicon)
    rng = random.Random(derived_seed(design.seed, "counting", "factorial"))
    usage = _Usage()
    fillers = {
        category: _by_category(lexicon, lexicon.non_members(category))
        for category in design.categories
    }
    drawn: dict[str, list[frozenset[str]]] = defaultdict(list)
    examples: list[CountingExample] = []
    for index, (category, length, count) in enumerate(design.entries):
        if index in leave_out:
            continue
        words, matches = _draw_distinct(
            category, length, count, lexicon, fillers[category], usage, drawn[category],
            design.max_similarity, rng,
        )  # fmt: skip
        drawn[category].append(frozenset(words))
        examples += [
            make_example(category, template_id, words, matches, "systematic")
            for template_id in template_ids_of(design, index)
        ]
    return examples


def make_example(
    category: str,
    template_id: str,
    words: Sequence[str],
    is_match: Sequence[bool],
    source: str,
) -> CountingExample:
    """An example with the ids that its content gives it."""
    family_id = content_hash(["counting", category, list(words)])
    return CountingExample(
        example_id=content_hash([family_id, template_id]),
        family_id=family_id,
        source=source,
        category=category,
        template_id=template_id,
        words=tuple(words),
        is_match=tuple(bool(match) for match in is_match),
    )


def _latin(design: FactorialDesign, index: int, category: str, length: int, count: int) -> int:
    # A Latin square: no wording is tied to a category, a length or a count.
    replicate = index * design.replicates // len(design.entries)
    return (design.categories.index(category) + length + count + replicate) % len(
        design.template_ids
    )


def _draw_distinct(
    category: str,
    length: int,
    count: int,
    lexicon: Lexicon,
    fillers: dict[str, list[str]],
    usage: _Usage,
    earlier: list[frozenset[str]],
    max_similarity: float,
    rng: random.Random,
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    for attempt in range(MAX_REDRAWS):
        words, matches = _draw(category, length, count, lexicon, fillers, usage, attempt, rng)
        if all(_jaccard(frozenset(words), other) <= max_similarity for other in earlier):
            _record_use(words, matches, lexicon, usage)
            return words, matches
    raise UserError(
        f"no list of length {length} with {count} of {category!r} differs enough from the others",
        where="counting.data.max_similarity",
        remedy="allow more similarity, fewer replicates, or give the category more words",
    )


def _draw(
    category: str,
    length: int,
    count: int,
    lexicon: Lexicon,
    fillers: dict[str, list[str]],
    usage: _Usage,
    attempt: int,
    rng: random.Random,
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    # From the second attempt on, strict least-used order would draw the same words again.
    slack = attempt

    def least_used(words: Iterable[str], n: int) -> list[str]:
        return sorted(words, key=lambda w: (usage.words[w] + rng.randint(0, slack), rng.random()))[
            :n
        ]

    positions = sorted(range(length), key=lambda i: (usage.positions[length][i], rng.random()))[
        :count
    ]
    members = least_used(lexicon.members(category), count)
    distractors: list[str] = []
    order = sorted(fillers, key=lambda c: (usage.categories[c], rng.random()))
    turn = 0
    while len(distractors) < length - count:
        pool = [word for word in fillers[order[turn % len(order)]] if word not in distractors]
        distractors += least_used(pool, 1)
        turn += 1
    rng.shuffle(members)
    rng.shuffle(distractors)
    words = tuple(members.pop() if i in positions else distractors.pop() for i in range(length))
    return words, tuple(i in positions for i in range(length))


def _record_use(
    words: tuple[str, ...], matches: tuple[bool, ...], lexicon: Lexicon, usage: _Usage
) -> None:
    usage.words.update(words)
    for i, (word, match) in enumerate(zip(words, matches)):
        if match:
            usage.positions[len(words)][i] += 1
        else:
            usage.categories.update(lexicon.categories_of(word))


def _by_category(lexicon: Lexicon, words: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for word in words:
        grouped[min(lexicon.categories_of(word))].append(word)
    return dict(grouped)


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)
