"""The store: what was bought is found again, once, by any job; other files are refused."""

import multiprocessing
import os
import resource
import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import pytest

from interpflow.errors import UserError
from interpflow.llm.answers import RawResponse, Usage
from interpflow.llm.bought import store_file
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.store import open_store
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.requests import Request

USAGE = Usage(11, 22, 33, 44, 5)


def request_of(n: int) -> Request:
    body = b'{"n":%d,"text":"\xc3\xa9"}' % n
    return Request("anthropic", "m", "messages", "https://h", "2026-10-21", ("b", "a"), body, n, 1)


def raw_of(n: int, channel: str = "sync") -> RawResponse:
    return RawResponse(b'{"answer":%d}' % n, 200, {"request-id": f"r{n}"}, 1.5, 2.5, channel)


def settle(store, request, outcome="ok", cost=0.25):
    store.settle(request.key, outcome, USAGE, cost, "p 2026", "req_1", "m-1", 2, "")


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "new" / "answers.sqlite") as opened:
        yield opened


def test_what_was_kept_is_found_whole_by_the_next_job(tmp_path):
    path = tmp_path / "answers.sqlite"
    with open_store(path) as store:
        assert store.keep(request_of(1), raw_of(1))
        settle(store, request_of(1))
    with open_store(str(path)) as store:
        found = store.find([request_of(1).key, request_of(2).key])
        assert list(found) == [request_of(1).key]
        stored = found[request_of(1).key]
        assert stored.raw == raw_of(1)
        assert (stored.outcome, stored.usage, stored.cost_usd) == ("ok", USAGE, 0.25)
        assert stored.model == "m-1"
        assert store.request(request_of(1).key) == request_of(1)


@pytest.mark.parametrize(
    ("outcome", "satisfies"),
    [("ok", 1), ("truncated", 1), ("refusal", 1), ("invalid", 0), ("error", 0), (None, 0)],
)
def test_only_final_outcomes_satisfy_a_read(store, outcome, satisfies):
    request = request_of(1)
    store.keep(request, raw_of(1))
    if outcome:
        settle(store, request, outcome)
    assert len(store.find([request.key])) == satisfies
    assert store.find([request.key], any_outcome=True)[request.key].outcome == outcome


def test_many_keys_at_once(store):
    requests = [request_of(n) for n in range(3_000)]
    with store.together():
        for n, request in enumerate(requests):
            store.keep(request, raw_of(n))
            settle(store, request)
    found = store.find([request.key for request in requests])
    assert all(found[r.key].raw.body == raw_of(n).body for n, r in enumerate(requests))


def test_second_response_does_not_replace_the_first(store):
    request = request_of(1)
    assert store.keep(request, raw_of(1))
    settle(store, request)
    assert store.keep(request, raw_of(1))  # the same bytes
    assert not store.keep(request, raw_of(2))
    assert store.find([request.key])[request.key].raw == raw_of(1)
    with store.reading() as connection:
        assert connection.execute("SELECT COUNT(*) FROM responses").fetchone() == (2,)


def test_settling_again_corrects_the_cost(store):
    budget = Budget(store, 10)
    request = request_of(1)
    store.keep(request, raw_of(1))
    settle(store, request, cost=1.0)
    settle(store, request, "invalid", cost=0.4)
    assert budget.spent_usd == 0.4
    assert not store.find([request.key])
    with pytest.raises(KeyError):
        settle(store, request_of(2))


def test_failures_are_recorded_and_satisfy_nothing(store):
    failure = ServiceFailure("passing", "529", status=529, maybe_billed=True, request_id="r")
    store.note_failure(request_of(1), failure, 3)
    assert not store.find([request_of(1).key], any_outcome=True)
    with store.reading() as connection:
        row = connection.execute("SELECT kind, status, attempt FROM failures").fetchone()
    assert row == ("passing", 529, 3)


def test_together_is_all_or_nothing(store):
    with pytest.raises(ZeroDivisionError), store.together():  # noqa: PT012
        store.keep(request_of(1), raw_of(1))
        with store.together():
            store.keep(request_of(2), raw_of(2))
        raise ZeroDivisionError
    assert not store.find([request_of(1).key, request_of(2).key], any_outcome=True)
    store.keep(request_of(3), raw_of(3))
    assert store.find([request_of(3).key], any_outcome=True)


