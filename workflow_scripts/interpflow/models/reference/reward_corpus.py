"""Answers to word problems, right and wrong in known ways, for the embedded reward model."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from interpflow.tasks.word_problems import (
    MAX_NUMBER,
    SYMBOLS,
    Step,
    WordProblem,
    chain_of,
    draw_problem,
    held_out,
)

NEAR = (-10, -3, -2, -1, 1, 2, 3, 10)  # how far a slip goes
MAX_REPEATS = 3


@dataclass(frozen=True)
class WrongAnswer:
    """A worse answer than the right chain, and the kind of its fault."""

    kind: str
    text: str


def draw(rng: random.Random, n_steps: int, *, from_held_out: bool) -> WordProblem:
    """A problem of the trained families, or of the held-out ones."""
    while True:
        problem = draw_problem(rng, n_steps)
        if held_out(problem) == from_held_out:
            return problem


def right_answer(problem: WordProblem) -> str:
    return problem.chain.strip()


def wrong_answer(problem: WordProblem, kind: str, rng: random.Random) -> WrongAnswer:
    """An answer with one fault of a kind in WRONG; it never equals the right one."""
    right = right_answer(problem)
    while True:
        text = WRONG[kind](problem, rng).strip()
        if text != right:
            return WrongAnswer(kind, text)


def recalculated(problem: WordProblem, changed: int, step: Step) -> tuple[Step, ...]:
    """The steps with one replaced, and what follows worked out from its result.

    A later operand that was the replaced step's result is taken over; nothing else changes.
    """
    steps = [*problem.steps]
    steps[changed] = step
    for index in range(changed + 1, len(steps)):
        left = steps[index - 1].result
        steps[index] = worked_out(replace(steps[index], left=left))
    return tuple(steps)


def worked_out(step: Step) -> Step:
    """The step with the result of its own numbers."""
    results = {
        "plus": step.left + step.right,
        "minus": step.left - step.right,
        "times": step.left * step.right,
    }
    return replace(step, result=results[step.operation])


def _arithmetic(problem: WordProblem, rng: random.Random) -> str:
    at = rng.randrange(len(problem.steps))
    step = problem.steps[at]
    slipped = max(0, step.result + rng.choice(NEAR))
    return chain_of(recalculated(problem, at, replace(step, result=slipped)))


def _operation(problem: WordProblem, rng: random.Random) -> str:
    at = rng.randrange(len(problem.steps))
    step = problem.steps[at]
    operation = rng.choice([name for name in SYMBOLS if name != step.operation])
    return chain_of(recalculated(problem, at, worked_out(replace(step, operation=operation))))


def _operand(problem: WordProblem, rng: random.Random) -> str:
    at = rng.randrange(len(problem.steps))
    step = problem.steps[at]
    numbers = {number for s in problem.steps for number in (s.left, s.right)}
    near = [step.right + rng.choice(NEAR), rng.randint(1, MAX_NUMBER), *sorted(numbers)]
    other = max(1, rng.choice(near))
    side = "left" if at == 0 and rng.random() < 0.5 else "right"
    return chain_of(recalculated(problem, at, worked_out(replace(step, **{side: other}))))


def _statement(problem: WordProblem, rng: random.Random) -> str:
    """Right steps, and another number as the answer."""
    shown = {number for s in problem.steps for number in (s.left, s.right, s.result)}
    stated = rng.choice([problem.answer + rng.choice(NEAR), *sorted(shown)])
    equations = problem.chain.split(" The answer")[0]
    return f"{equations} The answer is {max(0, stated)}."


def _unstated(problem: WordProblem, rng: random.Random) -> str:
    """The last sentence, or more, is missing."""
    words = problem.chain.split()
    at_statement = words.index("The")
    return " ".join(words[: at_statement if rng.random() < 0.5 else rng.randrange(len(words))])


def _rambling(problem: WordProblem, rng: random.Random) -> str:
    """The right answer, and then more: itself again, the question, or another exercise."""
    more = rng.choice(("repeat", "question", "exercise"))
    if more == "repeat":
        part = rng.choice((problem.chain, " " + problem.chain.strip().split(". ")[-1]))
        return problem.chain + part * rng.randint(1, MAX_REPEATS)
    if more == "question":
        sentences = problem.question.split(". ")
        return f"{problem.chain} {rng.choice(sentences).rstrip('.')}."
    return problem.chain + draw_problem(rng, rng.choice((1, 2))).chain


def _other_problem(problem: WordProblem, rng: random.Random) -> str:
    return draw_problem(rng, len(problem.steps)).chain


def _missing_step(problem: WordProblem, rng: random.Random) -> str:
    """Only one of two steps is taken; for a problem of one step, the answer without its step."""
    if len(problem.steps) == 1:
        return f"The answer is {rng.choice((problem.steps[0].left, problem.steps[0].right))}."
    first, second = problem.steps
    only = rng.choice((first, worked_out(replace(second, left=first.left))))
    return chain_of((only,))


WRONG: dict[str, Callable[[WordProblem, random.Random], str]] = {
    "arithmetic": _arithmetic,
    "operation": _operation,
    "operand": _operand,
    "statement": _statement,
    "unstated": _unstated,
    "rambling": _rambling,
    "other problem": _other_problem,
    "missing step": _missing_step,
}
# What only the numbers give away takes far longer to learn than the rest.
NUMBER_FAULTS = ("arithmetic", "operand", "statement", "other problem")
OTHER_FAULTS = tuple(kind for kind in WRONG if kind not in NUMBER_FAULTS)


def drawn_kinds(rng: random.Random) -> list[str]:
    """Three kinds of fault to train on: two of numbers, and another."""
    return [*rng.sample(NUMBER_FAULTS, 2), rng.choice(OTHER_FAULTS)]
