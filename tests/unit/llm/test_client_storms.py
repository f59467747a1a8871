"""The client through a real SDK against the stub: storms of faults, kills, a cap shared by jobs."""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from interpflow.errors import UserError
from tests.service_stub import Faults, ServiceStub
from tests.unit.llm.buying_jobs import (
    ANSWER_USD,
    MOST_USD,
    buy,
    held_usd,
    reply,
    rows,
    settings_in,
    started,
)
from tests.unit.llm.stand_in_service import asks

THIRTY_PERCENT = {
    "429": 0.04, "429_retry_after": 0.04, "500": 0.04, "503": 0.02, "529": 0.02, "drop": 0.03,
    "disconnect": 0.04, "malformed": 0.03, "max_tokens": 0.02, "refusal": 0.01, "slow": 0.01,
}  # fmt: skip
WHOLE = ("ok", "max_tokens", "refusal")
LOST = ("disconnect", "slow")


def storm(folder: Path, n: int) -> None:
    faults = Faults(rates=THIRTY_PERCENT, seed=1, slow_s=3.0)
    llm = settings_in(folder, max_cost_usd=1e9, max_attempts=20, max_concurrency=100)
    with ServiceStub(faults=faults, answer=reply) as stub:
        answers = buy(stub.openai_url, asks(n, max_tokens=MOST_USD), llm, timeout_s=1.0)
        again = buy(stub.openai_url, asks(n, max_tokens=MOST_USD), llm, timeout_s=1.0)
        billed = stub.billed_entries
    assert [each.id for each in answers] == [f"a{i}" for i in range(n)]
    assert {each.outcome for each in answers} <= {"ok", "truncated", "refusal"}
    assert [(e.key, e.text) for e in again] == [(e.key, e.text) for e in answers]
    # Exactly one stored answer each; what cannot be read is kept and asked anew under a new key.
    final = "SELECT count(*), count(DISTINCT key) FROM responses WHERE outcome IN {}"
    assert rows(folder, final.format("('ok', 'truncated', 'refusal')")) == [(n, n)]
    kinds = Counter(entry["fault"] for entry in billed)
    assert sum(kinds[kind] for kind in WHOLE) == n
    [(unreadable,)] = rows(folder, "SELECT count(*) FROM responses WHERE outcome = 'error'")
    assert unreadable == kinds["malformed"] > 0
    [(presumed,)] = rows(folder, "SELECT count(*) FROM failures WHERE maybe_billed")
    assert presumed >= sum(kinds[kind] for kind in LOST) > 0
    # What was really billed is never more than what counts against the cap.
    assert ANSWER_USD * len(billed) <= held_usd(folder)
    assert rows(folder, "SELECT reserved FROM money") == [(0,)]
    assert rows(folder, "SELECT count(*) FROM leases") == [(0,)]


def test_in_a_storm_every_request_ends_with_one_answer(tmp_path: Path) -> None:
    storm(tmp_path, 400)


@pytest.mark.slow
def test_in_a_storm_of_thousands(tmp_path: Path) -> None:
    storm(tmp_path, 5000)


def kill_and_go_on(folder: Path, n: int, n_kills: int, concurrency: int = 16) -> None:
    llm = settings_in(folder, max_cost_usd=1e9, max_concurrency=concurrency)
    draw = random.Random(2)
    n_stored = n_hit = 0
    with ServiceStub(answer=reply, latency_s=0.02) as stub:
        for kill in range(n_kills):
            n_billed = len(stub.billed_entries)
            process = started(stub.openai_url, 0, n, llm)
            while len(stub.billed_entries) == n_billed and process.is_alive():
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.12))
            n_hit += process.is_alive()
            process.kill()
            process.join()
            time.sleep(0.05)  # the stub bills what was on the wire
            [(stored,)] = rows(folder, "SELECT count(*) FROM responses")
            assert stored >= n_stored
            n_stored = stored
            # Bought and not kept: only what was in flight at a kill.
            assert len(stub.billed_entries) - stored <= concurrency * (kill + 1)
        answers = buy(stub.openai_url, asks(n, max_tokens=MOST_USD), llm)
        billed = stub.billed
    assert n_hit > n_kills / 2
    assert {each.outcome for each in answers} == {"ok"}
    assert rows(folder, "SELECT count(*), count(DISTINCT key) FROM responses") == [(n, n)]
    assert len(billed) == n
    assert ANSWER_USD * sum(billed.values()) <= held_usd(folder)
    assert rows(folder, "SELECT reserved FROM money") == [(0,)]


def test_killed_and_started_again_it_asks_for_the_rest_only(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, n=250, n_kills=3)


@pytest.mark.slow
def test_killed_at_25_random_moments(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, n=2000, n_kills=25)


