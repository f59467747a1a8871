"""Word problems: the chain is right, the text holds its numbers, draws repeat by seed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from interpflow.errors import UserError
from interpflow.tasks.word_problems import (
    MAX_NUMBER,
    draw_problem,
    load_parts,
    make_problems,
    read_answer,
)

PROBLEMS = make_problems(400, seed=0)
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def test_every_equation_is_true_and_uses_the_one_before() -> None:
    for problem in PROBLEMS:
        value = None
        equations = re.findall(r"(\d+) ([+*-]) (\d+) = (\d+)", problem.chain)
        assert len(equations) == len(problem.steps)
        for left, symbol, right, result in equations:
            assert OPERATIONS[symbol](int(left), int(right)) == int(result)
            assert value is None or int(left) == value
            value = int(result)
            assert 0 <= value <= MAX_NUMBER
        assert value == problem.answer == read_answer(problem.chain)


def test_the_question_states_every_given_number() -> None:
    for problem in PROBLEMS:
        given = [problem.steps[0].left, *(step.right for step in problem.steps)]
        assert [int(number) for number in re.findall(r"\d+", problem.question)] == given
        assert "{" not in problem.prompt


def test_the_words_decide_the_operation() -> None:
    for problem in PROBLEMS:
        opening, *events, _ = problem.template_id.split(".")
        parts = load_parts()
        by_id = {part.id: part.operation for part in (*parts.openings, *parts.events)}
        operations = [by_id[part] for part in (opening, *events) if by_id[part]]
        assert operations == [step.operation for step in problem.steps]


def test_problems_differ_and_repeat_by_seed() -> None:
    assert len({problem.problem_id for problem in PROBLEMS}) == len(PROBLEMS)
    assert make_problems(20, 3) == make_problems(20, 3) != make_problems(20, 4)
    assert [len(p.steps) for p in PROBLEMS[:4]] == [1, 2, 1, 2]


def test_family_ignores_names_and_items() -> None:
    families = {problem.family_id for problem in make_problems(3000, 1, (1,))}
    assert len(families) < 3000


def test_an_answer_that_is_not_stated_is_none() -> None:
    assert read_answer(" 3 + 4 = 7.") is None
    assert read_answer(" The answer is 12. The answer is 3.") == 12


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 or 2 steps"):
        draw_problem(random.Random(0), 3)
    broken = tmp_path / "parts.yaml"
    broken.write_text("names: [Anna]\n", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        load_parts(broken)
