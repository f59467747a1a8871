"""Many random edits of many texts: what must stay stays, and a second run gives the same bytes."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata

import pytest

from interpflow.tasks.perturbations.operators import NULL, OPERATORS
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.text import PerturbedText, Placement, SourceText, moved
from interpflow.tasks.perturbations.words import negations_of, numbers_of, protected_spans
from interpflow.tasks.word_problems import load_parts, make_problems

ODD_TEXTS = (
    "Compute 12 + 7 * (3 - 1) = ? Do not round.\nGive the well-known result, never a guess.",
    "Straße, café, naïve Ærøskøbing: don’t translate “déjà vu”; cost: 1,234.50 € or 3rd prize.",
    "हिन्दी में लिखो।\nПривет, мир! Сколько будет дважды два?\n日本語で twelve 個のリンゴを書く。",
    "a b c d\n\n\te f I",
    "FOR ONE DAY ONLY: the man who won ate too many apples for tea, did he?",
    "Someone told no one that the window is now open; anyone may note the weightless ones.",
)


def _sources(n: int) -> list[SourceText]:
    parts = load_parts()
    bearing = re.compile("|".join(parts.items))
    sources = []
    for problem in make_problems(n, 0):
        words = [match.span() for match in re.finditer(r"[A-Za-z]+", problem.question)]
        rng = random.Random(problem.problem_id)
        kinds = [rng.choice("mo.") for _ in words]
        sources.append(
            SourceText(
                problem.question,
                protected=tuple(match.span() for match in bearing.finditer(problem.question)),
                main=tuple(word for word, kind in zip(words, kinds) if kind == "m"),
                other=tuple(word for word, kind in zip(words, kinds) if kind == "o"),
            )
        )
    return [*sources, *(SourceText(text) for text in ODD_TEXTS)]


def _run(n_edits: int, check: bool) -> tuple[str, int, set[str]]:
    """Digest of all outcomes, edits made, operators that made one."""
    rng = random.Random(7)
    sources = _sources(120)
    digest, made, seen = hashlib.sha256(), 0, set()
    call = 0
    names = tuple(OPERATORS)
    placements: tuple[Placement, ...] = ("any", "any", "main", "other")
    while made < n_edits:
        source = rng.choice(sources)
        operator = names[call % len(names)]
        rate = rng.choice((None, None, 0.1, 0.5, 1.0))
        found = perturb(
            source,
            operator,
            seed=call,
            example_id=f"item {call % 997}",
            n_edits=rng.randint(1, 4),
            rate=rate,
            placement=rng.choice(placements),
            strength=rng.randint(1, 3),
            variant=rng.randint(0, 2),
        )
        call += 1
        digest.update(repr(found).encode())
        if isinstance(found, PerturbedText):
            made += found.n_edits
            seen.add(operator)
            if check:
                _check(source, found)
    return digest.hexdigest(), made, seen


def _check(source: SourceText, found: PerturbedText) -> None:
    text, operator = source.text, found.operator
    assert (found.text == text) == (operator == NULL)
    found.text.encode()
    if OPERATORS[operator].family != "obfuscation" and unicodedata.is_normalized("NFC", text):
        assert unicodedata.is_normalized("NFC", found.text)
    assert found.text.count("\n") == text.count("\n")
    for start, end in protected_spans(source):
        assert all(edit.end <= start or end <= edit.start for edit in found.edits)
        a, b = moved((start, end), found.edits)
        assert found.text[a:b] == text[start:end]
    assert numbers_of(found.text) == numbers_of(text)
    assert negations_of(found.text) == negations_of(text)
    at = new_at = 0
    for edit in found.edits:
        assert found.text[new_at : edit.new_start] == text[at : edit.start]
        assert at <= edit.start <= edit.end
        at, new_at = edit.end, edit.new_end
    assert found.text[new_at:] == text[at:]


def test_three_thousand_edits_keep_every_promise() -> None:
    digest, _, seen = _run(3000, check=True)
    assert seen == set(OPERATORS)
    assert _run(3000, check=False)[0] == digest


@pytest.mark.slow
def test_a_hundred_thousand_edits_keep_every_promise() -> None:
    digest, made, _ = _run(100_000, check=True)
    assert made >= 100_000
    assert _run(100_000, check=False)[0] == digest
