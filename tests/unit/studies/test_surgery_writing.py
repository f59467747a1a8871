"""Items written by the role generator: every filter, its reason, and the offline path."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.offline.item_verdict import item_verdict
from interpflow.llm.offline.template_items import TEMPLATES, template_items
from interpflow.llm.roles import check_roles, contamination, uses
from interpflow.studies.layer_surgery.data import written_filters
from interpflow.studies.layer_surgery.data.judging import free_answers
from interpflow.studies.layer_surgery.data.writing import write_items
from interpflow.studies.layer_surgery.data.written_filters import (
    NOT_NEEDED,
    same_by_embedding,
    same_by_words,
)
from interpflow.tables.parquet import read_rows
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.writing import read_item
from tests.service_stub import Reply, ServiceStub

PRICES = (
    "model,host,above_prompt_tokens,input,cache_write_5m,cache_write_1h,cache_read,output,"
    "batch_factor,valid_from,source\n*,*,,0,0,0,0,0,0.5,2026-01-01,test\n"
)


def config_of(
    folder: Path, tasks: dict[str, str], *, n_items: int = 3, rounds: int = 1, **roles: Any
) -> Config:
    (folder / "prices.csv").write_text(PRICES)
    written = {"tasks": tasks, "n_items": n_items, "rounds": rounds}
    return parse_config(
        {
            "models": {"m": {"reference": "word_problems"}},
            "counting": None,
            "robustness": None,
            "layer_surgery": {"tasks": {"builtin": ["phrases"], "written": written}},
            "llm": {"roles": roles, "store": str(folder / "answers.sqlite"),
                    "prices": str(folder / "prices.csv")},
        }
    )  # fmt: skip


def service(stub: ServiceStub, model: str) -> dict[str, Any]:
    return {"provider": "openai_compatible", "model": model, "base_url": stub.openai_url,
            "family": model}  # fmt: skip


@pytest.fixture(autouse=True)
def bags_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings that need no model: equal words give equal vectors, "vast" is as good as "big"."""

    def embed(texts: list[str], **_: Any) -> np.ndarray:
        bags = [text.lower().replace("vast", "big").split() for text in texts]
        words = sorted({word for bag in bags for word in bag})
        counts = np.array([[float(bag.count(word)) for word in words] for bag in bags])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    monkeypatch.setattr(written_filters, "embed_texts", embed)


def rows_of(config: Config, folder: Path) -> list[dict[str, Any]]:
    write_items(config, written_path=folder / "written.parquet")
    return read_rows(folder / "written.parquet", "surgery_written")


def entry(prompt: str, answer: str, *accepted: str) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, "accepted": [answer, *accepted]}


WRITTEN = [
    entry("A big animal with a trunk is called an", "elephant"),
    entry("A vast animal with a trunk is called an", "elephant"),
    entry("A big  animal with a trunk is called an", "mammoth"),
    entry("An apple a day keeps the doctor", "away"),
    entry("The animal that gives us wool is the", "sheep", "Sheep", "alpaca"),
    entry("The king of the beasts is the", "dolphin"),
    entry("Which animal barks?", "dog"),
    entry("The animal that barks is", " "),
    entry("", "dog"),
    entry("The animal that barks is", "a dog that is loud"),
    entry("The number of legs of a crab is", "10", "ten"),
    entry("The number of legs of an octopus is", "8"),
    entry("Pork is the meat of a", "pig"),
]


def writer(body: dict[str, Any]) -> dict[str, Any]:
    return {"items": WRITTEN}


def critic(body: dict[str, Any]) -> dict[str, str]:
    return {"choice": "incorrect" if "dolphin" in body["messages"][-1]["content"] else "correct"}


