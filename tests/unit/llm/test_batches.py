"""Batches over the stub service: nothing lost and nothing paid twice, whatever is killed when."""

import asyncio
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from interpflow.config.llm import RoleModel
from interpflow.errors import UserError
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.batches import answering as batches
from interpflow.llm.batches import journal as batch_journal
from interpflow.llm.batches.answering import Limits, answer_by_batch
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.prices import Price, Rates
from interpflow.llm.bought.store import open_store
from interpflow.llm.calls.progress import Progress
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.providers import open_provider
from tests.service_stub.faults import Faults
from tests.service_stub.process import ServiceStubProcess
from tests.service_stub.stub import ServiceStub

KEY = "sk-test-0123456789"
PRICE = Price("test 2026", (Rates(0, 1.0, 1.25, 2.0, 0.1, 5.0),), 0.5)
QUICK = Limits(requests=15, poll_s=0.02, listed_within_s=0.3)
N = 60
N_KILLS = 25


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


def opened(url: str):
    return open_provider(RoleModel(provider="anthropic", model="claude-stub", base_url=url))


def asks(n: int = N) -> list[Ask]:
    return [Ask(id=str(i), turns=(Turn("user", f"question {i}"),), max_tokens=50) for i in range(n)]


def run(path: Path, url: str, n: int = N, limits: Limits = QUICK, cap_usd: float = 10.0):
    """The failures, and the progress, of `n` requests bought by batches."""
    provider = opened(url)
    requests = [provider.request(ask) for ask in asks(n)]
    progress = Progress("test", len(requests), lambda: "", priced=True, cap_usd=cap_usd)

    async def work():
        try:
            return await answer_by_batch(requests, provider, store, budget, PRICE, progress, limits)
        finally:
            await provider.close()

    with open_store(path) as store:
        budget = Budget(store, cap_usd)
        return asyncio.run(work()), progress


def books(path: Path):
    """Outcomes by key and the money (spent, presumed, reserved; nano-dollars)."""
    with open_store(path) as store:
        Budget(store, 1.0)
        with store.reading() as connection:
            answered = connection.execute(
                "SELECT key, outcome, cost_nano FROM responses"
            ).fetchall()
            money = connection.execute("SELECT spent, presumed, reserved FROM money").fetchone()
            open_ones = connection.execute(
                "SELECT COUNT(*) FROM batches WHERE state IN ('intended', 'created')"
            ).fetchone()[0]
    return answered, money, open_ones


def check_books(path: Path, n: int = N, presumed: int = 0) -> None:
    answered, (spent, counted_lost, reserved), open_ones = books(path)
    assert len(answered) == n
    assert {outcome for _, outcome, _ in answered} == {"ok"}
    assert spent == sum(cost for _, _, cost in answered) > 0
    assert (counted_lost, reserved, open_ones) == (presumed, 0, 0)


def test_batches_answer_everything_at_the_price_of_batches(tmp_path):
    path = tmp_path / "answers.sqlite"
    with ServiceStub(batch_polls=2) as stub:
        failed, progress = run(path, stub.url)
        assert failed == {}
        assert progress.bought == N
        assert len({entry["batch"] for entry in stub.billed_entries}) == 4
        run(path, stub.url)  # all from the store
        assert set(stub.billed.values()) == {1}
    check_books(path)
    with open_store(path) as store:
        stored = store.find([opened(stub.url).request(asks()[0]).key]).popitem()[1]
    assert stored.usage is not None
    assert stored.cost_usd == pytest.approx(PRICE.cost(stored.usage) / 2)
    assert stored.raw.channel.startswith("msgbatch_")
    assert stored.raw.received_at >= stored.raw.sent_at > 0


def test_expired_and_errored_rows_go_into_the_next_batch(tmp_path):
    path = tmp_path / "answers.sqlite"
    rates = {"expired": 0.2, "errored": 0.1, "canceled": 0.1}
    with ServiceStub(Faults(row_rates=rates), batch_polls=1) as stub:
        failed, progress = run(path, stub.url)
        assert failed == {}
        assert set(stub.billed.values()) == {1}
        assert sum(stub.billed.values()) == N
    check_books(path)
    assert (progress.bought, progress.failed) == (N, 0)
    counts = sqlite3.connect(path).execute(
        "SELECT batch, COUNT(*), (SELECT n FROM batches WHERE id = batch), COUNT(kind) "
        "FROM batch_entries GROUP BY batch"
    )
    # Every entry became something.
    assert all(n == journaled == ended for _, n, journaled, ended in counts)


def test_requests_that_the_service_rejects_are_named_and_not_sent_again(tmp_path):
    path = tmp_path / "answers.sqlite"
    with ServiceStub(Faults(row_rates={"errored_invalid": 0.3})) as stub:
        failed, progress = run(path, stub.url)
        n_created = sum(r.method == "POST" for r in stub.requests)
    assert 0 < len(failed) < N
    assert progress.failed == len(failed)
    assert n_created == 4
    assert all(why == "invalid_request_error in a batch" for why in failed.values())
    check_books(path, N - len(failed))


