"""Built-in base items: what is protected, what is main, and gold answers of variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from interpflow.errors import UserError
from interpflow.tasks import problem_items as problem_module
from interpflow.tasks.base_items import BaseItem
from interpflow.tasks.instructions import instruction_frame, instruction_items
from interpflow.tasks.perturbations.text import Span
from interpflow.tasks.problem_items import problem_gold, problem_items, sentences_of
from interpflow.tasks.variant_gold import CHANGED, LOST, variant_gold
from interpflow.tasks.word_kinds import content_words, protected_spans, source_text
from interpflow.tasks.word_problems import held_out, load_parts, make_problems

ITEMS = problem_items(120, seed=0)


def pieces(text: str, spans: tuple[Span, ...] | list[Span]) -> list[str]:
    return [text[start:end] for start, end in spans]


def arithmetic_item(question: str, gold: str, continuation: str) -> BaseItem:
    return BaseItem("b", "b", "t", "file", source_text(question), gold, "number", continuation)


def test_problems_are_held_out_and_of_different_families() -> None:
    assert len({item.family_id for item in ITEMS}) == len(ITEMS)
    trained = {p.family_id for p in make_problems(3000, seed=5) if not held_out(p)}
    assert len(trained) > 2500
    assert trained.isdisjoint(item.family_id for item in ITEMS)


def test_problems_repeat_by_seed_and_more_of_them_begin_alike() -> None:
    assert problem_items(120, seed=0) == ITEMS
    assert problem_items(30, seed=0) == ITEMS[:30]
    assert problem_items(30, seed=1) != ITEMS[:30]
    assert {item.continuation.count("=") for item in problem_items(10, 0, [2])} == {2}  # type: ignore[union-attr]


def test_words_of_a_problem_by_kind() -> None:
    for item in ITEMS:
        source = item.question
        numbers = pieces(source.text, source.protected)
        assert numbers
        assert all(map(str.isdigit, numbers))
        main = {word for part in sentences_of(item.template_id, load_parts()) for word in part.main}
        assert set(pieces(source.text, source.main)) == main
        assert main, "no word of this problem tells what happens"
        assert source.other, "no word of this problem is beside the point"
        kinds = [*source.protected, *source.main, *source.other]
        assert len(set(kinds)) == len(kinds)


def test_the_gold_answer_follows_the_numbers_of_the_text() -> None:
    for item in ITEMS:
        text = item.question.text
        assert problem_gold(item.template_id, text) == (item.gold, item.continuation)
        assert problem_gold(item.template_id, text + " And 7 more.") is None
        assert variant_gold(item, text.upper(), may_change=False).gold == item.gold
    plus = next(i for i in ITEMS if i.continuation and " + " in i.continuation)
    start, end = plus.question.protected[0]
    text = plus.question.text
    more = f"{text[:start]}{int(text[start:end]) + 1}{text[end:]}"
    assert variant_gold(plus, more, may_change=False).reason == CHANGED
    changed = variant_gold(plus, more, may_change=True)
    assert (changed.gold, changed.reason) == (str(int(plus.gold or 0) + 1), "")
    assert changed.continuation
    assert changed.continuation.endswith(f"answer is {changed.gold}.")
    assert variant_gold(plus, text[:start] + text[end:], may_change=True).reason == LOST


def test_a_spelled_number_counts_like_its_digits() -> None:
    item = next(i for i in ITEMS if "12" in pieces(i.question.text, i.question.protected))
    spelled = item.question.text.replace("12", "twelve")
    assert variant_gold(item, spelled, may_change=False).gold == item.gold


def test_the_gold_answer_of_an_exercise_is_evaluated_anew() -> None:
    item = arithmetic_item("How much is it: 12 + 7", "19", " 19")
    assert variant_gold(item, "Hwo mcuh is it: 12 + 7", may_change=False).reason == ""
    assert variant_gold(item, "How much is it: 12 - 7", may_change=False).reason == CHANGED
    assert variant_gold(item, "How much is it: 12 / 8", may_change=True).continuation == " 1.5"
    assert variant_gold(item, "How much is it: twelve", may_change=True).reason == LOST
    # A gold answer that is not the expression's value was given, and stays.
    given = replace(item, gold="5")
    assert variant_gold(given, "How much is it: 12 - 7", may_change=False).gold == "5"
    assert variant_gold(replace(item, gold=None), "anything", may_change=False).reason == ""


def test_too_few_families_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_module, "MAX_FRUITLESS_DRAWS", 3)
    with pytest.raises(UserError, match="hardly more than") as caught:
        problem_items(2000, seed=0, steps=[1])
    assert caught.value.where == "robustness.data.n_items"


@pytest.mark.parametrize(
    ("text", "protected"),
    [
        ("How much is it: 12 + 7?", ["12", "+", "7"]),
        ("Compute -3 - 4 * (5/2) = ?", ["-3", "-", "4", "*", "5/2", "="]),
        ("What is 341-17?", ["341", "-", "17"]),
        ("Divide 1,234.5 by half of 3 — a well-known task", ["1,234.5", "half", "3"]),
        ("Name two colours.", ["two"]),
        ("No number here", []),
    ],
)
def test_numbers_and_operations_are_protected(text: str, protected: list[str]) -> None:
    assert pieces(text, protected_spans(text)) == protected


def test_words_of_an_unknown_question_by_kind() -> None:
    text = "Which of these is a mammal: trout, eagle, whale, lizard?"
    source = source_text(text, answer="the whale")
    assert pieces(text, source.protected) == ["whale"]
    assert pieces(text, source.main) == ["mammal"]
    assert pieces(text, source.other) == ["trout", "eagle", "lizard"]
    assert "these" not in pieces(text, content_words(text))
    # Nothing but function words: they stand for content words.
    bare = source_text("How much is 12 + 7?")
    assert pieces(bare.text, bare.main) == ["much"]


def test_instructions() -> None:
    items = instruction_items()
    assert len(items) >= 100
    assert len({item.base_id for item in items}) == len(items)
    assert len({item.template_id for item in items}) >= 8
    with_gold = [item for item in items if item.gold is not None]
    assert len(with_gold) >= 20
    assert all(item.continuation == f" {item.gold}" for item in with_gold)
    assert any("\n" in item.question.text for item in items)
    assert all(item.question.main for item in items)
    assert instruction_frame().count("{question}") == 1
    # A variant's gold answer is the item's own.
    changed = variant_gold(with_gold[0], "anything else", may_change=False)
    assert (changed.gold, changed.reason) == (with_gold[0].gold, "")


def test_broken_instructions_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "own.yaml"
    broken.write_text("prompt: '{question}'\ninstructions: {list: [{txt: a}]}\n", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read") as caught:
        instruction_items(broken)
    assert caught.value.where == str(broken)
    broken.write_text("prompt: 'none'\ninstructions: {list: [{text: a}]}\n", encoding="utf-8")
    with pytest.raises(UserError, match="empty"):
        instruction_items(broken)
