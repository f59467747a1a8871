"""Word problems as base items: only those that the reference models were never trained on."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from interpflow.errors import UserError
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.perturbations.text import Span
from interpflow.tasks.perturbations.words import numbers_of
from interpflow.tasks.word_kinds import source_text
from interpflow.tasks.word_problems import (
    ProblemParts,
    Sentence,
    Step,
    WordProblem,
    chain_of,
    draw_problem,
    held_out,
    load_parts,
)

SOURCE = "word_problems"
# Draws in a row without a new family, after which there are held to be no more.
MAX_FRUITLESS_DRAWS = 20_000


def problem_items(n: int, seed: int, steps: Sequence[int] = (1, 2)) -> list[BaseItem]:
    """`n` held-out problems of different families, the numbers of steps in turn.

    Equal seeds give equal items, and more of them begin with the fewer. Raises UserError where
    there are fewer than `n` families.
    """
    rng = random.Random(seed)
    found: dict[str, WordProblem] = {}
    fruitless = 0
    while len(found) < n:
        problem = draw_problem(rng, steps[len(found) % len(steps)])
        if held_out(problem) and problem.family_id not in found:
            found[problem.family_id] = problem
            fruitless = 0
        else:
            fruitless += 1
        if fruitless == MAX_FRUITLESS_DRAWS:
            raise UserError(
                f"there are hardly more than {len(found)} word problems of "
                f"{' and '.join(map(str, steps))} steps that differ and are held out of training",
                where="robustness.data.n_items",
                remedy="ask for fewer, or for problems of two steps as well",
            )
    return [problem_item(problem) for problem in found.values()]


def problem_item(problem: WordProblem) -> BaseItem:
    """A problem with its numbers protected and the words that say what happens as its main ones."""
    return BaseItem(
        base_id=problem.problem_id,
        family_id=problem.family_id,
        template_id=problem.template_id,
        source=SOURCE,
        question=source_text(
            problem.question, main=main_words(problem.template_id, problem.question)
        ),
        gold=str(problem.answer),
        gold_kind="number",
        continuation=problem.chain,
    )


def main_words(template_id: str, question: str) -> list[Span]:
    """The words that the templates of a problem call main, as characters of its question."""
    parts = load_parts()
    spans: list[Span] = []
    sentences = _sentence_spans(question)
    for sentence, (start, end) in zip(sentences_of(template_id, parts), sentences, strict=True):
        for word in sentence.main:
            match = re.compile(rf"\b{re.escape(word)}\b").search(question, start, end)
            if match is None:
                raise ValueError(f"{sentence.id!r} does not hold its main word {word!r}")
            spans.append(match.span())
    return spans


def sentences_of(template_id: str, parts: ProblemParts) -> list[Sentence]:
    """The pieces that a problem was composed of: its opening, its events, its question."""
    opening, *events, question = template_id.split(".")
    by_id = [{part.id: part for part in kind} for kind in (parts.openings, parts.events,
                                                            parts.questions)]  # fmt: skip
    return [by_id[0][opening], *(by_id[1][event] for event in events), by_id[2][question]]


def problem_gold(template_id: str, question: str) -> tuple[str, str] | None:
    """(answer, chain) by the template's operations on the numbers that a text holds, in order.

    None where it does not hold as many numbers as the template has, or one that is not plain.
    """
    numbers = numbers_of(question)
    opening, *events, _ = sentences_of(template_id, load_parts())
    n_opening = 1 if opening.operation is None else 2
    if len(numbers) != n_opening + len(events) or not all(map(str.isdecimal, numbers)):
        return None
    value, *rest = map(int, numbers)
    operations = [part.operation for part in (opening, *events) if part.operation is not None]
    done: list[Step] = []
    for operation, right in zip(operations, rest, strict=True):
        result = {"plus": value + right, "minus": value - right, "times": value * right}[operation]
        done.append(Step(value, operation, right, result))
        value = result
    return str(value), chain_of(tuple(done))


def _sentence_spans(question: str) -> list[Span]:
    """Every sentence of a problem ends with the only full stop or question mark in it."""
    return [match.span() for match in re.finditer(r"[^.?]+[.?]", question)]