def test_rows_that_expire_every_time_are_given_up(tmp_path):
    path = tmp_path / "answers.sqlite"
    limits = Limits(poll_s=0.01, rounds=3)
    with ServiceStub(Faults(row_rates={"expired": 1.0})) as stub:
        failed, _ = run(path, stub.url, n=5, limits=limits)
        assert sum(r.method == "POST" for r in stub.requests) == 3
    assert set(failed.values()) == {"no answer in 3 batches"}
    assert books(path)[1] == (0, 0, 0)


@pytest.mark.parametrize("fault", ["lost", "500", "429"])
def test_a_creation_that_fails_pays_for_nothing_twice(tmp_path, fault):
    path = tmp_path / "answers.sqlite"
    with ServiceStub(Faults(create_script=[fault, "ok", fault]), batch_polls=3) as stub:
        failed, _ = run(path, stub.url)
        assert failed == {}
        assert set(stub.billed.values()) == {1}
    check_books(path)


def test_a_batch_of_the_same_size_is_not_taken_for_ours(tmp_path):
    path = tmp_path / "answers.sqlite"
    with ServiceStub(Faults(create_script=["ok", "500"])) as stub:
        provider = opened(stub.url)
        others = [provider.request(ask) for ask in asks(25)[15:]]
        asyncio.run(_create(provider, others))
        failed, _ = run(path, stub.url, n=10)
        assert failed == {}
        assert sum(stub.billed.values()) == 20
    check_books(path, 10)


@pytest.mark.parametrize(
    ("told", "least", "most"), [(0.0, 0.0, 0.02), (300.0, 300, 300), (1e9, 600, 600)]
)
def test_waits_of_batches_are_as_long_as_told(told, least, most):
    limits = Limits(poll_s=0.02)
    work = batches._Run(None, None, None, None, None, limits)  # type: ignore[arg-type]
    failure = ServiceFailure("limited", "429", status=429, retry_after_s=told)
    waits = [work._wait(failure, n) for n in range(8)]
    assert least <= min(waits)
    assert max(waits) <= most
    assert min(waits) > 0


def test_a_creation_that_took_long_is_waited_for_in_the_list(tmp_path, monkeypatch):
    """The service lists a batch a little after a creation whose answer was lost."""
    limits = Limits(poll_s=0.05, listed_within_s=0.5)
    with ServiceStub() as stub:
        kind = type(opened(stub.url))
        create, since = kind.create_batch, kind.batches_since
        names: list[str] = []
        listed_at: list[float] = []

        async def lost_at_last(self, requests):
            names.append(await create(self, requests))
            if len(names) > 1:
                return names[-1]
            await asyncio.sleep(limits.listed_within_s)  # a large upload
            listed_at.append(time.time() + 0.2)
            raise ServiceFailure("passing", "status 504", status=504, maybe_billed=True)

        async def late(self, moment):
            found = await since(self, moment)
            return [each for each in found if each.id != names[0] or time.time() > listed_at[0]]

        monkeypatch.setattr(kind, "create_batch", lost_at_last)
        monkeypatch.setattr(kind, "batches_since", late)
        failed, _ = run(tmp_path / "answers.sqlite", stub.url, n=10, limits=limits)
        assert failed == {}
        assert len(names) == 1
        assert set(stub.billed.values()) == {1}
    check_books(tmp_path / "answers.sqlite", 10)


async def _create(provider, requests) -> None:
    try:
        await provider.create_batch(requests)
    finally:
        await provider.close()


def test_the_cap_lets_through_what_fits_and_stops(tmp_path):
    path = tmp_path / "answers.sqlite"
    with ServiceStub() as stub:
        provider = opened(stub.url)
        tokens = provider.estimated_input_tokens(provider.request(asks()[-1]))
        cap = 1.2 * PRICE.upper_bound(tokens, 50, batch=True)
        with pytest.raises(UserError, match="cap leaves no room") as caught:
            run(path, stub.url, n=20, cap_usd=cap)
        n_bought = sum(stub.billed.values())
        assert 1 < n_bought < 20  # what the first ones did not use is used for others
        assert "question" not in str(caught.value)
        assert books(path)[1][0] <= cap * 1e9
        check_books(path, n_bought)
        run(path, stub.url, n=20)
        assert set(stub.billed.values()) == {1}
    check_books(path, 20)


