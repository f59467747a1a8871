"""Hands out the questions of a run, a few at a time, each to one job only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from interpflow.llm.calls.draws import Draw, Question, look_up
from interpflow.llm.calls.ledger import Books
from interpflow.llm.calls.progress import Progress
from interpflow.llm.calls.terms import Terms, settle

LEASED_TOGETHER = 64
LOOKED_UP_TOGETHER = 500
OTHERS_POLL_S = 0.5


async def found_in_store(
    asked: Sequence[Question], terms: Terms, progress: Progress
) -> list[Question]:
    """Fill in what the store answers; returns the questions that are left.

    Only reads: an answer whose books were left open, of a job killed at that moment or of one that
    is just writing them, is left for the one who gets the lease.
    """
    left: list[Question] = []
    for start in range(0, len(asked), LOOKED_UP_TOGETHER):
        chunk = asked[start : start + LOOKED_UP_TOGETHER]
        opened: set[str] = set()
        if terms.ledger is not None:
            opened = await terms.ledger.do(lambda books, chunk=chunk: _read(books, chunk, terms))
        for question in chunk:
            if question.key not in opened and is_settled(question, terms, progress):
                continue
            left.append(question)
    return left


def _read(books: Books, chunk: Sequence[Question], terms: Terms) -> set[str]:
    """Keys of questions with a draw whose books are open."""
    opened: set[str] = set()
    by_key = {question.key: question for question in chunk}

    def note(question: Question, draw: Draw) -> None:
        opened.add(question.key)

    look_up(books.store, list(by_key.values()), terms.provider, terms.cost, note)
    return opened


def take(books: Books, terms: Terms, asked: Sequence[Question]) -> set[str]:
    """Fill in what the store holds by now and lease the rest; returns the leased keys.

    In one transaction: no other job can answer a question, or take it, between the two. What a
    killed job kept and did not enter in the books is entered.
    """
    look_up(
        books.store, asked, terms.provider, terms.cost,
        lambda _, draw: settle(books, terms, draw, n_tries=1),
    )  # fmt: skip
    wanted = [q.following().key for q in asked if q.may_ask(terms.llm.max_attempts)]
    return set(books.store.claim(wanted, terms.owner)) if wanted else set()


def is_settled(question: Question, terms: Terms, progress: Progress) -> bool:
    """Whether nothing remains to be asked: an answer, or as many failed draws as are allowed."""
    if question.answered:
        progress.found()
    elif question.may_ask(terms.llm.max_attempts):
        return False
    else:
        progress.gave_up()
    return True


class Feed:
    """Leases questions as they are needed, so that parallel jobs share the work between them.

    What another job holds is looked for in the store until it is there, or its lease is free.
    """

    def __init__(self, left: Sequence[Question], terms: Terms, progress: Progress) -> None:
        self.terms, self.progress = terms, progress
        self._pending = deque(left)
        self._ready: deque[Question] = deque()
        self._others: deque[Question] = deque()
        self._held: set[str] = set()
        self._lock = asyncio.Lock()

    async def next(self) -> Question | None:
        """A question whose following draw is this job's to buy; null when there is none left."""
        async with self._lock:
            while not self._ready:
                if self._pending:
                    await self._lease(self._pending, LEASED_TOGETHER)
                elif self._others:
                    await self.terms.clock.sleep(OTHERS_POLL_S)
                    await self._lease(self._others, LOOKED_UP_TOGETHER)
                else:
                    return None
            return self._ready.popleft()

    def again(self, question: Question) -> None:
        """Its last draw was no answer: another one is to be leased."""
        self._pending.append(question)

    async def give_up(self, question: Question) -> None:
        await self._release([question.following().key])

    async def close(self) -> None:
        """Free every lease that is still held."""
        await self._release(list(self._held))

    async def _lease(self, source: deque[Question], most: int) -> None:
        batch = [source.popleft() for _ in range(min(len(source), most))]
        ledger, terms = self.terms.ledger, self.terms
        if ledger is None:
            self._ready.extend(batch)
            return
        mine = await ledger.do(lambda books: self._hold(take(books, terms, batch)))
        for question in batch:
            if is_settled(question, self.terms, self.progress):
                continue
            place = self._ready if question.following().key in mine else self._others
            place.append(question)

    def _hold(self, keys: set[str]) -> set[str]:
        """Noted where it happens, in the ledger's thread: a task that waits may be cut off."""
        self._held |= keys
        return keys

    async def _release(self, keys: list[str]) -> None:
        if self.terms.ledger is not None and keys:
            await self.terms.ledger.do(lambda books: books.store.release(keys))
        self._held.difference_update(keys)
