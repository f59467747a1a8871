"""The judge of answers: blind, asked in both orders, and what it says of the variant's answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.errors import UserError
from interpflow.studies.robustness.answers.judging import judge_answers, verdict
from interpflow.tables.parquet import read_rows, write_table
from tests.service_stub import ServiceStub
from tests.unit.studies.robustness_rows import answer_row, example_row

PRICES = (
    "model,host,above_prompt_tokens,input,cache_write_5m,cache_write_1h,cache_read,output,"
    "batch_factor,valid_from,source\n*,*,,0,0,0,0,0,0.5,2026-01-01,test\n"
)
QUESTION = "Anna has 5 apples and buys 3 more. How many has she?"
EXAMPLES = [
    example_row("b1", "clean", QUESTION, "8"),
    example_row("b1", "keyboard", QUESTION.replace("buys", "bugs"), "8"),
    example_row("b1", "insulting", "You fool! " + QUESTION, "8"),
    example_row("b1", "deletion", QUESTION.replace("buys", "bys"), "8"),
]
ANSWERS = [
    answer_row("b1", "clean", "5 + 3 = 8. The answer is 8."),
    answer_row("b1", "keyboard", "5 - 3 = 2. The answer is 2."),
    answer_row("b1", "insulting", "The answer is 8."),
    answer_row("b1", "deletion", "5 + 3 = 8. The answer is 8."),
]


def judged(
    folder: Path, judges: list[dict[str, Any]], examples: list = EXAMPLES, answers: list = ANSWERS
) -> dict[tuple[str, str], dict[str, Any]]:
    write_table(folder / "examples.parquet", "robustness_examples", examples)
    write_table(folder / "answers.parquet", "robustness_answers", answers)
    (folder / "prices.csv").write_text(PRICES)
    store, prices = str(folder / "answers.sqlite"), str(folder / "prices.csv")
    config = parse_config(
        {
            "models": {"m": {"reference": "word_problems"}},
            "robustness": {"scoring": {"judge": True}},
            "llm": {"roles": {"judge": judges}, "store": store, "prices": prices},
        }
    )
    judge_answers(
        config, "m", examples_path=folder / "examples.parquet",
        answers_path=folder / "answers.parquet", judgements_path=folder / "judgements.parquet",
    )  # fmt: skip
    rows = read_rows(folder / "judgements.parquet", "robustness_judgements")
    return {(row["operator"], row["judge"]): row for row in rows}


def said(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["clean_first"], row["clean_second"], row["verdict"]


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two answers of a request, as a judge reads them."""
    text = body["messages"][-1]["content"]
    first, second = (re.search(rf"<{key}>\n(.*)\n</{key}>", text) for key in ("first", "second"))
    assert first
    assert second
    return first[1], second[1]


def service(stub: ServiceStub, model: str) -> dict[str, Any]:
    return {"provider": "openai_compatible", "model": model, "base_url": stub.openai_url,
            "family": model}  # fmt: skip


def test_the_rule_judge_prefers_the_right_answer(tmp_path: Path) -> None:
    found = judged(tmp_path, [{"provider": "offline"}])
    assert said(found["keyboard", "offline"]) == ("worse", "worse", "worse")
    assert said(found["insulting", "offline"]) == ("same", "same", "same")
    assert said(found["deletion", "offline"]) == ("same", "same", "same")
    assert len(found) == 3


def test_a_wrong_clean_answer_makes_the_variant_better(tmp_path: Path) -> None:
    answers = [answer_row("b1", "clean", "2"), answer_row("b1", "keyboard", "8")]
    found = judged(tmp_path, [{"provider": "offline"}], answers=answers)
    assert said(found["keyboard", "offline"]) == ("better", "better", "better")


def test_without_a_gold_answer_the_rule_judge_says_so(tmp_path: Path) -> None:
    examples = [row | {"gold": None, "gold_kind": ""} for row in EXAMPLES]
    with pytest.raises(UserError, match="compares answers by the gold answer") as caught:
        judged(tmp_path, [{"provider": "offline"}], examples)
    assert caught.value.where == "llm.roles.judge"


def test_each_judge_is_asked_once_per_order_and_knows_no_origin(tmp_path: Path) -> None:
    def longer(body: dict[str, Any]) -> dict[str, Any]:
        first, second = shown(body)
        return {"choice": "first" if len(first) > len(second) else "second"}

    with ServiceStub(answer=longer) as stub:
        found = judged(tmp_path, [service(stub, "one"), service(stub, "two")])
        bodies = [json.loads(request.body) for request in stub.requests]
    assert len(found) == 6
    # Two pairs of unequal answers, two orders, two judges.
    assert len(bodies) == 8
    for body in bodies:
        text = json.dumps(body)
        assert QUESTION in text
        for hint in ("clean", "keyboard", "insulting", "b1", "bugs", "fool"):
            assert hint not in text
    orders = {(body["model"], *shown(body)) for body in bodies}
    assert len(orders) == 8
    assert {(model, second, first) for model, first, second in orders} == orders
    assert said(found["insulting", "one"]) == ("worse", "worse", "worse")
    assert said(found["deletion", "two"]) == ("same", "same", "same")


def test_a_judge_that_always_takes_the_first_place_has_no_verdict(tmp_path: Path) -> None:
    with ServiceStub(answer=lambda body: {"choice": "first"}) as stub:
        found = judged(tmp_path, [service(stub, "one")])
    assert said(found["keyboard", "one"]) == ("worse", "better", "order")


def test_a_verdict_needs_both_orders() -> None:
    assert verdict("better", "better") == "better"
    assert verdict("better", "same") == "order"
    assert verdict("unclear", "worse") == "unclear"
