"""How many calls may be in flight, and when the next may leave: the one owner of both.

Starts small and doubles with each window of answers until the service first says 429; from then on
it grows by one call per window. A 429 shrinks the number of calls to 0.8 of it, once per episode.
Overload and broken connections (5xx, 529, time limits) never shrink it: the service is busy, not
we too fast. The constants are those that inspect_ai and TCP congestion control agree on.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from interpflow.llm.calls.rate_limits import Bucket, Load, limits_in

START = 8
SHRINK = 0.8
COOLDOWN_S = 10.0
LONGEST_BACKOFF_S = 60.0
# Nobody watches a job that sleeps for hours; services have asked for days.
LONGEST_WAIT_S = 600.0


@dataclass(frozen=True)
class Clock:
    """Time in seconds and how to wait; tests pass a faster one."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def backoff_s(tries: int) -> float:
    """Wait before the next try: 1, 2, 4 ... 60 s, each drawn within half of it either way."""
    longest = min(2.0 ** min(tries, 10), LONGEST_BACKOFF_S)
    return min(longest * random.uniform(0.5, 1.5), LONGEST_BACKOFF_S)


class Pace:
    """Admits calls one by one. Not for several threads: it lives in one event loop."""

    def __init__(self, ceiling: int, clock: Clock) -> None:
        self.ceiling, self.clock = ceiling, clock
        self.limit = float(min(START, ceiling))
        self.in_flight = 0
        self.closed_until = 0.0
        self.n_answered = self.n_limited = self.n_shrinks = 0
        self._last_shrink = float("-inf")
        self._buckets: dict[str, Bucket] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def enter(self, load: Load) -> None:
        """Return when a call of this load may be sent; it is then in flight until `leave`."""
        while True:
            wait = self._wait_s(load)
            if wait > 0:
                # Spread a little: all who wait for the same moment would leave in the same one.
                await self.clock.sleep(wait + random.uniform(0, min(1.0, 0.1 * wait)))
            elif self.in_flight < int(self.limit):
                self.in_flight += 1
                for name, bucket in self._buckets.items():
                    bucket.sent += load.of(name)
                return
            else:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    def leave(self) -> None:
        self.in_flight -= 1
        self._wake()

    def answered(self, headers: Mapping[str, str], received_at: float) -> None:
        """An answer came: grow, if the present limit was in use, and learn what is left."""
        now = self.clock.now()
        self.n_answered += 1
        for name, (limit, remaining, reset_s) in limits_in(headers, received_at).items():
            self._buckets[name] = Bucket(limit, remaining, min(reset_s, LONGEST_WAIT_S), now)
        in_use = self.in_flight >= 0.75 * int(self.limit)
        if in_use and now - self._last_shrink >= COOLDOWN_S:
            step = 1.0 if self.n_shrinks == 0 else 1.0 / self.limit
            self.limit = min(self.limit + step, float(self.ceiling))
            self._wake()

    def limited(self, wait_s: float, sent_at: float) -> None:
        """A 429: nobody sends for `wait_s`, and fewer do afterwards.

        `sent_at`: when its call left; those that left before the last shrink belong to the same
        episode and say nothing new.
        """
        now = self.clock.now()
        self.n_limited += 1
        self.closed_until = max(self.closed_until, now + wait_s)
        if sent_at > self._last_shrink and now - self._last_shrink >= COOLDOWN_S:
            self.limit = max(1.0, self.limit * SHRINK)
            self.n_shrinks += 1
            self._last_shrink = now

    def state(self) -> str:
        """For a progress line: how many calls may be in flight, and what is waited for."""
        now = self.clock.now()
        text = f"at most {int(self.limit)} at a time"
        if self.n_limited:
            text += f", {self.n_limited} times told to slow down"
        waits = [self.closed_until - now]
        waits += [
            bucket.reset_at - now for bucket in self._buckets.values() if not bucket.remaining
        ]
        return text + (f", waiting {max(waits):.0f} s" if max(waits) > 0.5 else "")

    def _wait_s(self, load: Load) -> float:
        now = self.clock.now()
        waits = [bucket.wait_s(load.of(name), now) for name, bucket in self._buckets.items()]
        return max([self.closed_until - now, 0.0, *waits])

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
