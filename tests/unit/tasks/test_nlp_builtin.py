"""Built-in small language tasks: every item is sound, drawn ones follow their seed, and shots."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from interpflow.errors import UserError
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items, end_of, with_shots
from interpflow.tasks.nlp.held_out import GENERATED_TASKS, held_out
from interpflow.tasks.nlp.items import SCORERS, TaskItem, items_of_rows
from interpflow.tasks.nlp.listed import LISTED_TASKS, listed_items
from interpflow.tasks.nlp.scorers import is_correct

N_DRAWN = 80


def items_of(task: str) -> list[TaskItem]:
    return builtin_items(task, None if task in LISTED_TASKS else N_DRAWN, 3)


@pytest.mark.parametrize("task", BUILTIN_TASKS)
def test_items_are_sound(task: str) -> None:
    items = items_of(task)
    assert len(items) >= 30
    assert len({item.prompt for item in items}) == len(items)
    assert len({item.example_id for item in items}) == len(items)
    for item in items:
        assert item.task == task
        assert item.scorer in SCORERS
        assert item.scorer != "free"
        # The space belongs to the answer, unless the last line is nothing but indented.
        last = item.prompt.rsplit("\n", 1)[-1]
        assert not last.strip() or not last.endswith(" ")
        assert item.answer.strip() == item.accepted[0]
        assert len(item.prompt.split()) <= 24
        assert is_correct(item, item.answer + end_of(task) + " Then more.") is True
        assert is_correct(item, " something else") is False
    assert items_of_rows([item.to_row() for item in items]) == items


@pytest.mark.parametrize("task", BUILTIN_TASKS)
def test_every_split_has_families(task: str) -> None:
    assert {item.split for item in items_of(task)} == {"discover", "develop", "confirm"}


@pytest.mark.parametrize("task", LISTED_TASKS)
def test_answers_are_single_words(task: str) -> None:
    assert all(len(item.answer.split()) == 1 for item in listed_items(task))


@pytest.mark.parametrize("task", ["addition", "addition_three"])
def test_sums_and_carries(task: str) -> None:
    items = builtin_items(task, N_DRAWN, 1)
    for item in items:
        terms = [int(term) for term in item.prompt.removesuffix(" =").split(" + ")]
        assert len(terms) == (3 if task == "addition_three" else 2)
        assert item.answer == f" {sum(terms)}"
        assert sum(terms) <= 99
        carries = sum(term % 10 for term in terms) > 9
        assert item.kind == ("carry" if carries else "no_carry")
    assert 0.3 < sum(item.kind == "carry" for item in items) / len(items) < 0.7


def test_order_of_terms_is_one_family() -> None:
    items = builtin_items("addition", 400, 1)
    by_terms: dict[tuple[str, ...], set[str]] = {}
    for item in items:
        terms = tuple(sorted(item.prompt.removesuffix(" =").split(" + ")))
        by_terms.setdefault(terms, set()).add(item.family_id)
    assert len(by_terms) < len(items)  # some pairs do come in both orders
    assert all(len(families) == 1 for families in by_terms.values())


def test_json_answers_complete_the_line() -> None:
    kinds = set()
    for item in builtin_items("json", N_DRAWN, 1):
        first, last = item.prompt.split("\n")
        json.loads(first)
        kinds.add(item.kind)
        if item.kind == "next_key":
            key = item.answer.strip().removesuffix(":")
            assert list(json.loads(first))[1] == json.loads(key)
        else:
            json.loads(last + item.answer)
        with pytest.raises(json.JSONDecodeError):
            json.loads(last)
    assert kinds == {"close_object", "close_list", "close_nested", "next_key"}


def test_brackets_must_not_go_on() -> None:
    item = next(i for i in builtin_items("json", N_DRAWN, 1) if i.kind == "close_nested")
    assert is_correct(item, "}}\n") is True
    assert is_correct(item, " } } ]") is True
    assert is_correct(item, " }") is False
    assert is_correct(item, " } } }") is False


def test_copies_and_patterns_hold_their_answer() -> None:
    for item in builtin_items("copying", N_DRAWN, 1):
        listed, again = item.prompt.split(". ")
        assert f"{again}{item.answer}" == listed
    for item in builtin_items("pattern", N_DRAWN, 1):
        shown = item.prompt.removesuffix(",").split(", ")
        if item.kind == "repeating":
            assert item.answer.strip() in shown
        else:
            numbers = [int(each) for each in (*shown, item.answer)]
            steps = {b - a for a, b in itertools.pairwise(numbers)}
            assert len(steps) == 1
            assert (steps.pop() > 0) == (item.kind == "rising")
            assert all(0 < number <= 99 for number in numbers)


def test_drawn_items_follow_their_seed_and_are_held_out() -> None:
    for task in GENERATED_TASKS:
        first, again, other = (builtin_items(task, 30, seed) for seed in (1, 1, 2))
        assert first == again
        assert first != other
        assert all(held_out(item) for item in first)


def test_listed_items_are_chosen_by_seed() -> None:
    few = builtin_items("phrases", 10, 1)
    assert len(few) == 10
    assert few == builtin_items("phrases", 10, 1)
    assert set(few) <= set(listed_items("phrases"))
    assert len(builtin_items("phrases", 10_000, 1)) == len(listed_items("phrases"))


def test_a_drawn_task_gives_all_that_it_has() -> None:
    items = builtin_items("addition", 100_000, 1)
    pairs = {tuple(item.prompt.removesuffix(" =").split(" + ")) for item in items}
    # Of 4851 prompts one family in five is held out.
    assert len(pairs) == len(items)
    assert 700 < len(items) < 1200


def test_wordings_and_directions_share_a_family() -> None:
    families = {item.prompt: item.family_id for item in listed_items("world_facts")}
    assert families["The capital of France is"] == families["The capital city of France is"]
    assert families["The capital of France is"] != families["Most people in France speak"]
    families = {item.prompt: item.family_id for item in listed_items("antonyms")}
    assert families["The opposite of hot is"] == families["The opposite of cold is"]


def test_inverted_pairs_accept_what_they_should() -> None:
    by_prompt = {item.prompt: item for item in listed_items("homophones")}
    assert by_prompt["A word that sounds the same as write is"].accepted == ("right", "rite")
    by_prompt = {item.prompt: item for item in listed_items("antonyms")}
    assert by_prompt["The opposite of bad is"].accepted == ("good",)


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'addition'"):
        builtin_items("additon", None, 1)


def test_repeated_prompt_of_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "phrases.yaml").write_text("- {rows: {a: b}}\n- {rows: {a: c}}\n")
    with pytest.raises(UserError, match="twice"):
        listed_items("phrases", tmp_path)


@pytest.mark.parametrize("task", ["antonyms", "addition", "json"])
def test_shots_are_of_other_families(task: str) -> None:
    items = builtin_items(task, 60, 1)
    by_prompt = {item.prompt: item for item in items}
    shown = with_shots(items, 2, 5)
    assert len(shown) == len(items)
    assert shown == with_shots(items, 2, 5)
    for item, plain in zip(shown, items, strict=True):
        assert item.prompt.endswith(plain.prompt)
        assert item.answer == plain.answer
        assert item.family_id == plain.family_id
        assert item.split == plain.split
        before = item.prompt.removesuffix(plain.prompt)
        used = [each for each in items if f"{each.prompt}{each.answer}" in before]
        assert len({each.family_id for each in used}) == 2
        assert all(each.family_id != plain.family_id for each in used)
        assert by_prompt[plain.prompt] is plain


def test_shots_come_from_the_same_split_where_it_has_enough() -> None:
    items = builtin_items("addition", 80, 1)
    prompts = {item.prompt: item.split for item in items}
    for item in with_shots(items, 2, 1):
        lines = item.prompt.split("\n")[:-1]
        assert all(prompts[line.rsplit(" ", 1)[0]] == item.split for line in lines)


def test_no_shots_without_other_families() -> None:
    items = builtin_items("phrases", 3, 1)
    assert with_shots(items, 0, 1) == items
    assert len(with_shots(items, 2, 1)) == 3
    assert with_shots(items, 3, 1) == []
