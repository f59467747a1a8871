"""Questions answered by Message Batches through the real SDK: the same answers for half."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.answers import Answer
from interpflow.llm.asking import answer_with
from interpflow.llm.batches.answering import Limits
from interpflow.llm.providers import open_provider
from tests.service_stub import Faults, ServiceStub
from tests.unit.llm.buying_jobs import MOST_USD, held_usd, reply, rows, settings_in
from tests.unit.llm.stand_in_service import asks

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 5}},
    "required": ["n"],
    "additionalProperties": False,
}
QUICK = Limits(requests=40, poll_s=0.02, listed_within_s=0.3)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "no-key")


def by_batch(
    url: str, folder: Path, n: int, batch: bool = True, model: str = "stub", **more: Any
) -> list[Answer]:
    role = RoleModel(provider="anthropic", model=model, base_url=url, batch=batch)
    llm = settings_in(folder, max_cost_usd=1e6, max_attempts=5)
    wanted = asks(n, max_tokens=MOST_USD, **more)
    return answer_with(open_provider(role), wanted, role, llm, purpose="test", limits=QUICK)


def test_batches_answer_and_are_the_same_answers_for_single_calls(tmp_path: Path) -> None:
    faults = Faults(row_rates={"errored": 0.1, "expired": 0.1}, seed=4)
    with ServiceStub(faults, reply) as stub:
        answers = by_batch(stub.url, tmp_path, 100)
        again = by_batch(stub.url, tmp_path, 100, batch=False)
        assert [each.id for each in answers] == [f"a{i}" for i in range(100)]
        assert {each.outcome for each in answers} == {"ok"}
        assert [each.text for each in again] == [each.text for each in answers]
        assert len(stub.billed_entries) == 100
        assert all(entry["batch"] for entry in stub.billed_entries)


@pytest.mark.parametrize("model", ["unknown-model", "retired-model"])
def test_no_batch_is_made_for_a_model_that_is_not_there(tmp_path: Path, model: str) -> None:
    with ServiceStub(None, reply) as stub:
        with pytest.raises(UserError, match=model) as error:
            by_batch(stub.url, tmp_path, 3, model=model)
        assert "llm.roles" in error.value.where
        assert not [sent for sent in stub.requests if "batches" in str(sent)]


def test_a_wrong_key_is_named_by_its_variable(tmp_path: Path) -> None:
    with ServiceStub(key="another") as stub:
        with pytest.raises(UserError, match="ANTHROPIC_API_KEY") as error:
            by_batch(stub.url, tmp_path, 3)
        assert "HTTP 401" in error.value.what
    assert rows(tmp_path, "SELECT count(*) FROM batches") == [(0,)]


def test_an_invalid_answer_of_a_batch_is_asked_anew_in_another(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def sometimes(body: dict[str, Any]) -> dict[str, int]:
        text = str(body["messages"][0]["content"])
        asked[text] += 1
        return {"n": 3 if "prompt 7" in text and asked[text] < 3 else 9}

    with ServiceStub(answer=sometimes) as stub:
        answers = by_batch(stub.url, tmp_path, 20, schema=SCHEMA)
        assert [each.data for each in answers] == [{"n": 9}] * 20
        assert len(stub.billed_entries) == 22
        by_batch(stub.url, tmp_path, 20, schema=SCHEMA)
        assert len(stub.billed_entries) == 22
    kinds = dict(rows(tmp_path, "SELECT outcome, count(*) FROM responses GROUP BY outcome"))
    assert kinds == {"ok": 20, "invalid": 2}


def test_a_batch_costs_half(tmp_path: Path) -> None:
    folders = [tmp_path / "batch", tmp_path / "single"]
    spent = []
    with ServiceStub(answer=reply) as stub:
        for folder in folders:
            folder.mkdir()
            answers = by_batch(stub.url, folder, 10, batch=folder.name == "batch")
            spent.append(held_usd(folder))
            assert sum(each.cost_usd for each in answers) == spent[-1]
    assert spent[1] == 2 * spent[0] > 0