def test_leases_keep_others_away_until_released(tmp_path):
    path = tmp_path / "answers.sqlite"
    keys = [request_of(n).key for n in range(3)]
    with open_store(path) as one, open_store(path) as two:
        assert one.claim(keys[:2], "a") == set(keys[:2])
        assert one.claim(keys[:2], "a") == set(keys[:2])
        assert one.claim(keys[:2], "b") == set()
        assert two.claim(keys, "a") == {keys[2]}
        two.release(keys)  # not its own
        assert two.claim(keys[:1], "a") == set()
        one.release(keys[:1])
        assert two.claim(keys[:1], "a") == {keys[0]}
        one.keep(request_of(1), raw_of(1))
        settle(one, request_of(1))
        # Answered: to be found, never to be bought.
        assert two.claim(keys[1:2], "a") == set()
    with open_store(path) as three:
        assert three.claim(keys, "a") == {keys[0], keys[2]}


def test_what_was_bought_but_not_read_is_never_claimed(store):
    for n, outcome in enumerate([None, "invalid", "error"]):
        store.keep(request_of(n), raw_of(n))
        if outcome:
            settle(store, request_of(n), outcome)
        assert store.claim([request_of(n).key], "a") == set()


def test_other_schema_version_is_one_message_and_the_file_is_left(tmp_path):
    path = tmp_path / "answers.sqlite"
    with open_store(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="schema version 7") as caught, open_store(path):
        pass
    assert "llm.store" in caught.value.where
    assert "\n" not in caught.value.what
    assert path.read_bytes() == before


def test_foreign_files_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes " * 500)
    with pytest.raises(UserError, match="not a store of answers"), open_store(text):
        pass
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(UserError, match="not a store of answers"), open_store(other):
        pass
    assert sqlite3.connect(other).execute("SELECT name FROM sqlite_master").fetchall() == [
        ("mine",)
    ]


def _open_when_all_are_ready(path, ready, said):
    ready.wait()
    try:
        with open_store(path) as store:
            store.keep(request_of(os.getpid()), raw_of(1))
        said.put("")
    except Exception as error:
        said.put(str(error))


def test_eight_jobs_make_the_store_at_the_same_moment(tmp_path):
    fork = multiprocessing.get_context("fork")
    for n in range(12):
        ready, said = fork.Barrier(8), fork.Queue()
        path = tmp_path / f"{n}.sqlite"
        jobs = [
            fork.Process(target=_open_when_all_are_ready, args=(path, ready, said))
            for _ in range(8)
        ]
        for job in jobs:
            job.start()
        assert [said.get() for _ in jobs] == [""] * 8
        for job in jobs:
            job.join()
        with open_store(path) as store, store.reading() as connection:
            assert connection.execute("SELECT COUNT(*) FROM responses").fetchone() == (8,)


def test_unusable_paths(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "answers.sqlite"):
        with pytest.raises(UserError, match="the store of answers") as caught, open_store(path):
            pass
        assert "llm.store" in caught.value.where


def test_a_damaged_store_is_one_message(tmp_path):
    path = tmp_path / "answers.sqlite"
    with open_store(path) as store:
        store.keep(request_of(1), raw_of(1))
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged") as caught, open_store(path) as store:
        store.find([request_of(1).key])
    assert "recover" in caught.value.remedy


def test_a_store_held_by_another_program_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(store_file, "BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "answers.sqlite"
    with open_store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="another program has held"):
            store.keep(request_of(1), raw_of(1))
        other.execute("ROLLBACK")
        store.keep(request_of(1), raw_of(1))
        assert store.bought([request_of(1).key, request_of(2).key]) == {request_of(1).key}


def test_nothing_is_bought_when_the_disk_is_nearly_full(store, monkeypatch):
    monkeypatch.setattr(store_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(UserError, match="no room is left"):
        store.claim([request_of(1).key], "a")
    with pytest.raises(UserError, match="no room is left"):
        Budget(store, 1).reserve("k", 0.1)


@pytest.mark.parametrize("limit", ["pages", "file"])
def test_full_disk_is_one_message_and_keeps_what_was_bought(tmp_path, limit):
    path = tmp_path / "answers.sqlite"
    kept = []
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_store(path) as store:
        if limit == "pages":
            store._connection.execute("PRAGMA max_page_count = 60")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, former[1]))
        try:
            with pytest.raises(UserError, match="no room is left") as caught:  # noqa: PT012
                for n in range(400):
                    body = os.urandom(4_000)
                    store.keep(request_of(n), replace(raw_of(n), body=body))
                    kept.append((n, body))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
        assert "bought so far is kept" in caught.value.remedy
        assert str(kept[0][1]) not in str(caught.value)
    assert len(kept) > 20
    with open_store(path) as store:
        found = store.find([request_of(n).key for n, _ in kept], any_outcome=True)
        assert all(found[request_of(n).key].raw.body == body for n, body in kept)
        store.keep(request_of(500), raw_of(500))
