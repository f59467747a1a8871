"""Local and offline answers through the one call that studies make: stored, joined by id, free."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_chat_model import save_tiny_chat_model

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.config.model import ModelSettings
from interpflow.llm.asking import answer
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.providers import local

LOCAL = RoleModel(provider="local", model="m")


def test_a_local_answer_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"m": ModelSettings(local=str(save_tiny_chat_model(tmp_path / "model")))}
    llm = LlmSettings(store=str(tmp_path / "answers.sqlite"), max_failed_share=1.0)
    asks = [
        Ask(f"odd {i}", (Turn("user", f"Is {i} odd?"),), choices=("yes", "no")) for i in range(9)
    ]
    # Random weights write no JSON: asked again as other draws, then given up.
    schema = {"type": "object", "required": ["a"]}
    asks.append(Ask("open", (Turn("user", "Tell."),), max_tokens=6, schema=schema))
    first = answer(asks, LOCAL, llm, purpose="test", models=models)
    assert [each.id for each in first] == [ask.id for ask in asks]
    assert {each.data for each in first[:9]} <= {"yes", "no"}
    assert first[-1].data is None
    assert not any(each.from_store for each in first)
    monkeypatch.setattr(local, "load_named", None)  # a second run must not load the model
    again = answer(asks, LOCAL, llm, purpose="test", models=models)
    assert [each.data for each in again] == [each.data for each in first]
    assert all(each.from_store and each.cost_usd == 0 for each in again)


def test_offline_answers_leave_no_store(tmp_path: Path) -> None:
    llm = LlmSettings(store=str(tmp_path / "answers.sqlite"))
    asks = [
        Ask(word, (Turn("user", "?"),), choices=("yes", "no", "unclear"),
            item={"task": "membership", "word": word, "category": "fruit"})
        for word in ("banana", "dog", "zzyzx")
    ]  # fmt: skip
    found = answer(asks, RoleModel(), llm, purpose="test")
    assert [each.data for each in found] == ["yes", "no", "unclear"]
    assert found[0].model == "offline:word_membership"
    assert not list(tmp_path.iterdir())
