"""Admission of calls: growth, shrinking, waits, and the limits learnt from headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from interpflow.llm.calls.pacing import Clock, Pace, backoff_s
from interpflow.llm.calls.rate_limits import Bucket, Load, limits_in

ONE = Load(input_tokens=10, max_tokens=100)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


class HandClock:
    """Time that passes only in `sleep`, for all at once."""

    def __init__(self) -> None:
        self.t = 100.0
        self.slept: list[float] = []

    def clock(self) -> Clock:
        return Clock(now=lambda: self.t, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.t += seconds
        await asyncio.sleep(0)


async def fill(pace: Pace) -> int:
    """Enter as often as the limit lets."""
    n = 0
    while pace.in_flight < int(pace.limit):
        await pace.enter(ONE)
        n += 1
    return n


def test_it_doubles_per_window_until_the_first_429_and_then_adds_one() -> None:
    async def work() -> list[int]:
        hand = HandClock()
        pace = Pace(1000, hand.clock())
        limits = []
        for window in range(6):
            if window == 3:
                pace.limited(0.0, sent_at=hand.t)
                hand.t += 11
            for _ in range(await fill(pace)):
                pace.answered({}, 0)
                pace.leave()
                await fill(pace)  # always at the limit, as a full queue is
            limits.append(int(pace.limit))
            while pace.in_flight:
                pace.leave()
        return limits

    assert run(work()) == [16, 32, 64, 52, 53, 54]


def test_it_does_not_grow_while_the_limit_is_not_in_use() -> None:
    async def work() -> float:
        pace = Pace(1000, HandClock().clock())
        for _ in range(200):
            await pace.enter(ONE)
            pace.answered({}, 0)
            pace.leave()
        return pace.limit

    assert run(work()) == 8


def test_one_episode_of_429_shrinks_once() -> None:
    hand = HandClock()
    pace = Pace(100, hand.clock())
    sent = hand.t
    pace.limit = 100.0
    for _ in range(50):
        pace.limited(0.0, sent_at=sent)
    assert pace.limit == 80
    hand.t += 11
    pace.limited(0.0, sent_at=sent)  # sent before the shrink: the same episode
    assert pace.limit == 80
    pace.limited(0.0, sent_at=hand.t)
    assert pace.limit == 64
    assert pace.n_shrinks == 2


def test_it_never_shrinks_below_one() -> None:
    hand = HandClock()
    pace = Pace(3, hand.clock())
    for _ in range(60):
        pace.limited(0.0, sent_at=hand.t)
        hand.t += 11
    assert pace.limit == 1


def test_nobody_enters_while_told_to_wait() -> None:
    async def work() -> float:
        hand = HandClock()
        pace = Pace(10, hand.clock())
        pace.limited(37.0, sent_at=hand.t)
        start = hand.t
        await pace.enter(ONE)
        return hand.t - start

    assert 37 <= run(work()) <= 38


def test_in_flight_never_passes_the_limit_and_nobody_is_forgotten() -> None:
    async def work() -> tuple[int, int]:
        pace = Pace(20, Clock())
        most = done = 0

        async def call(i: int) -> None:
            nonlocal most, done
            await pace.enter(ONE)
            most = max(most, pace.in_flight - int(pace.limit))
            await asyncio.sleep(0.0005 * (i % 4))
            pace.answered({}, 0)
            pace.leave()
            done += 1

        await asyncio.gather(*(call(i) for i in range(500)))
        return most, done

    assert run(work()) == (0, 500)


def test_headers_of_both_services() -> None:
    now = 1_795_000_000.0
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 30))
    anthropic = {
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "1000",
        "anthropic-ratelimit-input-tokens-reset": stamp,
        "anthropic-ratelimit-requests-limit": "50",
        "request-id": "req_1",
    }
    assert limits_in(anthropic, now) == {"input-tokens": (80000, 1000, 30)}
    openai = {
        "X-RateLimit-Limit-Requests": "60", "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "6m0.5s", "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "none", "x-ratelimit-reset-tokens": "17ms",
    }  # fmt: skip
    assert limits_in(openai, now) == {"requests": (60, 59, 360.5)}


@pytest.mark.parametrize("text", ["", "soon", "6x", "-5", "2026-99-01T00:00:00Z", "1m junk"])
def test_an_illegible_reset_is_no_limit(text: str) -> None:
    headers = {f"x-ratelimit-{part}-requests": "1" for part in ("limit", "remaining")}
    found = limits_in(headers | {"x-ratelimit-reset-requests": text}, 0.0)
    assert found in ({}, {"requests": (1, 1, 0)})


def test_a_bucket_refills_and_a_rest_of_zero_is_waited_out() -> None:
    bucket = Bucket(limit=60, remaining=30, reset_s=30, now=0.0)  # one flows back per second
    assert bucket.wait_s(1, 0.0) == 0
    bucket.sent = 30
    assert bucket.wait_s(5, 0.0) == 5
    assert bucket.wait_s(5, 5.0) == 0
    empty = Bucket(limit=60, remaining=0, reset_s=30, now=0.0)
    assert empty.wait_s(1, 10.0) == 20
    assert empty.wait_s(1, 30.0) == 0


def test_a_request_larger_than_the_limit_waits_for_the_reset_only() -> None:
    assert Bucket(limit=100, remaining=99, reset_s=10, now=0.0).wait_s(5000, 0.0) == 10
    assert Bucket(limit=100, remaining=100, reset_s=10, now=0.0).wait_s(5000, 0.0) == 10


def test_a_spent_limit_holds_the_next_call_until_the_reset() -> None:
    async def work() -> float:
        hand = HandClock()
        pace = Pace(10, hand.clock())
        await pace.enter(ONE)
        headers = {
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "12s",
        }
        pace.answered(headers, 0.0)
        pace.leave()
        start = hand.t
        await pace.enter(ONE)
        return hand.t - start

    assert 12 <= run(work()) <= 13.2


def test_waits_double_to_a_minute_and_differ() -> None:
    for tries, mean in enumerate([1, 2, 4, 8, 16, 32]):
        draws = [backoff_s(tries) for _ in range(200)]
        assert mean / 2 <= min(draws)
        assert max(draws) <= min(1.5 * mean, 60)
        assert len(set(draws)) > 100
    assert backoff_s(10_000) <= 60
