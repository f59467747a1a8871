"""Arithmetic word problems of one or two steps, with the gold answer and its chain of thought."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from interpflow.config.identity import content_hash
from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR

PARTS_PATH = RESOURCES_DIR / "templates" / "word_problems.yaml"
MAX_NUMBER = 50
MAX_FACTOR = 7
SYMBOLS = {"plus": "+", "minus": "-", "times": "*"}
FINAL_ANSWER = re.compile(r"The answer is (-?\d+)")
HELD_OUT_SHARE = 16  # one problem in sixteen, by checksum, is never trained on


@dataclass(frozen=True)
class Sentence:
    """A piece of a problem; `operation` is what it does to the number so far, or None.

    main: its words that the task turns on, as they stand in `text`.
    """

    id: str
    text: str
    operation: str | None = None
    main: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProblemParts:
    """What problems are composed of."""

    names: tuple[str, ...]
    items: tuple[str, ...]
    openings: tuple[Sentence, ...]
    events: tuple[Sentence, ...]
    questions: tuple[Sentence, ...]


@dataclass(frozen=True)
class Step:
    """left operation right = result."""

    left: int
    operation: str
    right: int
    result: int

    @property
    def text(self) -> str:
        return f"{self.left} {SYMBOLS[self.operation]} {self.right} = {self.result}"


@dataclass(frozen=True)
class WordProblem:
    """One problem. `family_id` names its wording and numbers whoever and whatever it is about."""

    problem_id: str
    family_id: str
    template_id: str
    question: str
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        return self.steps[-1].result

    @property
    def prompt(self) -> str:
        return prompt_of(self.question)

    @property
    def chain(self) -> str:
        """The right continuation of the prompt."""
        return chain_of(self.steps)


def prompt_of(question: str) -> str:
    """The text a model is asked to continue."""
    return f"Question: {question}\nAnswer:"


def chain_of(steps: tuple[Step, ...]) -> str:
    """Every step as an equation, then the answer."""
    return "".join(f" {step.text}." for step in steps) + f" The answer is {steps[-1].result}."


def read_answer(continuation: str) -> int | None:
    """The answer stated in a continuation; None when it states none."""
    found = FINAL_ANSWER.search(continuation)
    return int(found[1]) if found else None


@cache
def load_parts(path: Path = PARTS_PATH) -> ProblemParts:
    """Read the pieces; raises UserError naming the file when one is missing or unknown."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts = ProblemParts(
            names=tuple(raw["names"]),
            items=tuple(raw["items"]),
            openings=tuple(_sentence(entry) for entry in raw["openings"]),
            events=tuple(_sentence(entry) for entry in raw["events"]),
            questions=tuple(_sentence(entry) for entry in raw["questions"]),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"word-problem parts cannot be read: {error}", where=str(path)) from error
    for sentence in (*parts.openings, *parts.events):
        if sentence.operation is not None and sentence.operation not in SYMBOLS:
            raise UserError(
                f"unknown operation {sentence.operation!r} in {sentence.id!r}",
                where=str(path),
                remedy=f"choose from: {', '.join(SYMBOLS)}",
            )
    return parts


def _sentence(entry: dict[str, Any]) -> Sentence:
    return Sentence(**{**entry, "main": tuple(entry.get("main", ()))})


def held_out(problem: WordProblem) -> bool:
    """Whether the reference models are never trained on a problem.

    Decided by wording and numbers, so a held-out family is new whoever it is about.
    """
    return zlib.crc32(problem.family_id.encode()) % HELD_OUT_SHARE == 0


def draw_problem(
    rng: random.Random, n_steps: int, parts: ProblemParts | None = None
) -> WordProblem:
    """A problem of one or two steps; no number exceeds MAX_NUMBER.

    Raises ValueError for another number of steps.
    """
    if n_steps not in (1, 2):
        raise ValueError(f"problems have 1 or 2 steps, not {n_steps}")
    parts = parts or load_parts()
    while True:
        opening = rng.choice(parts.openings)
        events = rng.sample(parts.events, n_steps - (opening.operation is not None))
        numbers = _draw_opening(opening, rng)
        steps = _draw_steps(opening, events, numbers, rng)
        if steps is not None:
            break
    question = rng.choice(parts.questions)
    name, item = rng.choice(parts.names), rng.choice(parts.items)
    amounts = [step.right for step in steps[len(steps) - len(events) :]]
    sentences = [opening.text.format(name=name, item=item, **numbers)]
    sentences += [
        event.text.format(name=name, item=item, b=amount)
        for event, amount in zip(events, amounts, strict=True)
    ]
    sentences.append(question.text.format(name=name, item=item))
    template_id = ".".join(part.id for part in (opening, *events, question))
    text = " ".join(sentences)
    return WordProblem(
        problem_id=content_hash(["word_problem", text]),
        family_id=content_hash([template_id, [[step.left, step.right] for step in steps]]),
        template_id=template_id,
        question=text,
        steps=steps,
    )


def _draw_opening(opening: Sentence, rng: random.Random) -> dict[str, int]:
    if opening.operation is None:
        return {"a": rng.randint(2, MAX_NUMBER - 1)}
    return {"a": rng.randint(2, MAX_FACTOR), "b": rng.randint(2, MAX_FACTOR)}


def _draw_steps(
    opening: Sentence, events: list[Sentence], numbers: dict[str, int], rng: random.Random
) -> tuple[Step, ...] | None:
    value, steps = numbers["a"], []
    if opening.operation is not None:
        steps.append(Step(value, opening.operation, numbers["b"], value * numbers["b"]))
        value = steps[-1].result
    for event in events:
        largest = MAX_NUMBER - value if event.operation == "plus" else value
        if largest < 1:
            return None
        right = rng.randint(1, largest)
        result = value + right if event.operation == "plus" else value - right
        steps.append(Step(value, str(event.operation), right, result))
        value = result
    return tuple(steps)


def make_problems(n: int, seed: int, n_steps: tuple[int, ...] = (1, 2)) -> list[WordProblem]:
    """`n` different problems, the numbers of steps in turn; equal seeds give equal problems."""
    rng = random.Random(seed)
    found: dict[str, WordProblem] = {}
    while len(found) < n:
        problem = draw_problem(rng, n_steps[len(found) % len(n_steps)])
        found.setdefault(problem.problem_id, problem)
    return list(found.values())
