"""Answers by batches: half the price, within a day, and no request paid twice whatever is killed.

A round: journal an intent, create the batch, journal its id, poll, stream its results into the
store. Entries that expired or failed for the service's reasons go into the next round's batch. A
job that starts takes over the batches that dead jobs left: one with an id is polled; an intent
without one is looked for among the service's batches (by size and time, then by the `custom_id`s,
which are the requests' keys) before its requests may be sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from interpflow.errors import UserError
from interpflow.llm.batches import journal
from interpflow.llm.batches.collecting import GONE, collect, holds
from interpflow.llm.batches.journal import Journaled
from interpflow.llm.batches.service import BatchProvider, BatchSummary
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.call_costs import load_of, most_usd
from interpflow.llm.bought.prices import Price
from interpflow.llm.bought.store import Store
from interpflow.llm.calls.pacing import LONGEST_WAIT_S, backoff_s
from interpflow.llm.calls.progress import Progress
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.requests import Request

T = TypeVar("T")
logger = logging.getLogger(__name__)

POLL_S = 60.0
# https://platform.claude.com/docs/en/build-with-claude/batch-processing
MOST_REQUESTS = 100_000
MOST_BYTES = 256_000_000
# Around each body: {"custom_id": 64 digits, "params": ...} and a comma.
ENVELOPE_BYTES = 128
# A created batch may take that long to be listed; before, an intent is not given up.
LISTED_WITHIN_S = 120.0
# How far apart the clocks of this machine and the service may be.
CLOCK_SKEW_S = 600.0
# Results are kept for 29 days; what the service no longer knows after that is gone.
KEPT_S = 29 * 86_400.0
MOST_FAILED_CALLS = 8
# After these a batch may exist although no id came back.
MAYBE_CREATED = (0, 408, 500, 502, 504)


@dataclass(frozen=True)
class Limits:
    """Of one batch, and of patience. Seconds."""

    requests: int = MOST_REQUESTS
    bytes: int = MOST_BYTES
    poll_s: float = POLL_S
    listed_within_s: float = LISTED_WITHIN_S
    rounds: int = 8


async def answer_by_batch(
    requests: Sequence[Request],
    provider: BatchProvider,
    store: Store,
    budget: Budget,
    price: Price | None,
    progress: Progress,
    limits: Limits | None = None,
) -> dict[str, str]:
    """Buy the responses to `requests` (of one host) by batches; afterwards they are in the store.

    Returns why not, by key, for those that the service rejects or that got no answer in
    `limits.rounds` batches. Batches of earlier jobs at the same host are collected too, whatever
    they hold. Raises UserError where the service refuses, stays silent, or the cap is reached;
    batches that were sent remain in the journal for the next run.
    """
    run = _Run(provider, store, budget, price, progress, limits or Limits())
    run.left = {request.key: request for request in requests}
    if requests:
        telling = asyncio.create_task(progress.keep_telling())
        try:
            await run.all(requests[0].host, requests[0].provider)
        finally:
            telling.cancel()
    return run.failed


@dataclass
class _Run:
    provider: BatchProvider
    store: Store
    budget: Budget
    price: Price | None
    progress: Progress
    limits: Limits
    left: dict[str, Request] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rounds: Counter[str] = field(default_factory=Counter)

    async def all(self, host: str, provider: str) -> None:
        while True:
            for batch in journal.adopt(self.store, host, provider):
                await self._finish(batch)
            self._strike_off()
            if not self.left:
                return
            mine = self.store.claim(self.left, journal.OWNER, beside_batches=True)
            if not mine:  # another job buys them
                await asyncio.sleep(self.limits.poll_s)
                continue
            chunks = list(
                _chunks([self.left[key] for key in self.left if key in mine], self.limits)
            )
            sent = [await self._send(chunk) for chunk in chunks]
            if not any(sent):
                raise self._cap_reached([r for chunk in chunks for r in chunk])

    async def _send(self, requests: list[Request]) -> bool:
        """Create a batch of what the cap allows; false if it allows nothing."""
        bounds = {request.key: self._bound(request) for request in requests}
        intended = journal.intend(self.store, self.budget, requests, bounds)
        if intended is None:
            return False
        batch, sent = intended
        self.rounds.update(request.key for request in sent)
        for n_failed in range(MOST_FAILED_CALLS):
            try:
                service_id = await self.provider.create_batch(sent)
            except ServiceFailure as failure:
                if failure.maybe_billed or failure.status in MAYBE_CREATED:
                    return True  # it is looked for as after a kill
                if failure.kind in ("fatal", "bad_request") or n_failed + 1 == MOST_FAILED_CALLS:
                    journal.void(self.store, batch, failure.what)
                    raise _refused(failure) from None
                await asyncio.sleep(self._wait(failure, n_failed))
            else:
                journal.created(self.store, batch, service_id)
                logger.info("batch %s created with %d requests", service_id, len(sent))
                break
        return True

    async def _finish(self, batch: Journaled) -> None:
        """Wait for the batch's end and collect it, or find that it was never created."""
        if batch.service_id is None:
            found = await self._look_for(batch)
            if found is None:
                journal.void(self.store, batch, "not among the service's batches")
                return
            batch = journal.created(self.store, batch, found)
        if not await self._ended(batch):
            journal.collected(self.store, batch)
            return
        got = await self._patiently(
            lambda: collect(batch, self.provider, self.store, self.price, self.progress, self.left)
        )
        if got is None:  # its results are no longer kept
            journal.collected(self.store, batch)
            return
        logger.info("batch %s collected: %s", batch.service_id, dict(got.counts))
        for key, why in got.rejected.items():
            if self.left.pop(key, None):
                self.failed[key] = why
                self.progress.gave_up()
        if got.fatal:
            raise _refused(got.fatal)

    async def _look_for(self, batch: Journaled) -> str | None:
        """The id of the batch that an intent without one created, if it did."""
        keys = journal.keys_of(self.store, batch)
        ruled_out: set[str] = set()
        # From now, not from the intent: sending a large batch may have taken minutes itself.
        looks_since = time.monotonic()
        while True:
            waited = time.monotonic() - looks_since
            listed = await self._patiently(
                lambda: self.provider.batches_since(batch.intended_at - CLOCK_SKEW_S)
            )
            for each in self._candidates(listed or [], batch, ruled_out):
                state = await self._patiently(lambda each=each: self.provider.batch_state(each.id))
                if state is not None and not state.ended:
                    continue
                if await self._patiently(lambda each=each: holds(self.provider, each.id, keys)):
                    return each.id
                ruled_out.add(each.id)
            # One that still runs shows what it holds only at its end.
            if not self._candidates(listed or [], batch, ruled_out) and (
                waited > self.limits.listed_within_s
            ):
                return None
            await asyncio.sleep(min(self.limits.poll_s, self.limits.listed_within_s))

    def _candidates(
        self, listed: list[BatchSummary], batch: Journaled, ruled_out: set[str]
    ) -> list[BatchSummary]:
        known = journal.known_ids(self.store) | ruled_out
        return [each for each in listed if each.n == batch.n and each.id not in known]

    async def _ended(self, batch: Journaled) -> bool:
        """Back at the batch's end; false if the service forgot it, as it does in time."""
        service_id = batch.service_id or ""
        while True:
            state = await self._patiently(lambda: self.provider.batch_state(service_id))
            if state is None:
                if time.time() - batch.intended_at > KEPT_S:
                    return False
                raise UserError(
                    f"the service knows no batch {service_id}, which an earlier run sent",
                    where="llm.roles: batch",
                    remedy="use the key (account, workspace) that sent it",
                )
            self.progress.in_flight = 0 if state.ended else state.counts.get("processing", batch.n)
            if state.ended:
                return True
            await asyncio.sleep(self.limits.poll_s)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """The result of a call that costs nothing, made again where the service is only busy.

        Null if what it asks for is not there.
        """
        n_failed = 0
        while True:
            try:
                return await call()
            except ServiceFailure as failure:
                if failure.status in GONE:
                    return None
                n_failed += 1
                if failure.kind in ("fatal", "bad_request") or n_failed == MOST_FAILED_CALLS:
                    raise _refused(failure) from None
                await asyncio.sleep(self._wait(failure, n_failed))

    def _wait(self, failure: ServiceFailure, n_failed: int) -> float:
        """As long as told, at most ten minutes; else drawn, no longer than between two polls."""
        own = min(backoff_s(n_failed), self.limits.poll_s)
        return min(max(failure.retry_after_s or 0.0, own), LONGEST_WAIT_S)

    def _strike_off(self) -> None:
        """What is in the store, and what has been in too many batches."""
        for key in self.store.bought(self.left):
            del self.left[key]
        for key in [key for key in self.left if self.rounds[key] >= self.limits.rounds]:
            del self.left[key]
            self.failed[key] = f"no answer in {self.rounds[key]} batches"
            self.progress.gave_up()

    def _bound(self, request: Request) -> float:
        return most_usd(self.price, load_of(self.provider, request, 0), batch=True)

    def _cap_reached(self, requests: list[Request]) -> UserError:
        least = min(self._bound(request) for request in requests)
        return UserError(
            f"{len(requests)} requests are left, the cheapest of which may cost {least:.6g} USD; "
            f"{self.budget.spent_usd:.6g} USD are spent and the cap leaves no room",
            where="llm.max_cost_usd",
            remedy="raise the cap; everything bought is kept, and the same command asks only for "
            "what is missing",
        )


def _chunks(requests: list[Request], limits: Limits) -> Iterator[list[Request]]:
    """Runs of requests that fit into one batch each."""
    chunk: list[Request] = []
    size = 0
    for request in requests:
        n_bytes = len(request.body) + ENVELOPE_BYTES
        if chunk and (len(chunk) == limits.requests or size + n_bytes > limits.bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(request)
        size += n_bytes
    if chunk:
        yield chunk


def _refused(failure: ServiceFailure) -> UserError:
    return UserError(
        f"the service does not take or return batches ({failure.what})",
        where="llm.roles: batch",
        remedy="check the key, the account and the service's state, and run again: what was sent "
        "is in the journal and is collected then",
    )
