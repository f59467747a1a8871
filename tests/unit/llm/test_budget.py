"""The cap: exact within a job, shared by many at once, and whole after any kill."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from interpflow.llm.answers import RawResponse, Usage
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.store import open_store
from interpflow.llm.requests import Request

N_JOBS = 8
N_KILLS = 25
BOUND, COST = 0.01, 0.004


def run(program: str, *arguments: object, **options) -> subprocess.Popen:
    """A Python process with this project on its path."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def request_of(n: int) -> Request:
    return Request("anthropic", "m", "messages", "https://h", "v", (), b'{"n":%d}' % n)


def settle(store, n: int, cost: float) -> None:
    store.settle(request_of(n).key, "ok", Usage(1), cost, "p", "", "m", 1, "")


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "answers.sqlite") as opened:
        yield opened


def test_the_cap_is_met_to_the_last_of_it_and_not_passed(store):
    budget = Budget(store, 0.3)
    assert [budget.reserve(f"k{n}", 0.1) for n in range(4)] == [True, True, True, False]
    assert (budget.spent_usd, budget.reserved_usd) == (0, 0.3)
    budget.release("k0")
    assert not budget.reserve("k4", 0.100_000_001)
    assert budget.reserve("k4", 0.1)
    budget.settle("k1", 0.04)
    assert budget.spent_usd == 0.04
    assert budget.reserve("k5", 0.06)
    assert not budget.reserve("k6", 1e-9)
    assert budget.reserve("k6", 0)


def test_no_cap_buys_nothing_that_costs(store):
    budget = Budget(store, None)
    assert budget.reserve("free", 0.0)
    assert not budget.reserve("paid", 1e-9)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_amounts_are_amounts(store, amount):
    with pytest.raises(ValueError, match="not an amount"):
        Budget(store, 1).reserve("k", amount)


@pytest.mark.parametrize("order", ["store first", "budget first", "store only"])
def test_a_purchase_is_booked_once_whoever_settles_it(store, order):
    budget = Budget(store, 1)
    budget.reserve(request_of(1).key, 0.5)
    store.keep(request_of(1), RawResponse(b"{}"))
    steps = [lambda: settle(store, 1, 0.2), lambda: budget.settle(request_of(1).key, 0.2)]
    for step in {"budget first": steps[::-1], "store only": steps[:1]}.get(order, steps):
        step()
    budget.settle(request_of(1).key, 0.2)
    assert (budget.spent_usd, budget.reserved_usd) == (0.2, 0)


def test_attempts_that_may_have_been_billed_stay_spent(store):
    budget = Budget(store, 1)
    key = request_of(1).key
    budget.reserve(key, 0.3)
    budget.presume_spent(key)
    budget.reserve(key, 0.3)
    budget.reserve(key, 0.3)  # the second attempt was neither released nor settled
    assert not budget.reserve(key, 0.3)
    assert (budget.presumed_usd, budget.reserved_usd) == pytest.approx((0.6, 0.3))
    store.keep(request_of(1), RawResponse(b"{}"))
    settle(store, 1, 0.1)
    assert (budget.spent_usd, budget.reserved_usd) == pytest.approx((0.7, 0))


def test_cap_holds_over_all_that_the_store_ever_bought(tmp_path):
    for cap, room in ((0.5, True), (0.5, False), (0.8, True)):
        with open_store(tmp_path / "answers.sqlite") as store:
            budget = Budget(store, cap)
            assert budget.reserve(f"k{cap}", 0.4) is room
            if room:
                budget.settle(f"k{cap}", 0.4)


def test_what_a_job_held_that_ended_meanwhile_is_waited_for_no_longer(tmp_path):
    path = tmp_path / "answers.sqlite"
    with open_store(path) as store:
        budget = Budget(store, 1.0)
        with open_store(path) as other:
            assert Budget(other, 1.0).reserve("k", 0.9)
            assert not budget.reserve("mine", 0.2)
            assert budget.reserved_usd == 0.9
        # As after a kill: its reservation stays, its mark is gone.
        assert not budget.reserve("mine", 0.2)
        assert (budget.reserved_usd, budget.presumed_usd) == (0, 0.9)


def test_a_job_gives_back_only_what_it_reserved_itself(tmp_path):
    path = tmp_path / "answers.sqlite"
    with open_store(path) as store:
        budget = Budget(store, 1.0)
        with open_store(path) as other:
            assert Budget(other, 1.0).reserve("k", 0.9)
        budget.release("k")  # leased by this job now, but the dead one's call may be billed
        assert not budget.reserve("k", 0.2)
        assert budget.presumed_usd == 0.9


RACER = """
    import sys
    from interpflow.llm.bought.budget import Budget
    from interpflow.llm.bought.store import open_store

    path, job = sys.argv[1:]
    with open_store(path) as store:
        budget = Budget(store, 1.0)
        for n in range(30):
            key = f"{job}/{n}"
            if budget.reserve(key, 0.01):
                if n % 3 == 0:
                    budget.release(key)
                    if not budget.reserve(key, 0.01):
                        continue
                budget.settle(key, 0.01)
                print(key)
"""


