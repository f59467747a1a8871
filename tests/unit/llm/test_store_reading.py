"""A look into the store changes nothing and says what need not be bought."""

from __future__ import annotations

from pathlib import Path

import pytest

from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse, Usage
from interpflow.llm.bought.store import open_store
from interpflow.llm.bought.store_reading import store_contents, stored_keys
from interpflow.llm.requests import Request


def request(i: int) -> Request:
    return Request("anthropic", "m", "/v1/messages", "https://h", "v", (), b'{"i":%d}' % i)


def test_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    assert store_contents(path).n_answers == 0
    assert stored_keys(path, [request(0).key]) == set()
    assert not path.exists()
    with open_store(path) as store:
        for i, outcome in enumerate(("ok", "truncated", "refusal", "invalid", "error")):
            store.keep(request(i), RawResponse(b"{}"))
            store.settle(
                request(i).key, outcome=outcome, usage=Usage(), cost_usd=0.25, price_id="p",
                request_id="", model="m", attempts=1, why="",
            )  # fmt: skip
        before = path.read_bytes()
        there = store_contents(path)
        assert (there.n_answers, there.spent_usd, there.held_usd) == (3, 1.25, 0.0)
        keys = [request(i).key for i in range(8)]
        assert stored_keys(path, keys) == set(keys[:3])
        assert path.read_bytes() == before
    assert store_contents(path).n_answers == 3


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes " * 500)
    with pytest.raises(UserError, match="not a store of answers"):
        store_contents(path)
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="no store of answers"):
        stored_keys(tmp_path / "empty", [])
