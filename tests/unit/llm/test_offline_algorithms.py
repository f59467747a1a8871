"""The offline algorithms do what they say: memberships, lists, verdicts on answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.offline.rule_judge import compare_answer
from interpflow.llm.offline.template_lists import template_lists
from interpflow.llm.offline.word_membership import word_membership
from interpflow.llm.providers import open_provider
from interpflow.llm.providers.offline import ALGORITHMS
from interpflow.tasks.counting.labelled_lists import LISTS_SCHEMA, fault_of, read_lists
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.membership import MEMBERSHIPS


def membership(word: str, category: str, **more: Any) -> str:
    return word_membership({"task": "membership", "word": word, "category": category, **more}, 0)


def judged(answer: str, gold: object, **more: Any) -> str:
    return compare_answer({"task": "compare_answer", "answer": answer, "gold": gold, **more}, 0)


def test_memberships_are_those_of_the_lexicon() -> None:
    lexicon = load_lexicon()
    for category in lexicon.categories:
        assert {membership(word, category) for word in lexicon.members(category)[:20]} == {"yes"}
        assert {membership(word, category) for word in lexicon.non_members(category)[:20]} == {"no"}
    ambiguous = sorted(lexicon.ambiguous)[0]
    assert membership(ambiguous, lexicon.categories[0]) == "unclear"


def test_what_the_lexicon_does_not_know_is_unclear() -> None:
    known = load_lexicon().members("fruit")[0]
    assert membership("zzyzx", "fruit") == "unclear"
    # A known word says nothing of a category that the lexicon has not.
    assert membership(known, "nobel laureate") == "unclear"
    assert membership(f" {known.upper()} ", "fruit") == "yes"


def test_own_word_lists_decide(tmp_path: Path) -> None:
    (tmp_path / "gem.txt").write_text("ruby\nopal\n", encoding="utf-8")
    (tmp_path / "tool.txt").write_text("hammer\n", encoding="utf-8")
    assert membership("ruby", "gem", lexicon=str(tmp_path)) == "yes"
    assert membership("hammer", "gem", lexicon=str(tmp_path)) == "no"


SHAPES = [(5, 0), (5, 5), (12, 7), (15, 3), (3, 2)]


def lists_item(seed: int = 3, **more: Any) -> dict[str, Any]:
    shapes = [{"length": length, "count": count} for length, count in SHAPES]
    return {"task": "counting_lists", "category": "fruit", "lists": shapes, "seed": seed, **more}


def test_lists_have_the_shapes_asked_for_and_true_labels() -> None:
    lexicon = load_lexicon()
    data = template_lists(lists_item(), 0)
    jsonschema.validate(data, LISTS_SCHEMA)
    lists = read_lists(data, "fruit", SHAPES)
    assert [made.shape for made in lists] == SHAPES
    assert not any(fault_of(made, frozenset(SHAPES)) for made in lists)
    for entry in (entry for made in lists for entry in made.words):
        assert entry.is_member == ("fruit" in lexicon.categories_of(entry.word))
        assert entry.category == "other" or entry.category in lexicon.categories_of(entry.word)
    words = [entry.word for made in lists for entry in made.words]
    assert len(set(words)) == len(words), "words come again before all were dealt"


def test_lists_depend_on_item_and_sample_only() -> None:
    assert template_lists(lists_item(), 1) == template_lists(lists_item(), 1)
    assert template_lists(lists_item(), 1) != template_lists(lists_item(), 2)
    assert template_lists(lists_item(seed=4), 1) != template_lists(lists_item(), 1)


def test_avoided_words_do_not_come() -> None:
    first = template_lists(lists_item(), 0)
    worn = [entry["word"] for made in first["lists"] for entry in made["words"]]
    again = template_lists(lists_item(avoid=worn), 0)
    assert not {e["word"] for made in again["lists"] for e in made["words"]} & set(worn)


def test_a_short_lexicon_repeats_words_across_lists_only(tmp_path: Path) -> None:
    (tmp_path / "gem.txt").write_text("ruby\nopal\nagate\n", encoding="utf-8")
    (tmp_path / "tool.txt").write_text("hammer\nsaw\n", encoding="utf-8")
    item = {"category": "gem", "lists": [{"length": 4, "count": 2}] * 9, "lexicon": str(tmp_path)}
    for made in template_lists(item, 0)["lists"]:
        words = [entry["word"] for entry in made["words"]]
        assert len(set(words)) == 4
    with pytest.raises(UserError, match="a list needs 4 words"):
        template_lists({**item, "lists": [{"length": 4, "count": 4}]}, 0)
    with pytest.raises(UserError, match="no category 'bird'"):
        template_lists({**item, "category": "bird"}, 0)


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("25", 5, "incorrect"),
        ("5", 25, "incorrect"),
        ("-5", 5, "incorrect"),
        ("−5", -5, "correct"),
        ("711", 11, "incorrect"),
        ("42!", 42, "correct"),
        ("(42)", 42, "correct"),
        ("60%", 60, "correct"),
        ("$1,200.00", 1200, "correct"),
        ("4.0", 4, "correct"),
        (".5", "0.5", "correct"),
        ("four", 4, "correct"),
        ("**7**", 7, "correct"),
        ("\\boxed{8}", 8, "correct"),
        ("There are 3 apples and 4 pears. The answer is 7.", 7, "correct"),
        ("The answer is 3 + 4 = 7", 7, "correct"),
        ("The answer is 3/4", 3, "unclear"),
        ("The answer is 3 or 4", 3, "unclear"),
        ("<think>maybe 3</think>\nAnswer: 12", 12, "correct"),
        ("<think>the answer is 12", 12, "unclear"),
        ("Question: what? Answer: 3\nQuestion: and this? Answer: 12", 12, "correct"),
        ("I do not know", 12, "unclear"),
        ("", 12, "unclear"),
        (",", 0, "unclear"),
    ],
)
def test_numbers_are_compared_by_value(answer: str, gold: object, verdict: str) -> None:
    assert judged(answer, gold) == verdict


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("INCORRECT", "CORRECT", "incorrect"),
        ("not correct", "correct", "incorrect"),
        ("CORRECT", "INCORRECT", "incorrect"),
        ("correct.", "CORRECT", "correct"),
        ("The answer is Paris, the capital.", "paris", "correct"),
        ("answer: Paris", "Parish", "incorrect"),
        ("  New   York ", "new york", "correct"),
        ("Washington, D.C.", "washington, d.c.", "correct"),
        ("It might be Paris but nobody can be sure of it", "Paris", "unclear"),
        ("", "Paris", "unclear"),
        ("ﬁsh", "fish", "correct"),
    ],
)
def test_texts_are_compared_whole(answer: str, gold: str, verdict: str) -> None:
    assert judged(answer, gold) == verdict


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_two_numbers_are_equal_only_if_they_are(stated: int, gold: int) -> None:
    verdict = "correct" if stated == gold else "incorrect"
    for form in ("{}", "{}.", "The answer is {}.", "#### {}", "Answer: {:,}", "({})"):
        assert judged(form.format(stated), gold) == verdict
    assert judged(f"{gold}", gold) == "correct"


@given(st.text(max_size=60), st.text(max_size=20))
def test_the_judge_bears_any_text(answer: str, gold: str) -> None:
    assert judged(answer, gold, kind="text") in ("correct", "incorrect", "unclear")
    assert judged(answer, 3) in ("correct", "incorrect", "unclear")


def test_a_gold_answer_of_another_kind_is_named() -> None:
    with pytest.raises(UserError, match="is no number"):
        judged("3", "three apples", kind="number")
    with pytest.raises(UserError, match="no kind of answer"):
        judged("3", "three apples", kind="regex")


def ask_offline(item: dict[str, Any], **more: Any):
    provider = open_provider(RoleModel())
    request = provider.request(Ask(id="a", turns=(Turn("user", "?"),), item=item, **more))
    return request, provider.read(asyncio.run(provider.send(request, 1.0)))


def test_the_provider_runs_the_task_of_the_item() -> None:
    item = {"task": "membership", "word": "apple", "category": "fruit"}
    request, reading = ask_offline(item, choices=MEMBERSHIPS)
    assert (reading.outcome, reading.text, reading.model) == (
        "ok", load_verdict("apple"), "offline:word_membership",
    )  # fmt: skip
    assert request.key != ask_offline({**item, "word": "pear"})[0].key
    lists = ask_offline(lists_item(), schema=LISTS_SCHEMA, sample=4)[1]
    assert lists.text.startswith('{"lists"')


def load_verdict(word: str) -> str:
    return membership(word, "fruit")


def test_a_task_without_algorithm_is_named() -> None:
    with pytest.raises(UserError, match="'poetry'") as caught:
        ask_offline({"task": "poetry"})
    assert ", ".join(ALGORITHMS) in str(caught.value)
    assert {"membership", "contrast", "better_answer", "robustness_rewrite"} <= set(ALGORITHMS)
    with pytest.raises(UserError, match="no machine-readable item"):
        ask_offline({})
    with pytest.raises(UserError, match="no 'word'"):
        ask_offline({"task": "membership", "category": "fruit"})


@given(st.binary(max_size=80))
def test_any_bytes_are_read(body: bytes) -> None:
    from interpflow.llm.answers import RawResponse

    assert open_provider(RoleModel()).read(RawResponse(body)).outcome in ("ok", "error")
