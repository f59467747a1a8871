"""Pairs of lists that differ in one thing: minimal, prefix and (confounded) random pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, product
from typing import Literal

from interpflow.config.identity import content_hash, derived_seed
from interpflow.errors import UserError
from interpflow.tasks.counting.lexicon import Lexicon

PairKind = Literal["minimal", "prefix", "random"]
MAX_REDRAWS = 200  # tries per pair, before the word lists are declared too small


@dataclass(frozen=True)
class CountingPair:
    """A clean and a corrupted list of equal length, and for each a control list of its count.

    minimal: word `position` is a member in the clean list, a non-member in the corrupted one;
      each control swaps that word for another of the same kind, so that its count stays.
    prefix: the lists share all words from `position` on; their prefixes differ in the number of
      members by `delta` (clean − corrupted); each control has another prefix of the same count.
    random: two unrelated lists of the same category (the original design: confounded by every
      word); the controls are empty.
    `family_id` is the clean base list: the unit of inference.
    """

    pair_id: str
    family_id: str
    kind: PairKind
    category: str
    template_id: str
    position: int
    clean_words: tuple[str, ...]
    corrupted_words: tuple[str, ...]
    clean_control_words: tuple[str, ...]
    corrupted_control_words: tuple[str, ...]
    clean_count: int
    corrupted_count: int

    @property
    def length(self) -> int:
        return len(self.clean_words)

    @property
    def delta(self) -> int:
        return self.clean_count - self.corrupted_count


@dataclass(frozen=True)
class PairDesign:
    """How many pairs of which kind; cells (category, length, position, …) are used in turn."""

    categories: tuple[str, ...]
    lengths: tuple[int, ...]
    template_ids: tuple[str, ...]
    n_minimal: int
    n_prefix: int
    n_random: int
    max_delta: int
    seed: int


def make_pairs(design: PairDesign, lexicon: Lexicon) -> list[CountingPair]:
    """All pairs of the design. Raises UserError when the lexicon cannot fill them."""
    makers: tuple[tuple[PairKind, int, Callable], ...] = (
        ("minimal", design.n_minimal, _minimal_pair),
        ("prefix", design.n_prefix, _prefix_pair),
        ("random", design.n_random, _random_pair),
    )
    return [
        pair for kind, n, maker in makers if n for pair in _fill(kind, n, maker, design, lexicon)
    ]


def _fill(
    kind: PairKind, n: int, maker: Callable, design: PairDesign, lexicon: Lexicon
) -> list[CountingPair]:
    rng = random.Random(derived_seed(design.seed, "counting", kind, "words"))
    found: dict[str, CountingPair] = {}
    for tried, cell in enumerate(_cells(kind, design)):
        if len(found) == n:
            return list(found.values())
        if tried >= n * MAX_REDRAWS or (tried >= n + MAX_REDRAWS and not found):
            break
        pair = maker(cell, lexicon, rng, kind)
        if pair is not None:
            found.setdefault(pair.pair_id, pair)
    raise UserError(
        f"only {len(found)} of {n} {kind} pairs can be made from these word lists",
        where=f"counting.pairs.n_{kind}",
        remedy="ask for fewer pairs, or give the categories more words of each frequency band",
    )


@dataclass(frozen=True)
class _Cell:
    category: str
    template_id: str
    length: int
    position: int
    count: int  # members among the other words (minimal) or in the suffix (prefix)
    delta: int


def _cells(kind: PairKind, design: PairDesign) -> Iterator[_Cell]:
    """Cells without end: lengths in turn, positions in turn within a length, then counts and
    shifts, while categories and wordings go round. So every factor is used alike at any number."""
    rng = random.Random(derived_seed(design.seed, "counting", kind, "shapes"))
    lengths = [length for length in design.lengths if _shapes(kind, length, design.max_delta)]
    decks: dict[int, Iterator[Iterator[tuple[int, int, int]]]] = {}
    for length in lengths:
        by_position: dict[int, list[tuple[int, int, int]]] = {}
        for shape in _shapes(kind, length, design.max_delta):
            by_position.setdefault(shape[0], []).append(shape)
        for shapes in by_position.values():
            rng.shuffle(shapes)
        dealt = [cycle(shapes) for shapes in by_position.values()]
        rng.shuffle(dealt)
        decks[length] = cycle(dealt)
    categories, templates = design.categories, design.template_ids
    for i in count() if lengths else ():
        length = lengths[i % len(lengths)]
        position, n_members, delta = next(next(decks[length]))
        round_of_lengths = i // len(lengths)
        yield _Cell(
            # Shifted after each round, so that no category is tied to a length.
            category=categories[(i + round_of_lengths) % len(categories)],
            template_id=templates[(i // len(categories) + i) % len(templates)],
            length=length,
            position=position,
            count=n_members,
            delta=delta,
        )


def _shapes(kind: PairKind, length: int, max_delta: int) -> list[tuple[int, int, int]]:
    """(position, members beside the change, shift) that a list of this length allows."""
    if kind == "minimal":
        return [(place, c, 1) for place, c in product(range(length), range(length))]
    if kind == "prefix":
        # The prefix must be able to hold |delta| more members in one list than in the other,
        # and at least one word must follow it.
        return [
            (k, c, sign * size)
            for k in range(1, length)
            for size in range(1, min(k, max_delta) + 1)
            for sign in (1, -1)
            for c in sorted({0, (length - k) // 2, length - k})
        ]
    return [(0, c, d) for c in range(length) for d in (1, 2, 3) if c + d <= length]


def _minimal_pair(
    cell: _Cell, lexicon: Lexicon, rng: random.Random, kind: PairKind
) -> CountingPair | None:
    members, others = lexicon.members(cell.category), lexicon.non_members(cell.category)
    member = rng.choice(members)
    like = _alike(lexicon, member)
    twins = [word for word in members if word != member and like(word)]
    replacements = [word for word in others if like(word)]
    # Words of the very same length keep the two sides balanced at any number of pairs.
    same_length = [word for word in replacements if len(word) == len(member)]
    replacements = same_length if len(same_length) > 1 else replacements
    if not twins or len(replacements) < 2:
        return None
    twin = rng.choice(twins)
    replacement, replacement_twin = rng.sample(replacements, 2)
    taken = {member, twin, replacement, replacement_twin}
    rest = _mixed(cell.count, cell.length - 1 - cell.count, members, others, taken, rng)
    if rest is None:
        return None

    def with_word(word: str) -> tuple[str, ...]:
        return (*rest[: cell.position], word, *rest[cell.position :])

    return _pair(
        kind, cell, with_word(member), with_word(replacement), with_word(twin),
        with_word(replacement_twin), cell.count + 1, cell.count,
    )  # fmt: skip


def _prefix_pair(
    cell: _Cell, lexicon: Lexicon, rng: random.Random, kind: PairKind
) -> CountingPair | None:
    members, others = lexicon.members(cell.category), lexicon.non_members(cell.category)
    k, size = cell.position, abs(cell.delta)
    low = rng.randint(0, k - size)
    high = low + size
    clean_n, corrupted_n = (high, low) if cell.delta > 0 else (low, high)
    taken: set[str] = set()
    lists = []
    for n_members, n in ((cell.count, cell.length - k), (clean_n, k), (corrupted_n, k),
                         (clean_n, k), (corrupted_n, k)):  # fmt: skip
        words = _mixed(n_members, n - n_members, members, others, taken, rng)
        if words is None:
            return None
        taken |= set(words)
        lists.append(words)
    suffix, clean, corrupted, clean_control, corrupted_control = lists
    return _pair(
        kind, cell, clean + suffix, corrupted + suffix, clean_control + suffix,
        corrupted_control + suffix, clean_n + cell.count, corrupted_n + cell.count,
    )  # fmt: skip


def _random_pair(
    cell: _Cell, lexicon: Lexicon, rng: random.Random, kind: PairKind
) -> CountingPair | None:
    members, others = lexicon.members(cell.category), lexicon.non_members(cell.category)
    high, low = cell.count + cell.delta, cell.count
    clean = _mixed(high, cell.length - high, members, others, set(), rng)
    corrupted = _mixed(low, cell.length - low, members, others, set(), rng)
    if clean is None or corrupted is None:
        return None
    return _pair(kind, cell, clean, corrupted, (), (), high, low)


def _pair(
    kind: PairKind,
    cell: _Cell,
    clean: tuple[str, ...],
    corrupted: tuple[str, ...],
    clean_control: tuple[str, ...],
    corrupted_control: tuple[str, ...],
    clean_count: int,
    corrupted_count: int,
) -> CountingPair:
    return CountingPair(
        pair_id=content_hash([kind, cell.category, cell.template_id, clean, corrupted]),
        family_id=content_hash(["counting", cell.category, list(clean)]),
        kind=kind,
        category=cell.category,
        template_id=cell.template_id,
        position=cell.position,
        clean_words=clean,
        corrupted_words=corrupted,
        clean_control_words=clean_control,
        corrupted_control_words=corrupted_control,
        clean_count=clean_count,
        corrupted_count=corrupted_count,
    )


def _alike(lexicon: Lexicon, word: str) -> Callable[[str], bool]:
    # Equal spelling length stands for equal token length until a model's tokenizer decides.
    def like(other: str) -> bool:
        return (
            lexicon.frequency_band(other) == lexicon.frequency_band(word)
            and abs(len(other) - len(word)) <= 1
        )

    return like


def _mixed(
    n_members: int,
    n_others: int,
    members: Sequence[str],
    others: Sequence[str],
    taken: set[str],
    rng: random.Random,
) -> tuple[str, ...] | None:
    free_members = [word for word in members if word not in taken]
    free_others = [word for word in others if word not in taken]
    if len(free_members) < n_members or len(free_others) < n_others:
        return None
    words = rng.sample(free_members, n_members) + rng.sample(free_others, n_others)
    rng.shuffle(words)
    return tuple(words)
