"""One question after another, bought: reserve, send, keep, read, settle, and again where needed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from interpflow.llm.answers import RawResponse
from interpflow.llm.bought.call_costs import load_of, most_usd
from interpflow.llm.calls import reasons
from interpflow.llm.calls.draws import Question, draw_of
from interpflow.llm.calls.ledger import Books
from interpflow.llm.calls.pacing import LONGEST_WAIT_S, Pace, backoff_s
from interpflow.llm.calls.progress import Progress
from interpflow.llm.calls.rate_limits import Load
from interpflow.llm.calls.stopping import Stop
from interpflow.llm.calls.terms import Terms, settle
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.requests import Request

# If the first requests are all refused as malformed, so will be the rest.
MOST_BAD_AT_FIRST = 5
# So many questions given up in a row, with no answer to any other: the service is down.
MOST_SILENT = 20
# To be told to slow down is no fault of the request, but a request too large for the service's
# limits is told so for ever: that many 429s count as one attempt.
LIMITED_PER_ATTEMPT = 10
ROOM_POLL_S = 0.5


class Buyer:
    """Shared by the workers of a run. `busy`: tasks with a call in flight, or with an answer that
    is not yet in the books; a stop waits for them and for no others."""

    def __init__(self, terms: Terms, pace: Pace, progress: Progress, stop: Stop) -> None:
        self.terms, self.pace, self.progress, self.stop = terms, pace, progress, stop
        self.busy: set[asyncio.Task[None]] = set()
        self._reserved: set[str] = set()
        self._room = asyncio.Event()
        self._n_bad = self._n_silent = 0

    async def close(self) -> None:
        """Give back what was reserved and never sent."""
        keys = list(self._reserved)
        if self.terms.ledger is not None and keys:
            await self.terms.ledger.do(lambda books: [books.budget.release(k) for k in keys])
        self._reserved.clear()

    async def draw(self, question: Question) -> bool:
        """Buy the following draw: sent until it arrives; false (with `failure`) if it never does.

        Raises Halt when the run is stopped.
        """
        request = question.following()
        load = load_of(self.terms.provider, request, self.terms.role.max_tokens)
        n_tries = n_slow = 0
        while True:
            self.stop.check()
            n_tries += 1
            failure = await self._attempt(question, request, load, n_tries)
            if failure is None:
                self._n_silent = 0
                return True
            self.stop.check()
            n_slow += failure.kind == "limited"
            n_counted = n_tries - n_slow + n_slow / LIMITED_PER_ATTEMPT
            if failure.kind == "bad_request" or n_counted >= self.terms.llm.max_attempts:
                question.failure = f"{failure.what} (sent {n_tries} times)"
                self._gave_up(failure)
                return False
            if failure.kind != "limited":  # then everybody waits, in Pace.enter
                await self.terms.clock.sleep(_wait_s(failure, n_tries))

    async def _attempt(
        self, question: Question, request: Request, load: Load, n_tries: int
    ) -> ServiceFailure | None:
        """Null when the draw arrived and is in the books."""
        task = asyncio.current_task()
        assert task is not None
        bound = most_usd(self.terms.price, load)
        await self.pace.enter(load)
        try:
            try:
                await self._reserve(request, bound)
                self.stop.check()
                # From here on its reservation is given back only by what comes of the call.
                self._reserved.discard(request.key)
                self.busy.add(task)
                self.progress.in_flight += 1
                got = await self._send(request, bound, n_tries)
            finally:
                if task in self.busy:
                    self.progress.in_flight -= 1
                self.pace.leave()
            if isinstance(got, ServiceFailure):
                await self._note(request, bound, got, n_tries)
                return got
            await self._record(question, request, got, n_tries)
            return None
        finally:
            self.busy.discard(task)

    async def _send(
        self, request: Request, bound: float, n_tries: int
    ) -> RawResponse | ServiceFailure:
        sent_at = self.terms.clock.now()
        try:
            raw = await self.terms.provider.send(request, self.terms.role.timeout_s)
        except ServiceFailure as failure:
            # While this call still holds its place: nobody else is to leave before this is heard.
            self._stop_if_useless(failure)
            if failure.kind == "limited":
                self.pace.limited(_wait_s(failure, n_tries), sent_at)
            return failure
        except BaseException:  # cut off by a stop, or a defect: it may be billed
            await self._spend(request, bound)
            raise
        self.pace.answered(raw.headers, raw.received_at)
        return raw

    async def _record(
        self, question: Question, request: Request, raw: RawResponse, n_tries: int
    ) -> None:
        terms = self.terms
        if terms.ledger is not None:
            await terms.ledger.do(lambda books: books.store.keep(request, raw))
        draw = draw_of(question, request, raw, terms.provider, terms.cost)
        if terms.ledger is not None:
            await terms.ledger.do(lambda books: settle(books, terms, draw, n_tries))
        question.draws.append(draw)
        self._room.set()
        self.progress.paid(draw.reading.usage, draw.cost_usd)

    async def _note(
        self, request: Request, bound: float, failure: ServiceFailure, n_tries: int
    ) -> None:
        ledger = self.terms.ledger
        if ledger is not None:
            await ledger.do(lambda books: books.store.note_failure(request, failure, n_tries))
        if failure.maybe_billed:
            await self._spend(request, bound)
        elif ledger is not None and bound:
            await ledger.do(lambda books: books.budget.release(request.key))
        self._room.set()

    async def _spend(self, request: Request, bound: float) -> None:
        """Count the whole reservation as spent: whether it was cannot be known."""
        if self.terms.ledger is not None and bound:
            await self.terms.ledger.do(lambda books: books.budget.presume_spent(request.key))
            self.progress.cost_usd += bound
        self._room.set()

    async def _reserve(self, request: Request, bound: float) -> None:
        """Back when the cap holds the most that this call can cost."""
        ledger = self.terms.ledger
        if ledger is None or not bound:
            return
        self._reserved.add(request.key)
        while True:
            got, spent, reserved = await ledger.do(lambda books: _reserved(books, request, bound))
            if got:
                return
            self.stop.check()
            if reserved <= 0:
                raise self.stop.because(reasons.cap_reached(self.terms.llm, spent, bound))
            # Reservations are for the worst case: what is in flight will give most of it back.
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), ROOM_POLL_S)

    def _stop_if_useless(self, failure: ServiceFailure) -> None:
        """Ask for the stop where no later call can bring more."""
        role = self.terms.role
        if failure.kind == "fatal":
            self.stop.because(reasons.refused(role, failure))
        elif (failure.retry_after_s or 0) > LONGEST_WAIT_S:
            self.stop.because(reasons.told_to_wait_too_long(role, failure))
        elif failure.status == 404 and not self.pace.n_answered:
            self.stop.because(reasons.no_such_model(role, failure))
        elif failure.kind == "bad_request":
            self._n_bad += 1
            if self.pace.n_answered == 0 and self._n_bad >= MOST_BAD_AT_FIRST:
                self.stop.because(reasons.all_malformed(role, failure, self._n_bad))

    def _gave_up(self, failure: ServiceFailure) -> None:
        """Stop the run where one request after another comes to nothing."""
        self._n_silent += failure.kind != "bad_request"
        if self._n_silent >= MOST_SILENT:
            raise self.stop.because(reasons.silent(self.terms.role, failure, self._n_silent))


def _reserved(books: Books, request: Request, bound: float) -> tuple[bool, float, float]:
    """Whether the call's worst cost is now held; USD spent and held, by any job, at that moment."""
    got = books.budget.reserve(request.key, bound)
    return got, books.budget.spent_usd, books.budget.reserved_usd


def _wait_s(failure: ServiceFailure, n_tries: int) -> float:
    """As long as told, or a drawn wait that doubles; after overload, the longer of the two.

    So too where less than a second is told: some services say 0 for as long as they are busy.
    """
    told, own = failure.retry_after_s, backoff_s(n_tries - 1)
    if told is None:
        return own
    obeyed = failure.kind == "limited" and told >= 1
    return min(told, LONGEST_WAIT_S) if obeyed else max(told, own)