def test_eight_jobs_at_once_never_pass_the_cap(tmp_path):
    path = tmp_path / "new" / "answers.sqlite"  # all of them make it at the same time
    jobs = [run(RACER, path, job) for job in range(N_JOBS)]
    highest = 0.0
    while any(job.poll() is None for job in jobs):
        if path.exists():
            with open_store(path) as store:
                budget = Budget(store, 1.0)
                with store.together():
                    highest = max(highest, budget.spent_usd + budget.reserved_usd)
        time.sleep(0.02)
    bought = [job.communicate()[0].split() for job in jobs]
    assert all(job.returncode == 0 for job in jobs)
    # 8 x 30 calls of 0.01 under a cap of 1: exactly 100 go through.
    assert sum(map(len, bought)) == 100
    assert highest <= 1.0
    with open_store(path) as store:
        budget = Budget(store, 1.0)
        assert (budget.spent_usd, budget.reserved_usd) == (1.0, 0.0)


BUYER = """
    import os, sys
    from interpflow.llm.answers import RawResponse, Usage
    from interpflow.llm.bought.budget import Budget
    from interpflow.llm.requests import Request
    from interpflow.llm.bought.store import open_store

    with open_store(sys.argv[1]) as store:
        budget = Budget(store, 1000.0)
        for n in range(int(sys.argv[2]), 1_000_000):
            request = Request("anthropic", "m", "messages", "https://h", "v", (), b'{"n":%d}' % n)
            assert store.claim([request.key], "a")
            assert budget.reserve(request.key, 0.01)
            os.write(1, b"sent %d\\n" % n)  # whole, or not at all
            store.keep(request, RawResponse(b'{"answer":%d}' % n))
            os.write(1, b"kept %d\\n" % n)  # whole, or not at all
            store.settle(request.key, "ok", Usage(1), 0.004, "p", "", "m", 1, "")
            os.write(1, b"settled %d\\n" % n)  # whole, or not at all
"""


def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path):
    rng = random.Random(4)
    path = tmp_path / "answers.sqlite"
    said: dict[str, set[int]] = {"sent": set(), "kept": set(), "settled": set()}
    start = 0
    for _ in range(N_KILLS):
        job = run(BUYER, path, start)
        assert job.stdout
        lines = [job.stdout.readline() for _ in range(rng.randint(0, 20))]
        time.sleep(rng.random() * 0.01)
        job.send_signal(signal.SIGKILL)
        lines += job.communicate()[0].splitlines()
        assert all(lines), "the job ended by itself"
        for line in lines:
            what, n = line.split()
            said[what].add(int(n))
        start = max(said["sent"], default=-1) + 1
        _check(path, said)
    assert len(said["settled"]) > N_KILLS


def _check(path, said) -> None:
    with open_store(path) as store:
        budget = Budget(store, 1000.0)
        keys = {n: request_of(n).key for n in range(max(said["sent"], default=-1) + 2)}
        found = store.find(keys.values(), any_outcome=True)
        for n in said["kept"]:
            assert found[keys[n]].raw.body == b'{"answer":%d}' % n
        for n in said["settled"]:
            assert found[keys[n]].outcome == "ok"
        read = [each for each in found.values() if each.outcome]
        # Every reservation of a dead job is accounted for, and none is left to leak.
        assert budget.reserved_usd == 0
        assert budget.in_batches_usd == 0
        assert budget.spent_usd - budget.presumed_usd == pytest.approx(COST * len(read))
        lost = [n for n in said["sent"] if keys[n] not in found]
        unread = [key for key, each in found.items() if not each.outcome]
        least = BOUND * (len(lost) + len(unread))
        assert least - 1e-9 <= budget.presumed_usd <= least + BOUND * (N_KILLS + 1)
        # What the dead job had leased can be bought now, what it had bought cannot.
        assert store.claim([keys[n] for n in lost], "b") == {keys[n] for n in lost}
        assert not store.claim(unread, "b")


def test_an_answer_read_after_a_kill_costs_what_it_cost(tmp_path):
    path = tmp_path / "answers.sqlite"
    dies = """
        import os, signal, sys
        from interpflow.llm.answers import RawResponse
        from interpflow.llm.bought.budget import Budget
        from interpflow.llm.requests import Request
        from interpflow.llm.bought.store import open_store

        with open_store(sys.argv[1]) as store:
            request = Request("anthropic", "m", "messages", "https://h", "v", (), b'{"n":1}')
            Budget(store, 1.0).reserve(request.key, 0.9)
            store.keep(request, RawResponse(b"{}"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(dies, path).wait() == -signal.SIGKILL
    for _ in range(2):
        with open_store(path) as store:
            budget = Budget(store, 1.0)
            assert (budget.spent_usd, budget.reserved_usd) == (0.9, 0)
    with open_store(path) as store:
        budget = Budget(store, 1.0)
        settle(store, 1, 0.2)
        assert (budget.spent_usd, budget.presumed_usd) == (0.2, 0)
    assert not list((tmp_path / "answers.sqlite-jobs").iterdir())
