"""The lexicon tables agree with each other and leave enough unambiguous words."""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

LEXICON_DIR = Path(__file__).parents[3] / "resources" / "lexicon"
MIN_CATEGORIES = 24
MIN_MEMBERS = 40
MAX_GLOSS_WORDS = 3


def _rows(name: str) -> list[dict[str, str]]:
    with (LEXICON_DIR / name).open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def categories() -> list[dict[str, str]]:
    return _rows("categories.csv")


@pytest.fixture(scope="module")
def memberships() -> list[dict[str, str]]:
    return _rows("memberships.csv")


@pytest.fixture(scope="module")
def words() -> list[dict[str, str]]:
    return _rows("words.csv")


def test_columns(categories, memberships, words):
    assert list(categories[0]) == ["category", "plural", "definition"]
    assert list(memberships[0]) == ["word", "category", "sense", "ambiguous"]
    assert list(words[0]) == ["word", "frequency_band"]


def test_categories_are_many_and_named_once(categories):
    names = [row["category"] for row in categories]
    assert len(names) >= MIN_CATEGORIES
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)?", name) for name in names)
    assert all(row["plural"] and row["definition"] for row in categories)


def test_every_category_has_enough_unambiguous_members(categories, memberships):
    counts = Counter(row["category"] for row in memberships if row["ambiguous"] == "0")
    short = {
        row["category"]: counts[row["category"]]
        for row in categories
        if counts[row["category"]] < MIN_MEMBERS
    }
    assert not short


def test_memberships_name_known_categories(categories, memberships):
    known = {row["category"] for row in categories}
    assert {row["category"] for row in memberships} == known


def test_no_row_is_repeated(memberships, words):
    pairs = Counter((row["word"], row["category"]) for row in memberships)
    assert [pair for pair, n in pairs.items() if n > 1] == []
    listed = Counter(row["word"] for row in words)
    assert [word for word, n in listed.items() if n > 1] == []


def test_ambiguous_exactly_when_in_several_categories(memberships):
    flags: dict[str, list[str]] = defaultdict(list)
    for row in memberships:
        flags[row["word"]].append(row["ambiguous"])
    wrong = {
        word: found
        for word, found in flags.items()
        if set(found) != ({"1"} if len(found) > 1 else {"0"})
    }
    assert not wrong


def test_senses_gloss_ambiguous_rows_only(memberships):
    most = {"0": 0, "1": MAX_GLOSS_WORDS}
    least = {"0": 0, "1": 1}
    wrong = [
        (row["word"], row["category"])
        for row in memberships
        if not least[row["ambiguous"]] <= len(row["sense"].split()) <= most[row["ambiguous"]]
    ]
    assert not wrong


def test_words_and_memberships_hold_the_same_words(memberships, words):
    assert {row["word"] for row in memberships} == {row["word"] for row in words}


def test_words_are_plain_and_bands_valid(words):
    assert [row["word"] for row in words if not re.fullmatch(r"[a-z]{3,12}", row["word"])] == []
    assert {row["frequency_band"] for row in words} == {"high", "mid", "low"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("orange", {"fruit", "color"}),
        ("turkey", {"bird", "country"}),
        ("salmon", {"fish", "color"}),
        ("bass", {"fish", "musical instrument"}),
        ("kiwi", {"fruit", "bird"}),
        ("tomato", {"fruit", "vegetable", "color"}),
        ("apple", {"fruit"}),
    ],
)
def test_known_memberships(memberships, word, expected):
    assert {row["category"] for row in memberships if row["word"] == word} == expected