def test_every_filter_gives_its_reason(tmp_path: Path) -> None:
    with ServiceStub(answer=writer) as makes, ServiceStub(answer=critic) as checks:
        config = config_of(
            tmp_path, {"animals": "facts about animals"},
            generator=service(makes, "writer"), judge=[service(checks, "critic")],
        )  # fmt: skip
        rows = rows_of(config, tmp_path)
        seen = [json.loads(request.body)["messages"][-1]["content"] for request in checks.requests]
    reasons = [row["reason"] for row in rows]
    trunk = "A big animal with a trunk is called an"
    assert [row["prompt"] for row in rows] == [each["prompt"] for each in WRITTEN]
    assert reasons == [
        "",
        f"near duplicate of: {trunk}",
        f"duplicate of: {trunk}",
        "duplicate of: An apple a day keeps the doctor",
        "",
        "judged incorrect",
        "form: the prompt ends before its answer begins",
        "form: empty answer",
        "form: empty prompt",
        "form: answer too long",
        "",
        NOT_NEEDED,
        NOT_NEEDED,
    ]
    assert [row["kept"] for row in rows] == [not reason for reason in reasons]
    kept = {row["prompt"]: row for row in rows if row["kept"]}
    assert kept["The animal that gives us wool is the"]["scorer"] == "set"
    assert kept[trunk]["answer"] == " elephant"
    assert kept["The number of legs of a crab is"]["accepted"] == ["10", "ten"]
    # The judge is asked only what is left, once each.
    assert len(seen) == len(set(seen)) == 6


def test_embedding_rejects_what_words_do_not() -> None:
    items = [
        TaskItem("t", "A big animal is an", " elephant"),
        TaskItem("t", "A vast animal is an", " whale"),
        TaskItem("t", "A small animal is an", " ant"),
    ]
    assert same_by_words(items[1], items[:1]) == ""
    found = same_by_embedding(items, [], max_similarity=0.95)
    assert found == ["", "A big animal is an", ""]
    assert same_by_embedding(items, [], max_similarity=1.0) == ["", "", ""]
    assert same_by_embedding(items[1:2], items[:1], max_similarity=0.95) == ["A big animal is an"]


def test_prompts_with_other_numbers_ask_something_else() -> None:
    sums = [TaskItem("t", f"The sum of {a} and {b} is", f" {a + b}") for a, b in ((2, 7), (3, 6))]
    assert same_by_words(sums[1], sums[:1]) == ""
    swapped = TaskItem("t", "The sum of 7 and 2 is", " 9")
    assert same_by_words(swapped, sums) == sums[0].prompt
    less = [TaskItem("t", f"{a} minus {b} is", f" {a - b}") for a, b in ((7, 2), (2, 7))]
    assert same_by_words(less[1], less[:1]) == ""


def test_rounds_ask_for_what_is_missing_and_name_what_there_is(tmp_path: Path) -> None:
    asked: list[str] = []

    def write(body: dict[str, Any]) -> dict[str, Any] | Reply:
        text = body["messages"][-1]["content"]
        asked.append(text)
        if len(asked) == 1:
            return {"items": [entry("The first letter is", "A"), entry("The first letter is", "B")]}
        if len(asked) == 2:
            return Reply(stop="refusal")
        return {"items": [entry(f"Sort {len(asked)} of cheese is", "Brie")]}

    def agree(body: dict[str, Any]) -> dict[str, str]:
        return {"choice": "correct"}

    with ServiceStub(answer=write) as makes, ServiceStub(answer=agree) as checks:
        config = config_of(
            tmp_path, {"mixed": "anything"}, n_items=2, rounds=6,
            generator=service(makes, "writer"), judge=[service(checks, "critic")],
        )  # fmt: skip
        rows = rows_of(config, tmp_path)
    assert len(asked) == 3
    assert [row["round"] for row in rows] == [1, 1, 2, 3]
    assert rows[2]["reason"] == "no answer: refusal"
    assert sum(row["kept"] for row in rows) == 2
    assert "The first letter is" not in asked[0]
    assert "The first letter is" in asked[1]
    assert re.search(r"Write 3 items", asked[0])
    assert re.search(r"Write 2 items", asked[2])


def test_a_task_of_which_nothing_is_kept_is_named(tmp_path: Path) -> None:
    with ServiceStub(answer=writer) as makes:
        config = config_of(tmp_path, {"animals": "x"}, generator=service(makes, "writer"))
        # The offline judge looks up and calculates: of animals it knows nothing.
        with pytest.raises(UserError, match="judged unclear") as caught:
            rows_of(config, tmp_path)
    assert "animals" in caught.value.where


