"""Which places of the design language models fill, and which are still empty after some rounds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingData
from interpflow.errors import UserError
from interpflow.tables.parquet import read_rows
from interpflow.tasks.counting.design import FactorialDesign, factorial_examples, written_entries
from interpflow.tasks.counting.labelled_lists import Shape
from interpflow.tasks.counting.lexicon import Lexicon, load_lexicon
from interpflow.tasks.counting.prompts import load_templates
from interpflow.tasks.counting.setup import factorial_design

SOURCE_SHARES = {"systematic": 0.0, "llm": 1.0}
MAX_SHOWN_CELLS = 20

Row = Mapping[str, Any]


@dataclass(frozen=True)
class WrittenRounds:
    """Tables of the rounds of writing, in their order: lists, verdicts on words and on lists."""

    lists: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()


NO_ROUNDS = WrittenRounds()


@dataclass(frozen=True)
class WrittenState:
    """Everything written and judged in the rounds so far.

    `empty` maps (category, length, count) to the design's entries that still need a list.
    `word_sets` are the words of the lists in use by category, systematic ones among them;
    `word_uses` counts, by category, the accepted written lists that hold a word.
    """

    design: FactorialDesign
    empty: Mapping[tuple[str, int, int], tuple[int, ...]]
    word_sets: Mapping[str, tuple[frozenset[str], ...]]
    word_uses: Mapping[str, Counter[str]]

    @property
    def complete(self) -> bool:
        return not any(self.empty.values())

    def shapes(self, category: str) -> frozenset[Shape]:
        """Shapes of the design that a category uses."""
        return frozenset((n, k) for name, n, k in self.design.entries if name == category)


def written_rounds_of(inputs: Mapping[str, Any]) -> WrittenRounds:
    """The rounds among a rule's inputs; none where nothing is written."""
    files = {name: tuple(map(str, inputs.get(name, ()))) for name in ("lists", "words", "verdicts")}
    return WrittenRounds(**files)


def entries_to_write(data: CountingData, design: FactorialDesign) -> frozenset[int]:
    """Entries of the design that language models fill."""
    return written_entries(design, SOURCE_SHARES.get(data.source, data.llm.share))


def written_state(
    data: CountingData,
    design: FactorialDesign,
    lexicon: Lexicon,
    lists: Sequence[Row],
    verdicts: Sequence[Row],
) -> WrittenState:
    """State after the rounds whose written lists and verdicts are given."""
    wanted = entries_to_write(data, design)
    accepted = {row["list_id"]: row["entry"] for row in verdicts if row["accepted"]}
    filled = set(accepted.values())
    empty: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for entry in sorted(wanted - filled):
        empty[design.entries[entry]].append(entry)
    word_sets: dict[str, list[frozenset[str]]] = defaultdict(list)
    for example in factorial_examples(design, lexicon, wanted):
        words = frozenset(example.words)
        if not word_sets[example.category] or word_sets[example.category][-1] != words:
            word_sets[example.category].append(words)
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for row in lists:
        if row["list_id"] in accepted:
            word_sets[row["category"]].append(frozenset(row["words"]))
            uses[row["category"]].update(row["words"])
    return WrittenState(
        design=design,
        empty={cell: tuple(entries) for cell, entries in empty.items()},
        word_sets={category: tuple(sets) for category, sets in word_sets.items()},
        word_uses=dict(uses),
    )


def state_before(
    data: CountingData,
    seed: int,
    *,
    lexicon_path: str | None,
    templates_path: str | None,
    earlier_lists: Iterable[Path | str],
    earlier_verdicts: Iterable[Path | str],
) -> tuple[Lexicon, WrittenState]:
    """The lexicon, and the state that the tables of earlier rounds leave."""
    lexicon = load_lexicon(Path(lexicon_path) if lexicon_path else None)
    templates = load_templates(Path(templates_path) if templates_path else None)
    state = written_state(
        data,
        factorial_design(data, seed, lexicon, templates),
        lexicon,
        read_rounds(earlier_lists, "counting_written_lists"),
        read_rounds(earlier_verdicts, "counting_list_verdicts"),
    )
    return lexicon, state


def read_rounds(paths: Iterable[Path | str], table: str) -> list[dict[str, Any]]:
    """Rows of one table over all rounds, in the rounds' order."""
    return [row for path in paths for row in read_rows(path, table)]


def require_complete(state: WrittenState, max_rounds: int, verdicts: Sequence[Row] = ()) -> None:
    """Raise UserError with a table of the cells that still lack lists, and why lists failed."""
    if state.complete:
        return
    missing = [(cell, len(entries)) for cell, entries in sorted(state.empty.items())]
    lines = [f"{'category':<20}{'length':>8}{'count':>7}{'missing':>9}"]
    for (category, length, count), n in missing[:MAX_SHOWN_CELLS]:
        lines.append(f"{category:<20}{length:>8}{count:>7}{n:>9}")
    if len(missing) > MAX_SHOWN_CELLS:
        lines.append(f"and {len(missing) - MAX_SHOWN_CELLS} more cells")
    reasons = Counter(row["reason"] for row in verdicts if not row["accepted"])
    if reasons:
        shown = [f"{n} {reason}" for reason, n in reasons.most_common()]
        lines.append(f"not used: {'; '.join(shown)}")
    rounds = f"{max_rounds} round{'s' * (max_rounds > 1)}"
    raise UserError(
        f"after {rounds} {sum(n for _, n in missing)} lists are missing in {len(missing)} cells of "
        "the design:\n" + "\n".join(lines),
        where="counting.data.llm.max_rounds",
        remedy="allow more rounds (what was bought is kept), ask a stronger generator (or, where "
        "words are unclear, validator), allow more `max_word_uses` where words are used too often, "
        "or make the design smaller",
    )
