"""Typing errors change what they say they change, and nothing else."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpflow.tasks.perturbations.letters import NEIGHBOURS
from interpflow.tasks.typos import OPERATIONS, add_typos, typo_word

TEXT = "Question: Anna has 12 apples.\nThen three neighbours bring 7 more apples to Anna."


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_each_typo_is_where_it_says(seed: int, n: int) -> None:
    found = add_typos(TEXT, n, seed)
    assert len(found.typos) == n
    rebuilt, at = "", 0
    for typo in found.typos:
        assert TEXT[typo.start : typo.start + len(typo.before)] == typo.before != typo.after
        rebuilt += TEXT[at : typo.start] + typo.after
        at = typo.start + len(typo.before)
    assert rebuilt + TEXT[at:] == found.text


@given(st.integers(0, 10_000))
def test_numbers_lines_and_protected_words_stay(seed: int) -> None:
    found = add_typos(TEXT, 20, seed, protected={"anna"})
    assert all(piece in found.text for piece in (" 12 ", " 7 ", ".\n", "Anna", "three"))
    assert len(found.typos) < 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_one_edit(operation: str) -> None:
    rng = random.Random(0)
    for _ in range(50):
        edited = typo_word("keyboard", operation, rng)
        assert len(edited) - 8 == {"insert": 1, "delete": -1}.get(operation, 0)
        assert edited[0] == "k"
        if operation == "substitute":
            changed = [(a, b) for a, b in zip("keyboard", edited, strict=True) if a != b]
            assert len(changed) == 1
            assert changed[0][1] in NEIGHBOURS[changed[0][0]]
        if operation == "transpose":
            assert sorted(edited) == sorted("keyboard")


def test_a_word_without_a_possible_edit_is_given_back() -> None:
    assert typo_word("aaaa", "transpose", random.Random(0)) == "aaaa"
    assert add_typos("aaaa", 1, 0, operations=("transpose",)).typos == ()


def test_avoided_words_are_not_produced() -> None:
    for seed in range(50):
        assert add_typos("from", 1, seed, ("transpose",), avoid={"form"}).text != "form"


def test_equal_seeds_give_equal_typos() -> None:
    assert add_typos(TEXT, 3, 5) == add_typos(TEXT, 3, 5)
    assert len({add_typos(TEXT, 3, seed).text for seed in range(10)}) > 5


def test_keyboard_neighbours_are_mutual() -> None:
    assert set(NEIGHBOURS["g"]) == set("fhtyvb")
    assert all(a in NEIGHBOURS[b] for a, near in NEIGHBOURS.items() for b in near)


def test_typos_of_a_seed_stay_what_they_were() -> None:
    """The reference models were trained on these: another draw would be another corpus."""
    texts = "".join(add_typos(TEXT, 1 + seed % 5, seed).text for seed in range(500))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "32226782e0226ca2"
