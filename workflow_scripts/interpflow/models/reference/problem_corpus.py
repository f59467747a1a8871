"""Word-problem rows with their chain of thought, some misspelt, and arithmetic drill rows."""

from __future__ import annotations

import random
import string

from transformers import PreTrainedTokenizerFast

from interpflow.models.reference.interchange import PairBatch
from interpflow.models.reference.recipe import RecipeConfig
from interpflow.models.reference.rows import Row
from interpflow.models.reference.tokenizer import build_tokenizer
from interpflow.tasks.typos import add_typos
from interpflow.tasks.word_problems import (
    MAX_FACTOR,
    MAX_NUMBER,
    SYMBOLS,
    Step,
    WordProblem,
    draw_problem,
    held_out,
    load_parts,
    prompt_of,
)

MAX_TRAINED_TYPOS = 2
EVALUATED_TYPOS = (1, 2, 4)
EQUATIONS_PER_DRILL_ROW = 8


def problem_texts() -> list[str]:
    """Every piece of text a problem or its chain can contain, numbers apart."""
    parts = load_parts()
    texts = [
        sentence.text.format(name=name, item=item, a=1, b=1)
        for sentence in (*parts.openings, *parts.events, *parts.questions)
        for name, item in zip(parts.names, parts.items, strict=True)
    ]
    equations = [f" 1 {symbol} 1 = 1. The answer is 1." for symbol in SYMBOLS.values()]
    return [*(f"{text} {text}" for text in texts), *equations, prompt_of("How")]


class ProblemMaterial:
    """Problems of one and two steps in equal parts."""

    def __init__(self, recipe: RecipeConfig) -> None:
        parts = load_parts()
        self.recipe = recipe
        self.tokenizer: PreTrainedTokenizerFast = build_tokenizer(
            (*parts.names, *parts.items), problem_texts()
        )

    def draw(self, rng: random.Random, n_steps: int, from_held_out: bool) -> WordProblem:
        while True:
            problem = draw_problem(rng, n_steps)
            if held_out(problem) == from_held_out:
                return problem

    def task_rows(self, rng: random.Random) -> list[Row]:
        return [self._task_row(rng, 1 + index % 2) for index in range(self.recipe.corpus.task_rows)]

    def _task_row(self, rng: random.Random, n_steps: int) -> Row:
        problem = self.draw(rng, n_steps, from_held_out=False)
        question = problem.question
        if rng.random() < self.recipe.corpus.unknown_word_share:
            question = with_unknown_words(question, rng)
        if rng.random() < self.recipe.corpus.typo_share:
            n_typos = rng.randint(1, MAX_TRAINED_TYPOS)
            question = add_typos(question, n_typos, rng.getrandbits(32)).text
        return Row.answering(prompt_of(question), problem.chain)

    def drill_rows(self, rng: random.Random) -> list[Row]:
        return [self._drill_row(rng) for _ in range(self.recipe.corpus.drill_rows)]

    def _drill_row(self, rng: random.Random) -> Row:
        text, scored = "", []
        for _ in range(EQUATIONS_PER_DRILL_ROW):
            left, right = f" {_draw_equation(rng).text}.".rsplit(" ", 1)
            text += left
            scored.append((len(text), len(text) + len(right)))
            text += f" {right}"
        return Row(text, tuple(scored))

    def pairs(self, rng: random.Random) -> PairBatch | None:
        return None


def with_unknown_words(question: str, rng: random.Random) -> str:
    """Made-up names for the person, the things, or both."""
    parts = load_parts()
    known = [word for word in (*parts.names, *parts.items) if word in question]
    for word in rng.sample(known, rng.randint(1, len(known))):
        made = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9)))
        question = question.replace(word, made.capitalize() if word[0].isupper() else made)
    return question


def _draw_equation(rng: random.Random) -> Step:
    operation = rng.choice(tuple(SYMBOLS))
    if operation == "times":
        left, right = rng.randint(2, MAX_FACTOR), rng.randint(2, MAX_FACTOR)
        return Step(left, operation, right, left * right)
    total = rng.randint(1, MAX_NUMBER)
    part = rng.randint(1, total)
    if operation == "plus":
        return Step(total - part, operation, part, total)
    return Step(total, operation, part, total - part)


def evaluation_rows(material: ProblemMaterial, rng: random.Random, n: int) -> dict[str, list[Row]]:
    """Held-out problems: of one and of two steps, and both with 1, 2 and 4 typing errors."""
    problems = {steps: [material.draw(rng, steps, True) for _ in range(n)] for steps in (1, 2)}
    groups = {
        f"steps/{steps}": [Row.answering(p.prompt, p.chain) for p in drawn]
        for steps, drawn in problems.items()
    }
    mixed = [problem for pair in zip(problems[1], problems[2], strict=True) for problem in pair][:n]
    groups["overall"] = [Row.answering(p.prompt, p.chain) for p in mixed]
    for n_typos in EVALUATED_TYPOS:
        groups[f"typos/{n_typos}"] = [
            Row.answering(
                prompt_of(add_typos(p.question, n_typos, rng.getrandbits(32)).text), p.chain
            )
            for p in mixed
        ]
    return groups
