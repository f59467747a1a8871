"""The client against a service within the process: each answer once, failures as they should be."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from interpflow.errors import UserError
from interpflow.llm import asking
from interpflow.llm.answers import Answer
from interpflow.llm.asking import answer_with
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.bought import store_file
from interpflow.llm.calls import buying
from interpflow.llm.failures import Kind, ServiceFailure
from interpflow.llm.requests import Request
from tests.unit.llm.stand_in_service import (
    FAST,
    ROLE,
    FlatPrice,
    StandIn,
    StandInModel,
    asks,
    settings,
    text_of,
)

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def echo(request: Request, n: int) -> str:
    return f"answer to {text_of(request)}"


def failing(kind: Kind, times: int, **more: Any):
    def script(request: Request, n: int):
        return ServiceFailure(kind, f"{kind} failure", **more) if n < times else echo(request, n)

    return script


def ask_all(provider: StandIn, wanted: Sequence[Ask], folder: Path, **more: Any) -> list[Answer]:
    return answer_with(
        provider, wanted, ROLE, settings(folder, **more), purpose="test", clock=FAST, grace_s=2
    )


def rows(folder: Path, query: str) -> list[tuple]:
    with sqlite3.connect(folder / "answers.sqlite") as connection:
        return connection.execute(query).fetchall()


def test_answers_come_in_order_and_the_second_time_from_the_store(tmp_path: Path) -> None:
    service = StandIn(echo)
    first = ask_all(service, asks(300), tmp_path)
    assert [each.id for each in first] == [f"a{i}" for i in range(300)]
    assert [each.text for each in first] == [f"answer to prompt {i}" for i in range(300)]
    assert not any(each.from_store for each in first)
    again = StandIn(echo)
    second = ask_all(again, list(reversed(asks(300))), tmp_path)
    assert not again.sent
    assert all(each.from_store for each in second)
    assert [each.text for each in reversed(second)] == [each.text for each in first]
    assert service.closed
    assert rows(tmp_path, "SELECT count(*) FROM leases") == [(0,)]


def test_equal_asks_are_bought_once_and_samples_apart(tmp_path: Path) -> None:
    turns = (Turn("user", "the same"),)
    wanted = [Ask(f"a{i}", turns) for i in range(10)]
    wanted += [Ask(f"b{i}", turns, sample=i) for i in range(3)]
    service = StandIn(echo)
    answers = ask_all(service, wanted, tmp_path)
    assert len(answers) == 13
    assert sum(service.billed.values()) == 3


def test_equal_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 ids belong to several asks"):
        ask_all(StandIn(echo), asks(3) + asks(2), tmp_path)


def test_nothing_asked_nothing_opened(tmp_path: Path) -> None:
    assert ask_all(StandIn(echo), [], tmp_path) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["limited", "passing"])
def test_what_passes_is_asked_again(tmp_path: Path, kind: Kind) -> None:
    service = StandIn(failing(kind, times=3))
    answers = ask_all(service, asks(20), tmp_path)
    assert {each.outcome for each in answers} == {"ok"}
    assert set(service.sent.values()) == {4}
    assert set(service.billed.values()) == {1}
    assert rows(tmp_path, "SELECT count(*), max(attempt) FROM failures") == [(60, 3)]
    assert rows(tmp_path, "SELECT DISTINCT attempts FROM responses") == [(4,)]


def test_after_max_attempts_a_request_has_failed_and_the_rest_is_kept(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        if text_of(request) == "prompt 3":
            return ServiceFailure("passing", "status 500")
        return echo(request, n)

    service = StandIn(script)
    with pytest.raises(UserError, match=r"1 of 40 .*status 500 \(sent 4 times\)") as error:
        ask_all(service, asks(40), tmp_path, max_attempts=4)
    assert "llm.max_failed_share" in str(error.value)
    assert rows(tmp_path, "SELECT count(*) FROM responses") == [(39,)]
    answers = ask_all(StandIn(script), asks(40), tmp_path, max_attempts=2, max_failed_share=0.1)
    assert [each.outcome for each in answers if each.id == "a3"] == ["error"]
    assert sum(each.outcome == "ok" for each in answers) == 39
    later = StandIn(echo)
    assert ask_all(later, asks(40), tmp_path)[3].text == "answer to prompt 3"
    assert sum(later.sent.values()) == 1


def test_failures_that_stay_are_told_from_those_that_are_asked_again(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        if text_of(request) == "prompt 3":
            return ServiceFailure("passing", "status 500")
        return '{"n": "one"}' if text_of(request) == "prompt 4" else '{"n": 1}'

    with pytest.raises(UserError, match="2 of 9") as caught:
        ask_all(StandIn(script), asks(9, schema=SCHEMA), tmp_path, max_attempts=4)
    assert "run the same command again" in caught.value.remedy
    assert "1 of them got answers that cannot be used" in caught.value.remedy


def test_being_told_to_slow_down_is_no_fault_of_the_request(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        slow = text_of(request) == "prompt 0" and n < 12
        return ServiceFailure("limited", "status 429") if slow else echo(request, n)

    answers = ask_all(StandIn(script), asks(20), tmp_path, max_attempts=2)
    assert answers[0].outcome == "ok"
    too_large = StandIn(failing("limited", 10_000))
    with pytest.raises(UserError, match=r"sent 20 times"):
        ask_all(too_large, asks(1, max_tokens=2), tmp_path, max_attempts=2)


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "OPENAI_API_KEY"), (402, "credit"), (403, "access")]
)
def test_a_refusal_of_the_account_stops_at_once(tmp_path: Path, status: int, hint: str) -> None:
    def script(request: Request, n: int):
        if len(service.sent) > 30:
            return ServiceFailure("fatal", f"status {status}", status=status)
        return echo(request, n)

    service = StandIn(script, seconds=0.01)
    with pytest.raises(UserError, match=hint):
        ask_all(service, asks(1000), tmp_path)
    assert len(service.sent) < 150
    kept = rows(tmp_path, "SELECT count(*) FROM responses WHERE outcome = 'ok'")[0][0]
    assert kept == sum(service.billed.values()) == 30
    assert rows(tmp_path, "SELECT count(*) FROM leases") == [(0,)]


def test_requests_that_are_all_malformed_stop_the_run(tmp_path: Path) -> None:
    service = StandIn(failing("bad_request", 99), seconds=0.01)
    with pytest.raises(UserError, match="rejected the first 5 requests"):
        ask_all(service, asks(500), tmp_path)
    assert sum(service.sent.values()) < 20


def test_one_malformed_request_stops_nobody(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        bad = int(text_of(request).split()[1]) % 10 == 9
        return ServiceFailure("bad_request", "status 400") if bad else echo(request, n)

    service = StandIn(script)
    with pytest.raises(UserError, match="10 of 100"):
        ask_all(service, asks(100), tmp_path)
    assert set(service.sent.values()) == {1}
    assert rows(tmp_path, "SELECT count(*) FROM responses") == [(90,)]


def test_a_dead_service_ends_the_run(tmp_path: Path) -> None:
    service = StandIn(failing("passing", 99))
    with pytest.raises(UserError, match="20 requests in a row got no answer"):
        ask_all(service, asks(500), tmp_path, max_attempts=2)
    assert len(service.sent) <= 20 + 64


def test_waits_beyond_the_longest_end_the_run(tmp_path: Path) -> None:
    service = StandIn(failing("limited", 1, retry_after_s=3600.0))
    with pytest.raises(UserError, match="asks to wait 3600 s"):
        ask_all(service, asks(5), tmp_path)


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    times: list[float] = []

    def script(request: Request, n: int):
        times.append(FAST.now())
        return ServiceFailure("limited", "429", retry_after_s=90.0) if n == 0 else echo(request, n)

    ask_all(StandIn(script), asks(1), tmp_path)
    assert times[1] - times[0] >= 90


def test_told_to_wait_for_nothing_it_waits_of_its_own(tmp_path: Path) -> None:
    """Some services send `retry-after: 0` for as long as they are busy."""
    began = FAST.now()

    def script(request: Request, n: int):
        busy = FAST.now() - began < 30
        return ServiceFailure("limited", "429", retry_after_s=0.0) if busy else echo(request, n)

    service = StandIn(script)
    assert len(ask_all(service, asks(10), tmp_path)) == 10
    assert sum(service.sent.values()) < 120


def test_an_invalid_answer_is_kept_and_asked_anew_twice(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        good = request.ask_again == 2 or text_of(request) != "prompt 0"
        return '{"n": 1}' if good else '{"m": "private"}'

    service = StandIn(script)
    answers = ask_all(service, asks(3, schema=SCHEMA), tmp_path)
    assert [each.data for each in answers] == [{"n": 1}] * 3
    assert sum(service.billed.values()) == 5
    assert rows(tmp_path, "SELECT outcome FROM responses ORDER BY outcome") == [
        ("invalid",), ("invalid",), ("ok",), ("ok",), ("ok",),
    ]  # fmt: skip
    again = StandIn(script)
    assert [each.data for each in ask_all(again, asks(3, schema=SCHEMA), tmp_path)] == [
        {"n": 1}
    ] * 3
    assert not again.sent


def test_three_invalid_answers_are_a_failure_that_is_not_bought_again(tmp_path: Path) -> None:
    service = StandIn(lambda request, n: "no JSON")
    for billed in (3, 0):
        service.billed.clear()
        with pytest.raises(UserError, match=r"1 of 1 .*no JSON") as caught:
            ask_all(service, asks(1, schema=SCHEMA), tmp_path)
        # Running again would ask nothing.
        assert "run the same command again" not in caught.value.remedy
        assert "another model" in caught.value.remedy
        assert sum(service.billed.values()) == billed
    found = ask_all(service, asks(1, schema=SCHEMA), tmp_path, max_failed_share=1)
    assert (found[0].outcome, found[0].data) == ("invalid", None)


@pytest.mark.parametrize("outcome", ["truncated", "refusal"])
def test_truncated_and_refusal_are_final(tmp_path: Path, outcome: str) -> None:
    service = StandIn(lambda request, n: {"outcome": outcome, "text": "{"})
    for _ in range(2):
        answers = ask_all(service, asks(4, schema=SCHEMA), tmp_path)
        assert {(each.outcome, each.data) for each in answers} == {(outcome, None)}
    assert sum(service.billed.values()) == 4


def test_a_body_that_cannot_be_read_is_kept_and_asked_anew(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        return {"outcome": "error"} if request.ask_again < 4 else "fine"

    service = StandIn(script)
    assert ask_all(service, asks(2), tmp_path)[1].text == "fine"
    assert sum(service.billed.values()) == 10


def test_what_was_kept_but_not_entered_is_read_and_not_bought(tmp_path: Path) -> None:
    ask_all(StandIn(echo), asks(5), tmp_path)
    with sqlite3.connect(tmp_path / "answers.sqlite") as connection:
        connection.execute("UPDATE responses SET outcome = NULL, cost_nano = NULL")
    service = StandIn(echo)
    assert ask_all(service, asks(5), tmp_path)[4].text == "answer to prompt 4"
    assert not service.sent
    assert rows(tmp_path, "SELECT DISTINCT outcome FROM responses") == [("ok",)]


def test_calls_in_flight_grow_and_stay_below_the_ceiling(tmp_path: Path) -> None:
    service = StandIn(echo, seconds=0.002)
    ask_all(service, asks(400), tmp_path, max_concurrency=24)
    assert 20 <= service.most_in_flight <= 24


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "priced", True)
    monkeypatch.setattr(asking, "_price", lambda *_: FlatPrice())
    monkeypatch.setattr(buying, "ROOM_POLL_S", 0.01)


def spent(folder: Path) -> float:
    return rows(folder, "SELECT spent + presumed + reserved FROM money")[0][0] / 1e9


@pytest.mark.usefixtures("priced")
def test_the_cap_holds_and_what_fits_is_bought(tmp_path: Path) -> None:
    service = StandIn(echo, tokens=7)
    with pytest.raises(UserError, match="may cost up to 100 USD and 406 USD of 500 are spent"):
        ask_all(service, asks(300, max_tokens=100), tmp_path, max_cost_usd=500)
    # The 59th call could have cost 100 and 94 were left.
    assert spent(tmp_path) == 58 * 7
    assert sum(service.billed.values()) == 58
    answers = ask_all(service, asks(300, max_tokens=100), tmp_path, max_cost_usd=2200)
    assert sum(each.cost_usd for each in answers) == spent(tmp_path) == 2100


@pytest.mark.usefixtures("priced")
def test_an_attempt_that_may_be_billed_counts_in_full(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        lost = ServiceFailure("passing", "connection lost", maybe_billed=True)
        return lost if n == 0 else echo(request, n)

    ask_all(StandIn(script), asks(10, max_tokens=100), tmp_path, max_cost_usd=5000)
    assert spent(tmp_path) == 10 * (100 + 7)


@pytest.mark.usefixtures("priced")
def test_an_attempt_that_is_not_billed_counts_nothing(tmp_path: Path) -> None:
    service = StandIn(failing("limited", 2))
    ask_all(service, asks(10, max_tokens=100), tmp_path, max_cost_usd=1000)
    assert spent(tmp_path) == 70


@pytest.mark.usefixtures("priced")
def test_without_a_cap_nothing_that_costs_is_bought(tmp_path: Path) -> None:
    service = StandIn(echo)
    with pytest.raises(UserError, match=r"llm\.max_cost_usd"):
        ask_all(service, asks(10), tmp_path)
    assert not service.sent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_in_flight_and_says_so(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)

    def script(request: Request, n: int) -> str:
        if len(service.sent) == 100:
            os.kill(os.getpid(), number)
        return echo(request, n)

    service = StandIn(script, seconds=0.05)
    with pytest.raises(UserError, match="stopped by SIG"):
        ask_all(service, asks(3000), tmp_path, max_concurrency=30)
    billed = sum(service.billed.values())
    assert 100 <= billed < 200
    assert rows(tmp_path, "SELECT count(*) FROM responses WHERE outcome = 'ok'") == [(billed,)]
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("priced")
def test_calls_cut_off_by_a_stop_count_as_spent(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        if text_of(request) == "prompt 7":
            return ServiceFailure("fatal", "status 402", status=402)
        return echo(request, n)

    service = StandIn(script, seconds=30.0)
    with pytest.raises(UserError, match="credit"):
        answer_with(
            service, asks(8, max_tokens=100), ROLE, settings(tmp_path, max_cost_usd=1e6),
            purpose="test", clock=FAST, grace_s=0.1,
        )  # fmt: skip
    assert spent(tmp_path) == 100 * sum(service.billed.values()) == 700


def test_a_store_that_another_program_holds_ends_the_run_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "BUSY_TIMEOUT_S", 0.2)
    ask_all(StandIn(echo), asks(1), tmp_path)
    browser = sqlite3.connect(tmp_path / "answers.sqlite", isolation_level=None)

    def script(request: Request, n: int) -> str:
        if len(service.sent) == 40:
            browser.execute("BEGIN IMMEDIATE")
            held_since.append(time.monotonic())
        return echo(request, n)

    held_since: list[float] = []
    service = StandIn(script, seconds=0.05)
    with pytest.raises(UserError, match="another program has held the store"):
        ask_all(service, asks(200), tmp_path, max_concurrency=40)
    # Not one such wait after another for each of the answers.
    assert time.monotonic() - held_since[0] < 10 * 0.2 + 1
    browser.close()


def test_a_defect_is_not_swallowed(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        ask_all(StandIn(script), asks(30), tmp_path)


def test_what_another_job_is_buying_is_awaited(tmp_path: Path) -> None:
    both = [StandIn(echo, seconds=0.02), StandIn(echo, seconds=0.02)]
    found: dict[int, list[Answer]] = {}

    def job(i: int) -> None:
        found[i] = ask_all(both[i], asks(200), tmp_path, max_concurrency=4)

    threads = [threading.Thread(target=job, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.text for each in found[0]] == [each.text for each in found[1]]
    assert len(found[0]) == 200
    counts = [sum(service.billed.values()) for service in both]
    assert sum(counts) == 200
    assert min(counts) > 0  # the work was shared


def test_without_a_store_everything_is_answered_anew(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(StandIn, "stored", False)
    service = StandIn(echo)
    for _ in range(2):
        assert len(ask_all(service, asks(50), tmp_path)) == 50
    assert set(service.sent.values()) == {2}
    assert not list(tmp_path.iterdir())


def test_a_model_on_this_machine_answers_together(tmp_path: Path) -> None:
    def script(request: Request, n: int):
        return '{"n": 1}' if request.ask_again or text_of(request) != "prompt 0" else "no"

    model = StandInModel(script)
    answers = ask_all(model, asks(50, schema=SCHEMA), tmp_path)
    assert [each.data for each in answers] == [{"n": 1}] * 50
    assert sum(model.sent.values()) == 51
    again = StandInModel(script)
    assert len(ask_all(again, asks(50, schema=SCHEMA), tmp_path)) == 50
    assert not again.sent


def test_progress_says_how_it_goes_and_nothing_of_what_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpflow.llm.calls.progress.INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO):
        ask_all(StandIn(echo, seconds=0.001), asks(30), tmp_path)
        ask_all(StandIn(echo), asks(40), tmp_path)
    assert "test: 30 of 30 answered, 0 from the store" in caplog.text
    assert "test: 40 of 40 answered, 30 from the store" in caplog.text
    assert "at most 8 at a time" in caplog.text
    assert "prompt" not in caplog.text
