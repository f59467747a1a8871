"""The estimate of calls: those of the first round as they will be made, of later ones at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.llm.answers import RawResponse, Usage
from interpflow.llm.bought.store import open_store
from interpflow.llm.providers import open_provider
from interpflow.studies.counting.written_asks import membership_ask
from interpflow.studies.counting.written_validation import gold_questions
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.workflow.estimate import print_estimate
from interpflow.workflow.service_costs import planned_calls

CLAUDE = {"provider": "anthropic", "model": "claude-haiku-4-5"}
GPT = {"provider": "openai_compatible", "model": "gpt-5", "base_url": "https://api.openai.com/v1"}


def config_of(llm: dict[str, Any] | None = None, source: str = "llm", **data: Any) -> Config:
    written = {"lists_per_call": 4, "oversample": 1.0, "max_rounds": 3, "gold_words": 5, **data}
    return parse_config(
        {
            "models": {"m": {"reference": "count_parallel"}},
            "counting": {
                "data": {
                    "source": source, "categories": ["fruit", "mammal"],
                    "lengths": {"min": 9, "max": 10}, "llm": written,
                }
            },
            "llm": llm or {},
        }
    )  # fmt: skip


def test_calls_of_the_rounds() -> None:
    calls = {
        each.purpose: each for each in planned_calls(config_of({"roles": {"generator": CLAUDE}}))
    }
    # 2 categories × (10 + 11 counts) lists, 4 in a call
    assert calls["lists, round 1"].n_calls == 2 * 6
    assert not calls["lists, round 1"].is_bound
    assert calls["lists, rounds 2 to 3"].n_calls == 2 * 12
    assert calls["lists, rounds 2 to 3"].is_bound
    assert calls["words of known membership"].n_calls == 2 * 5
    assert calls["words that the lexicon lacks"].n_calls == 3 * 2 * (10 * 9 + 11 * 10)


def test_the_price_is_that_of_the_tokens() -> None:
    first = planned_calls(config_of({"roles": {"generator": {**CLAUDE, "batch": True}}}))[0]
    expected = 0.5 * (first.input_tokens * 1e-6 + first.output_tokens * 5e-6)
    assert first.cost_usd == pytest.approx(expected)
    assert first.cost_usd > 0
    assert planned_calls(config_of())[0].cost_usd == 0
    assert planned_calls(config_of(source="systematic")) == []


def test_every_validator_is_asked() -> None:
    roles = {"generator": CLAUDE, "validator": [{}, GPT]}
    calls = planned_calls(config_of({"roles": roles}, max_rounds=1))
    assert [each.role for each in calls] == [
        "generator", "validator.0", "validator.0", "validator.1", "validator.1",
    ]  # fmt: skip
    assert [each.cost_usd > 0 for each in calls] == [True, False, False, True, True]


def test_what_the_store_holds_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    path = tmp_path / "answers.sqlite"
    config = config_of({"roles": {"validator": [GPT]}, "store": str(path), "max_cost_usd": 2.0})
    assert config.counting is not None
    lexicon = load_lexicon()
    gold = gold_questions(["fruit", "mammal"], lexicon, config.counting.data.llm, config.seed)
    provider = open_provider(config.llm.roles.validator[0])
    with open_store(path) as store:
        for category, word in list(gold)[:3]:
            request = provider.request(membership_ask(word, category, lexicon))
            store.keep(request, RawResponse(b"{}"))
            store.settle(
                request.key, outcome="ok", usage=Usage(), cost_usd=0.5, price_id="p",
                request_id="", model="gpt-5", attempts=1, why="",
            )  # fmt: skip
    by_purpose = {each.purpose: each.n_stored for each in planned_calls(config)}
    assert by_purpose["words of known membership"] == 3
    assert by_purpose["words that the lexicon lacks"] is None
    print_estimate(config)
    printed = capsys.readouterr().out
    assert "3 answers, 1.50 USD spent" in printed
    assert "cap: 2.00 USD" in printed
    monkeypatch.delenv("OPENAI_API_KEY")
    by_purpose = {each.purpose: each.n_stored for each in planned_calls(config)}
    assert by_purpose["words of known membership"] is None  # an estimate needs no key