def test_answers_that_arrive_damaged_count_as_the_most_they_can_have_cost(tmp_path: Path) -> None:
    cap = 3 * MOST_USD
    llm = settings_in(tmp_path, max_cost_usd=cap, max_failed_share=1.0)
    with ServiceStub(Faults(rates={"malformed": 0.9}), reply) as stub:
        with pytest.raises(UserError, match=r"llm\.max_cost_usd"):
            buy(stub.openai_url, asks(40, max_tokens=MOST_USD), llm)
        n_billed = sum(stub.billed.values())
    assert ANSWER_USD * n_billed <= held_usd(tmp_path) <= cap
    spent = "SELECT DISTINCT cost_nano / 1000000000 FROM responses WHERE outcome = 'error'"
    assert rows(tmp_path, spent) == [(MOST_USD,)]


@pytest.mark.parametrize("n_jobs", [pytest.param(8, marks=pytest.mark.slow), 3])
def test_parallel_jobs_share_one_cap_and_never_pass_it(tmp_path: Path, n_jobs: int) -> None:
    cap = 3000
    llm = settings_in(tmp_path, max_cost_usd=cap, max_concurrency=16)
    faults = Faults(rates={"disconnect": 0.01, "500": 0.1, "429": 0.05}, seed=3)
    with ServiceStub(faults, reply, latency_s=0.01) as stub:
        # Each job shares half its prompts with the next one.
        processes = [started(stub.openai_url, 100 * i, 100 * i + 200, llm) for i in range(n_jobs)]
        most = 0.0
        while any(process.is_alive() for process in processes):
            with suppress(sqlite3.OperationalError):  # the store is just being made
                most = max(most, held_usd(tmp_path))
            time.sleep(0.005)
        billed = stub.billed_entries
    assert all(process.exitcode == 0 for process in processes)
    assert most <= cap
    assert ANSWER_USD * len(billed) <= held_usd(tmp_path) <= cap
    # The cap was used: no call would fit any more.
    assert held_usd(tmp_path) > cap - MOST_USD
    [(stored,)] = rows(tmp_path, "SELECT count(*) FROM responses")
    n_lost = sum(entry["fault"] == "disconnect" for entry in billed)
    assert len(billed) == stored + n_lost


@pytest.mark.parametrize(
    ("fault", "hint"), [("401", "OPENAI_API_KEY"), ("402", "add credit"), ("403", "access")]
)
def test_the_account_refused_in_the_middle_is_one_message(
    tmp_path: Path, fault: str, hint: str
) -> None:
    llm = settings_in(tmp_path, max_cost_usd=1e9)
    with ServiceStub(Faults(script=["ok"] * 40 + [fault] * 500), reply) as stub:
        with pytest.raises(UserError, match=hint) as error:
            buy(stub.openai_url, asks(300), llm)
        assert len(stub.billed_entries) == 40
        assert len(stub.requests) < 120
    assert rows(tmp_path, "SELECT count(*) FROM responses WHERE outcome = 'ok'") == [(40,)]
    assert "prompt" not in str(error.value)


def test_an_unknown_model_and_one_without_a_price_are_one_message(tmp_path: Path) -> None:
    llm = settings_in(tmp_path, max_cost_usd=1e9)
    with ServiceStub(Faults(script=["404"] * 300), reply) as stub:
        for n in (1, 300):
            with pytest.raises(UserError, match="stub: the service has no such model") as caught:
                buy(stub.openai_url, asks(n), llm)
            assert "llm.roles" in caught.value.where
        assert len(stub.requests) < 20
        (tmp_path / "prices.csv").write_text((tmp_path / "prices.csv").read_text().split("\n")[0])
        with pytest.raises(UserError, match=r"llm\.prices"):
            buy(stub.openai_url, asks(300), llm)
        assert len(stub.requests) < 20


def test_on_a_full_disk_nothing_more_is_bought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = settings_in(tmp_path, max_cost_usd=1e9)
    with ServiceStub(answer=reply) as stub:
        buy(stub.openai_url, asks(20), llm)
        monkeypatch.setattr("interpflow.llm.bought.store_file.MIN_FREE_BYTES", 1 << 60)
        with pytest.raises(UserError, match="no room is left"):
            buy(stub.openai_url, asks(300), llm)
        assert len(stub.billed_entries) == 20
        monkeypatch.undo()
        assert len(buy(stub.openai_url, asks(40), llm)) == 40
        assert len(stub.billed_entries) == 40


def test_nothing_secret_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    monkeypatch.setattr("interpflow.llm.calls.progress.INTERVAL_S", 0.0)
    faults = Faults(rates=THIRTY_PERCENT, seed=1, slow_s=3.0)
    llm = settings_in(tmp_path, max_cost_usd=1e9, max_attempts=20)
    with caplog.at_level(logging.INFO), ServiceStub(faults, lambda _: "the answer itself") as stub:
        buy(stub.openai_url, asks(100), llm, timeout_s=1.0)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "job: 100 of 100 answered" in said
    assert not any(word in said for word in ("prompt", "the answer itself", "secret"))
    content = (tmp_path / "answers.sqlite").read_bytes()
    assert b"secret" not in content
