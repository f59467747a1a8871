"""Neutral stories: length, variety, agreement, and that they follow their seed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from interpflow.errors import UserError
from interpflow.tasks.nlp.stories import MAX_WORDS, MIN_WORDS, stories, story, told
from interpflow.tasks.nlp.story_material import load_material

TEXTS = stories(3000, 11)


def test_stories_follow_their_seed() -> None:
    assert story(5) == story(5) != story(6)
    assert stories(50, 3) == stories(80, 3)[:50]
    assert stories(5, 3) != stories(5, 4)
    assert len(set(TEXTS)) == len(TEXTS)


def test_length_and_vocabulary() -> None:
    lengths = [len(text.split()) for text in TEXTS]
    assert min(lengths) >= MIN_WORDS
    assert max(lengths) <= MAX_WORDS
    words = {word for text in TEXTS for word in re.findall(r"[A-Za-z]+", text)}
    assert 200 < len(words) < 500


def test_every_hole_is_filled() -> None:
    assert not [text for text in TEXTS if re.search(r"[{}]|\s\s|\s[.,]", text)]
    assert all(text.endswith(".") for text in TEXTS)


def test_there_are_a_million_of_them() -> None:
    # Of n draws from N equally likely ones n²/2N are expected to repeat.
    rng = random.Random(2)
    n = 6000
    repeats = n - len({told(rng).text for _ in range(n)})
    assert repeats <= n**2 / 2 / 1e6


def test_people_and_things_come_back() -> None:
    rng = random.Random(0)
    for _ in range(500):
        made = told(rng)
        assert made.name != made.friend
        assert made.text.count(made.name) >= 1
        assert made.friend in made.text
        assert made.text.count(made.thing) >= 2
        assert made.place in made.text


def test_pronouns_agree_where_all_are_of_one_kind() -> None:
    gender = dict(load_material().names)
    rng = random.Random(1)
    checked = 0
    for _ in range(2000):
        made = told(rng)
        kinds = {gender[made.name], gender[made.friend]}
        if len(kinds) == 1:
            wrong = {"she": r"\b(he|him|his)\b", "he": r"\b(she|her)\b"}[kinds.pop()]
            assert not re.search(wrong, made.text, re.I), made.text
            checked += 1
    assert checked > 500


def test_what_cannot_happen_does_not() -> None:
    material = {problem.id: problem for problem in load_material().problems}
    rng = random.Random(3)
    for _ in range(1000):
        made = told(rng)
        assert made.thing not in material[made.problem].not_for


def test_broken_material_is_named(tmp_path: Path) -> None:
    (tmp_path / "stories.yaml").write_text("names: {}\n")
    with pytest.raises(UserError, match="story material"):
        load_material(tmp_path / "stories.yaml")