def test_votes_of_judges_are_counted(tmp_path: Path) -> None:
    def strict(body: dict[str, Any]) -> dict[str, str]:
        return {"choice": "incorrect" if body["model"] == "strict" else "correct"}

    with ServiceStub(answer=writer) as makes, ServiceStub(answer=strict) as checks:
        for names, n_kept in ((["a", "strict", "b"], 3), (["a", "strict"], 0)):
            config = config_of(
                tmp_path, {"animals": "x"}, generator=service(makes, "writer"),
                judge=[service(checks, name) for name in names],
            )  # fmt: skip
            if n_kept:
                assert sum(row["kept"] for row in rows_of(config, tmp_path)) == n_kept
            else:
                with pytest.raises(UserError, match="judged unclear"):
                    rows_of(config, tmp_path)


def test_offline_items_are_right_and_follow_the_seed(tmp_path: Path) -> None:
    config = config_of(tmp_path, dict.fromkeys(TEMPLATES, "small numbers and words"), n_items=6)
    rows = rows_of(config, tmp_path)
    assert rows == rows_of(config, tmp_path)
    assert {row["task"] for row in rows if row["kept"]} == set(TEMPLATES)
    assert all(sum(r["kept"] for r in rows if r["task"] == task) == 6 for task in TEMPLATES)
    with pytest.raises(UserError, match="does not write items of 'poems'"):
        template_items({"name": "poems", "n": 1}, 0)


@pytest.mark.parametrize(
    ("prompt", "accepted", "verdict"),
    [
        ("The sum of 12 and 15 is", ["27"], "correct"),
        ("The sum of 12 and 15 is", ["26"], "incorrect"),
        ("12 plus 15 is", ["27", "28"], "incorrect"),
        ("40 - 15 =", ["25"], "correct"),
        ("40 minus 15 is", ["-25"], "incorrect"),
        ("The larger of 4 and 19 is", ["19"], "correct"),
        ("The number after 9 is", ["10"], "correct"),
        ("The opposite of big is", ["small", "little"], "correct"),
        ("If something is not big, it may be", ["green"], "incorrect"),
        ("The capital of France is", ["Paris"], "correct"),
        ("The capital of France is", ["Lyon"], "incorrect"),
        ("The best colour is", ["blue"], "unclear"),
    ],
)
def test_what_the_offline_judge_knows(prompt: str, accepted: list[str], verdict: str) -> None:
    assert item_verdict({"prompt": prompt, "accepted": accepted}, 0) == verdict


def test_written_items_are_read_by_their_answers() -> None:
    item, problem = read_item("t", entry("The answer is ", " 27 ", "27.0", ""))
    assert (item.prompt, item.answer, item.scorer, problem) == (
        "The answer is",
        " 27",
        "number",
        "",
    )
    item, _ = read_item("t", entry("A colour is", "red", "blue"))
    assert (item.scorer, item.accepted) == ("set", ("red", "blue"))
    assert read_item("t", entry("A colour is", "red"))[0].scorer == "exact"


def test_roles_of_writing_must_differ_in_family(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"sums": "x"})
    [use] = [use for use in uses(config) if use.study == "layer_surgery"]
    assert {"generator", "judge"} <= set(use.roles)
    check_roles(config)
    gpt = {"provider": "openai_compatible", "base_url": "http://localhost:1/v1"}
    config = config_of(
        tmp_path, {"sums": "x"}, generator={**gpt, "model": "gpt-5"},
        judge=[{**gpt, "model": "gpt-5-mini"}],
    )  # fmt: skip
    with pytest.raises(UserError, match="its own family wrote"):
        check_roles(config)
    assert contamination(config) == {}


def test_free_answers_are_judged_once_each(tmp_path: Path) -> None:
    item = TaskItem("own", "Bread is made of", " flour and water", scorer="free")
    config = config_of(tmp_path, {"sums": "x"})
    pairs = [(item, " flour and water"), (item, " stone"), (item, ""), (item, " stone")]
    assert free_answers(config, pairs) == [True, False, None, False]
    seen: list[str] = []

    def judge(body: dict[str, Any]) -> dict[str, str]:
        seen.append(body["messages"][-1]["content"])
        return {"choice": "correct"}

    with ServiceStub(answer=judge) as stub:
        config = config_of(tmp_path, {"sums": "x"}, judge=[service(stub, "critic")])
        asked = {"own": ["Is it food?"]}
        assert free_answers(config, pairs, asked) == [True, True, True, True]
    assert len(seen) == 3
    assert all("Is it food?" in text for text in seen)
