"""The lexicon: which word belongs to which category, by which sense, and how frequent it is."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR

LEXICON_DIR = RESOURCES_DIR / "lexicon"
UNKNOWN_BAND = "unknown"
# Category of words of which no more is known than that they are no members of those asked for.
OUTSIDE = ""


@dataclass(frozen=True)
class Lexicon:
    """Membership of every word in every category.

    `memberships` maps a word to the categories it belongs to by any sense; a word with
    `ambiguous` set has more than one sense and is never used where the truth must be plain.
    """

    categories: tuple[str, ...]
    plurals: Mapping[str, str]
    memberships: Mapping[str, frozenset[str]]
    ambiguous: frozenset[str]
    bands: Mapping[str, str]

    def plural(self, category: str) -> str:
        """Plural form of the category's name, for prompts that ask in the plural."""
        return self.plurals[category]

    def members(self, category: str) -> tuple[str, ...]:
        """Unambiguous members, sorted."""
        return self._members[category]

    def non_members(self, category: str) -> tuple[str, ...]:
        """Unambiguous words no sense of which lies in the category, sorted."""
        return tuple(word for word in self._plain_words if category not in self.memberships[word])

    def categories_of(self, word: str) -> frozenset[str]:
        """Categories the word belongs to by any sense; empty for an unknown word."""
        return self.memberships.get(word, frozenset())

    def is_ambiguous(self, word: str) -> bool:
        return word in self.ambiguous

    def frequency_band(self, word: str) -> str:
        """high, mid or low (Zipf frequency ≥ 4, 3–4, < 3); `unknown` for own word lists."""
        return self.bands.get(word, UNKNOWN_BAND)

    def spelling_of(self, word: str) -> str:
        """The lexicon's spelling of a word that it holds in other capitals; else the word itself,
        as where it holds several such spellings."""
        if word in self.memberships:
            return word
        found = self._spellings.get(word.lower(), ())
        return found[0] if len(found) == 1 else word

    def with_memberships(self, known: Mapping[tuple[str, str], bool]) -> Lexicon:
        """The lexicon and words that it has not, by (category, word) → member or not.

        What the lexicon itself says of a word stands.
        """
        added: dict[str, set[str]] = defaultdict(set)
        for (category, word), is_member in known.items():
            if word not in self.memberships:
                added[word].add(category if is_member else OUTSIDE)
        found = {word: frozenset(names - {OUTSIDE} or {OUTSIDE}) for word, names in added.items()}
        return replace(self, memberships={**self.memberships, **found})

    @cached_property
    def _spellings(self) -> dict[str, list[str]]:
        spellings: dict[str, list[str]] = defaultdict(list)
        for word in self.words:
            spellings[word.lower()].append(word)
        return dict(spellings)

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(sorted(self.memberships))

    @cached_property
    def _plain_words(self) -> tuple[str, ...]:
        return tuple(word for word in self.words if word not in self.ambiguous)

    @cached_property
    def _members(self) -> dict[str, tuple[str, ...]]:
        members: dict[str, list[str]] = {category: [] for category in self.categories}
        for word in self._plain_words:
            for category in self.memberships[word] - {OUTSIDE}:
                members[category].append(word)
        return {category: tuple(sorted(words)) for category, words in members.items()}


def load_lexicon(path: Path | None = None) -> Lexicon:
    """Read the project's lexicon, or a directory of the user's own word lists.

    A directory with `memberships.csv` is read as a full lexicon; any other directory is read as
    one `<category>.txt` per category, one word a line. Raises UserError on an empty or duplicated
    list, naming the file.
    """
    directory = path or LEXICON_DIR
    if not directory.is_dir():
        raise UserError(
            f"no word lists: {directory} is not a directory",
            where="counting.lexicon",
            remedy="name a directory with one <category>.txt per category",
        )
    if (directory / "memberships.csv").exists():
        return _read_tables(directory)
    return _read_word_lists(directory)


def _read_tables(directory: Path) -> Lexicon:
    categories = _rows(directory / "categories.csv", {"category", "plural"})
    rows = _rows(directory / "memberships.csv", {"word", "category", "ambiguous"})
    bands = {
        row["word"]: row["frequency_band"]
        for row in _rows(directory / "words.csv", {"word", "frequency_band"})
    }
    names = tuple(sorted(row["category"] for row in categories))
    memberships: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["category"] not in names:
            raise UserError(
                f"unknown category {row['category']!r} of the word {row['word']!r}",
                where=str(directory / "memberships.csv"),
                remedy="list the category in categories.csv",
            )
        if row["category"] in memberships[row["word"]]:
            raise UserError(
                f"{row['word']!r} is listed twice in {row['category']!r}",
                where=str(directory / "memberships.csv"),
                remedy="keep each word once per category",
            )
        memberships[row["word"]].add(row["category"])
    return Lexicon(
        categories=names,
        plurals={row["category"]: row["plural"] for row in categories},
        memberships={word: frozenset(found) for word, found in memberships.items()},
        ambiguous=frozenset(row["word"] for row in rows if row["ambiguous"] == "1"),
        bands=bands,
    )


def _rows(path: Path, columns: set[str]) -> list[dict[str, str]]:
    if not path.exists():
        raise UserError(f"missing lexicon table {path.name}", where=str(path))
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    missing = columns - set(reader.fieldnames or ())
    if missing:
        raise UserError(f"missing columns: {', '.join(sorted(missing))}", where=str(path))
    rows = list(reader)
    if not rows:
        raise UserError("the lexicon table is empty", where=str(path))
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the word list cannot be read: {error}", where=str(path), remedy="save it as UTF-8"
        ) from error


def _read_word_lists(directory: Path) -> Lexicon:
    files = sorted(directory.glob("*.txt"))
    if not files:
        raise UserError(
            "the word-list directory holds no <category>.txt file",
            where=str(directory),
            remedy="write one file per category, one word a line",
        )
    lists = {file.stem.replace("_", " "): _word_list(file) for file in files}
    return lexicon_from_lists(lists)


def lexicon_from_lists(lists: Mapping[str, Iterable[str]]) -> Lexicon:
    """A lexicon from category → words; a word in several lists counts as ambiguous."""
    memberships: dict[str, set[str]] = defaultdict(set)
    for category, words in lists.items():
        for word in words:
            memberships[word].add(category)
    return Lexicon(
        categories=tuple(sorted(lists)),
        plurals={category: category for category in lists},
        memberships={word: frozenset(found) for word, found in memberships.items()},
        ambiguous=frozenset(word for word, found in memberships.items() if len(found) > 1),
        bands={},
    )


def _word_list(path: Path) -> tuple[str, ...]:
    words = [line.strip() for line in _text(path).splitlines()]
    words = [word for word in words if word and not word.startswith("#")]
    if not words:
        raise UserError("the word list is empty", where=str(path), remedy="one word a line")
    repeated = sorted(word for word, n in Counter(words).items() if n > 1)
    if repeated:
        raise UserError(
            f"words listed twice: {', '.join(repeated[:5])}",
            where=str(path),
            remedy="keep each word once",
        )
    spaced = [word for word in words if len(word.split()) > 1]
    if spaced:
        raise UserError(
            f"not a single word: {spaced[0]!r}", where=str(path), remedy="one word a line"
        )
    return tuple(words)
