"""Own task files: both layouts, and every slip named by file, task and item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from interpflow.errors import UserError
from interpflow.tasks.nlp.scorers import is_correct
from interpflow.tasks.nlp.task_files import LoadedTasks, load_task_files

CAPITAL = {"prompt": "The capital of France is", "answer": "Paris"}


def load(folder: Path, *contents: Any) -> LoadedTasks:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"tasks_{number}.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        paths.append(path)
    return load_task_files(paths)


def task(*items: Any, **more: Any) -> dict[str, Any]:
    return {"name": "own", "items": list(items), **more}


def test_own_layout(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        task(
            CAPITAL,
            {"prompt": "A rhyme of cat is ", "answer": "hat", "accepted": ["bat"], "family": "cat"},
            {"prompt": "7 times 8 is", "answer": 56, "scorer": "number", "kind": "times"},
            {"prompt": "[1, 2", "answer": "]", "pattern": r"\]"},
            {"prompt": "Bread is", "answer": " something to eat", "scorer": "free"},
        ),
    )
    plain, rhyme, number, regex, free = loaded.items
    assert (plain.scorer, plain.answer, plain.source) == ("exact", " Paris", "file")
    assert (rhyme.scorer, rhyme.accepted, rhyme.family) == ("set", ("hat", "bat"), "cat")
    # A space belongs to the word behind it.
    assert rhyme.prompt + rhyme.answer == "A rhyme of cat is hat"
    assert rhyme.prompt == "A rhyme of cat is"
    assert number.accepted == ("56",)
    assert number.kind == "times"
    assert is_correct(number, " 56.0")
    assert (regex.scorer, regex.answer) == ("regex", "]")
    assert is_correct(regex, " ]")
    assert free.answer == " something to eat"


@pytest.mark.parametrize(
    ("prompt", "answer", "joined"),
    [
        ("2 + 3 =", "5", "2 + 3 = 5"),
        ('name = "', "Anna", 'name = "Anna'),
        ("print(x", ")", "print(x)"),
        ("def f():\n    ", "return", "def f():\n    return"),
        ("Answer:\n", "yes", "Answer:\nyes"),
        ("The sky is", " blue", "The sky is blue"),
    ],
)
def test_spaces_between_prompt_and_answer(
    tmp_path: Path, prompt: str, answer: str, joined: str
) -> None:
    item = load(tmp_path, task({"prompt": prompt, "answer": answer})).items[0]
    assert item.prompt + item.answer == joined
    assert not item.prompt.endswith(" ") or not item.prompt.rsplit("\n", 1)[-1].strip()


def test_layout_with_examples_and_questions(tmp_path: Path) -> None:
    content = [
        {
            "name": "World facts",
            "description": "facts",
            "examples": [CAPITAL, {"prompt": "The capital of Italy is", "answer": " Rome"}],
            "eval_questions": ["Is it a city?", "Is it one word?"],
        }
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(content))
    loaded = load_task_files([path])
    assert [item.answer for item in loaded.items] == [" Paris", " Rome"]
    assert loaded.questions == {"World facts": ("Is it a city?", "Is it one word?")}


def test_tasks_of_one_name_are_merged_and_equal_items_dropped(tmp_path: Path) -> None:
    italy = {"prompt": "The capital of Italy is", "answer": "Rome"}
    loaded = load(tmp_path, task(CAPITAL, CAPITAL), [task(italy), task(CAPITAL, scorer="exact")])
    assert [item.answer for item in loaded.items] == [" Paris", " Rome"]
    assert loaded.n_repeated == 2


@pytest.mark.parametrize(
    ("items", "message", "item"),
    [
        ([{"prompt": "x"}], "has no answer", 1),
        ([{"answer": "x"}], "has no prompt", 1),
        ([CAPITAL, {"prompt": "x", "answer": " "}], "answer is empty", 2),
        ([{**CAPITAL, "scorer": "fuzzy"}], "no scorer 'fuzzy'", 1),
        ([{**CAPITAL, "pattern": "("}], "no regular expression", 1),
        ([{**CAPITAL, "pattern": "Rome"}], "does not match", 1),
        ([{**CAPITAL, "scorer": "regex"}], "needs a pattern", 1),
        ([{**CAPITAL, "pattern": "P", "scorer": "exact"}], "no use", 1),
        ([{**CAPITAL, "scorer": "number"}], "holds no number", 1),
        ([{**CAPITAL, "accepted": "Rome"}], "no list", 1),
        ([{**CAPITAL, "accepted": [""]}], "accepted answer is empty", 1),
        ([{"prompt": "x", "answer": True}], "not text", 1),
        ([{**CAPITAL, "anwser": "Rome"}], "unknown field 'anwser'", 1),
        ([CAPITAL, {**CAPITAL, "answer": "Lyon"}], "another answer", 2),
        ([{**CAPITAL, "prompt": "x \ud800"}], "surrogate pair", 1),
        (["text"], "not an item", 1),
    ],
)
def test_slips_name_file_task_and_item(
    tmp_path: Path, items: list[Any], message: str, item: int
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, task(*items))
    assert f"tasks_0.yaml, task 'own', item {item}" in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{{", "cannot be read"),
        ("", "no tasks"),
        ("- 1", "not a task"),
        ("items: []", "no name"),
        ("name: a", "no items"),
        ("name: a\nitems: {}", "not a list"),
        ("name: a\nitem: []", "unknown field 'item'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, content)
    assert "tasks_0.yaml" in caught.value.where


def test_missing_file_and_wrong_ending(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_task_files([tmp_path / "absent.yaml"])
    with pytest.raises(UserError, match=r"cannot end in '\.csv'"):
        load_task_files([tmp_path / "absent.csv"])
