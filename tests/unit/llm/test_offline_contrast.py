"""The contrast of two groups of texts: planted differences are found, nulls give z ~ N(0, 1)."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy import stats

from interpflow.errors import UserError
from interpflow.llm.offline.contrast import (
    CONTRAST_SCHEMA,
    contrast,
    contrast_form,
    contrast_terms,
)
from interpflow.llm.offline.text_features import count_text

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrt"]  # 125 words


def texts(rng: random.Random, n: int, clumps: bool = False, extra: str = "") -> list[str]:
    """Random texts of 30 to 60 words; with clumps each has a topic of few words; `extra` stands
    in half of them."""
    made = []
    for _ in range(n):
        pool = rng.sample(WORDS, 8) if clumps else WORDS
        words = [
            rng.choice(pool if rng.random() < 0.7 else WORDS) for _ in range(rng.randint(30, 60))
        ]
        if extra and rng.random() < 0.5:
            words.insert(rng.randrange(len(words)), extra)
        made.append(" ".join(words) + ".")
    return made


def propose(a: list[str], b: list[str], **more: Any) -> list[dict[str, Any]]:
    found = contrast({"task": "contrast", "a": a, "b": b, **more}, 0)
    jsonschema.validate(found, CONTRAST_SCHEMA)
    return found["hypotheses"]


def test_a_planted_word_comes_first() -> None:
    rng = random.Random(1)
    top = propose(texts(rng, 60, extra="mup"), texts(rng, 60))[0]
    assert (top["feature"], top["direction"]) == ("word: mup", "a")
    assert top["z"] > 3
    assert 'use "mup" more often' in top["text"]


def test_a_planted_pair_is_told_from_its_words() -> None:
    # "not" and "good" are equally frequent in both groups, side by side only in the second.
    rng = random.Random(2)
    apart = [f"not {text} good" for text in texts(rng, 40)]
    together = [f"not good {text}" for text in texts(rng, 40)]
    top = propose(apart, together)[0]
    assert (top["feature"], top["direction"]) == ("pair: not good", "b")
    assert top["z"] < -3.5


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("questions", lambda text: text.replace(".", "?")),
        ("exclamations", lambda text: text.replace(".", "!")),
        ("digit_share", lambda text: "1234 " + text),
        ("capital_share", lambda text: text.capitalize()),
        ("lines", lambda text: text.replace(" ", "\n", 3)),
        ("words", lambda text: f"{text} {text}"),
    ],
)
def test_a_difference_of_form_is_found(feature: str, change: Any) -> None:
    rng = random.Random(3)
    found = propose(texts(rng, 50), [change(text) for text in texts(rng, 50)])
    strong = {each["feature"]: each for each in found if abs(each["z"]) > 5}
    assert strong[f"form: {feature}"]["direction"] == "b"


def null_z(clumps: bool) -> np.ndarray:
    scores = []
    for seed in range(12):
        rng = random.Random(seed)
        groups = [[count_text(text) for text in texts(rng, 60, clumps)] for _ in range(2)]
        scores += [each["z"] for each in contrast_terms(*groups)
                   if each["feature"].startswith("word")]  # fmt: skip
    return np.array(scores)


@pytest.mark.parametrize("clumps", [False, True])
def test_null_texts_give_standard_normal_scores(clumps: bool) -> None:
    z = null_z(clumps)
    assert len(z) > 1000
    assert abs(z.mean()) < 0.05
    assert 0.88 < z.std() < 1.06
    # About the nominal share of false discoveries.
    assert 0.03 < (np.abs(z) > stats.norm.isf(0.025)).mean() < 0.065
    assert 0.002 < (np.abs(z) > stats.norm.isf(0.005)).mean() < 0.02


def test_words_as_units_would_see_differences_in_clumped_texts() -> None:
    """Why the texts are the units: the paper's variance alone is far too small here."""
    rng = random.Random(0)
    groups = [[count_text(text) for text in texts(rng, 60, clumps=True)] for _ in range(2)]
    counts = [np.array([sum(t.terms[w] for t in group) for w in WORDS]) for group in groups]
    sizes = [sum(t.n_words for t in group) for group in groups]
    odds = [np.log((y + 1) / (n - y + 1)) for y, n in zip(counts, sizes)]
    z = (odds[0] - odds[1]) / np.sqrt(1 / (counts[0] + 1) + 1 / (counts[1] + 1))
    assert z.std() > 1.5


def test_null_texts_give_standard_normal_scores_of_form() -> None:
    scores: dict[str, list[float]] = {}
    for seed in range(150):
        rng = random.Random(seed)
        groups = [[count_text(text) for text in texts(rng, 25)] for _ in range(2)]
        for each in contrast_form(*groups):
            scores.setdefault(each["feature"], []).append(each["z"])
    for name in ("form: words", "form: punctuation_share"):
        signed = np.array(scores[name])
        assert 0.85 < signed.std() < 1.15
        assert abs(signed.mean()) < 0.2


def test_the_log_odds_are_those_of_the_paper() -> None:
    """Texts of one word are independent words: the paper's z to the last digit."""
    a = [count_text(word) for word in ["cat"] * 20 + ["dog"] * 10]
    b = [count_text(word) for word in ["cat"] * 10 + ["dog"] * 20]
    found = {each["feature"]: each["z"] for each in contrast_terms(a, b)}
    strength = 0.05 * 30
    prior = strength * (30 + 0.5) / (60 + 0.5 * 2)
    y_a, y_b, n = 20 + prior, 10 + prior, 30 + strength
    delta = np.log(y_a / (n - y_a)) - np.log(y_b / (n - y_b))
    assert found["word: cat"] == pytest.approx(delta / np.sqrt(1 / y_a + 1 / y_b), abs=1e-4)
    assert found["word: dog"] == pytest.approx(-found["word: cat"], abs=1e-4)


def test_more_texts_than_hypotheses_and_too_few_texts() -> None:
    rng = random.Random(5)
    a, b = texts(rng, 10), texts(rng, 10)
    assert len(propose(a, b, max_hypotheses=3)) == 3
    assert propose(a, b) == propose(a, b)
    with pytest.raises(UserError, match="at least 4 texts"):
        propose(a[:3], b)
    assert propose([""] * 5, [""] * 5) == []
    assert all(each["feature"].startswith("form") for each in propose(a, [""] * 5))