def test_batches_fit_the_limits():
    provider = opened("http://127.0.0.1:1")
    requests = [provider.request(ask) for ask in asks(40)]
    size = len(requests[0].body) + batches.ENVELOPE_BYTES
    for limits, sizes in (
        (Limits(requests=15), [15, 15, 10]),
        (Limits(requests=100, bytes=size * 12), [12, 11, 11, 6]),
    ):
        chunks = list(batches._chunks(requests, limits))
        assert [each for chunk in chunks for each in chunk] == requests
        assert len(chunks[0]) <= sizes[0]
        for chunk in chunks:
            assert len(chunk) <= limits.requests
            assert sum(len(r.body) + batches.ENVELOPE_BYTES for r in chunk) <= limits.bytes


def test_a_wrong_key_is_one_message_and_nothing_is_held(tmp_path, caplog):
    path = tmp_path / "answers.sqlite"
    caplog.set_level(logging.DEBUG, logger="interpflow")
    with ServiceStub(key="another") as stub, pytest.raises(UserError) as caught:
        run(path, stub.url)
    assert "\n" not in caught.value.what
    assert KEY not in str(caught.value) + caplog.text
    assert books(path) == ([], (0, 0, 0), 0)


def test_single_calls_do_not_buy_what_waits_in_a_batch(tmp_path):
    path = tmp_path / "answers.sqlite"
    requests = [opened("http://h").request(ask) for ask in asks(3)]
    keys = [request.key for request in requests]
    with open_store(path) as store:
        budget = Budget(store, 1.0)
        assert batch_journal.intend(store, budget, requests[:2], dict.fromkeys(keys, 0.1))
        assert (budget.reserved_usd, budget.in_batches_usd) == pytest.approx((0, 0.2))
        with open_store(path) as other:  # polled by a living job: to be waited for
            assert other.claim(keys, "a") == {keys[2]}
            other.release(keys)
    with open_store(path) as store:
        assert Budget(store, 1.0).in_batches_usd == pytest.approx(0.2)
        with pytest.raises(UserError, match="wait in a batch"):
            store.claim(keys, "a")
        assert store.claim(keys[2:], "a") == {keys[2]}


def test_an_earlier_runs_batch_is_collected_whatever_is_asked_now(tmp_path):
    path = tmp_path / "answers.sqlite"
    with ServiceStub(batch_polls=1) as stub:
        provider = opened(stub.url)
        former = [provider.request(ask) for ask in asks(20)[10:]]
        with open_store(path) as store:
            budget = Budget(store, 1.0)
            bounds = dict.fromkeys([r.key for r in former], 0.01)
            intended = batch_journal.intend(store, budget, former, bounds)
            assert intended
            asyncio.run(_create_journaled(provider, store, *intended))
        _, progress = run(path, stub.url, n=10)
        assert progress.bought == 10
        assert sum(stub.billed.values()) == 20
    check_books(path, 20)


async def _create_journaled(provider, store, batch, requests) -> None:
    batch_journal.created(store, batch, await provider.create_batch(requests))
    await provider.close()


def test_two_jobs_at_once_share_the_work(tmp_path):
    path = tmp_path / "answers.sqlite"
    fork = multiprocessing.get_context("fork")
    with ServiceStubProcess(journal=tmp_path / "billed", latency_s=0.01, batch_polls=3) as stub:
        jobs = [fork.Process(target=run, args=(path, stub.url, n)) for n in (N, N - 10, N)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert [job.exitcode for job in jobs] == [0, 0, 0]
        assert set(stub.billed.values()) == {1}
        assert sum(stub.billed.values()) == N
    check_books(path)


def test_killed_at_random_moments_every_request_is_paid_once(tmp_path):
    rng = random.Random(5)
    path = tmp_path / "answers.sqlite"
    fork = multiprocessing.get_context("fork")
    faults = Faults(row_rates={"expired": 0.2, "errored": 0.1})
    n_kills, moments = 0, Counter()
    with ServiceStubProcess(
        faults, journal=tmp_path / "billed", latency_s=0.02, batch_polls=2
    ) as stub:
        for n in range(N, 10_000, 10):
            job = fork.Process(target=run, args=(path, stub.url, n))
            job.start()
            time.sleep(rng.random() * 0.5)
            if n_kills < N_KILLS:
                assert job.pid
                os.kill(job.pid, signal.SIGKILL)
                job.join()
                n_kills += job.exitcode == -signal.SIGKILL
                moments.update(_states(path))
            else:
                job.join()
                assert job.exitcode == 0
                break
        n_asked = n
        assert set(stub.billed.values()) == {1}
        assert sum(stub.billed.values()) == n_asked
    assert n_kills == N_KILLS
    # The kills met intents without an id and batches not yet collected.
    assert moments["intended"] > 1
    assert moments["created"] > 3
    check_books(path, n_asked)


def _states(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open_store(path) as store, store.reading() as connection:
        rows = connection.execute("SELECT DISTINCT state FROM batches").fetchall()
    return [state for (state,) in rows]
