"""The one owner of retries, concurrency and money: buys the answers that the store does not hold.

Each question is looked for in the store, leased, its worst cost reserved; then it is sent, the raw
response kept, read, and its cost settled. Killed at any moment, nothing that arrived is lost, and
the next run asks only for what did not arrive.

An attempt whose answer may have been finished and billed but did not arrive (a connection lost, a
time limit) keeps its whole reservation as spent: the cap holds even then, at the price of counting
too much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from interpflow.llm.calls.buying import Buyer
from interpflow.llm.calls.draws import Question
from interpflow.llm.calls.feeding import Feed, found_in_store
from interpflow.llm.calls.pacing import Pace
from interpflow.llm.calls.progress import Progress
from interpflow.llm.calls.stopping import Halt, Stop, stopped_by_signals
from interpflow.llm.calls.terms import Terms


async def buy(asked: Sequence[Question], terms: Terms, pace: Pace, progress: Progress) -> None:
    """Fill in each question's draws, from the store or bought, or its `failure`.

    Raises UserError where the run had to stop (refused by the service, cost cap, a signal, the
    store); whatever arrived until then is kept.
    """
    stop = Stop()
    with stopped_by_signals(stop):
        left = await found_in_store(asked, terms, progress)
        feed = Feed(left, terms, progress)
        buyer = Buyer(terms, pace, progress, stop)
        n_workers = min(len(left), terms.llm.max_concurrency)
        workers = [asyncio.create_task(_work(feed, buyer, stop)) for _ in range(n_workers)]
        teller = asyncio.create_task(progress.keep_telling())
        try:
            await _finished(workers, buyer, stop, terms)
        finally:
            teller.cancel()
            await feed.close()
            await buyer.close()
    if stop.reason is not None:
        raise stop.reason


async def _work(feed: Feed, buyer: Buyer, stop: Stop) -> None:
    try:
        while (question := await feed.next()) is not None:
            drawn = await buyer.draw(question)
            if drawn and question.answered:
                buyer.progress.answered()
            elif drawn and question.may_ask(buyer.terms.llm.max_attempts):
                feed.again(question)
            else:
                buyer.progress.gave_up()
                await feed.give_up(question)
    except Halt:
        return
    except Exception as error:
        stop.because(error)


async def _finished(
    workers: Sequence[asyncio.Task[None]], buyer: Buyer, stop: Stop, terms: Terms
) -> None:
    """Wait for the workers; on a stop only for those whose call is in flight, and not for long."""
    everybody = asyncio.gather(*workers, return_exceptions=True)
    asked = asyncio.create_task(stop.asked.wait())
    await asyncio.wait({everybody, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not everybody.done():
        for worker in workers:
            if worker not in buyer.busy:
                worker.cancel()
        at_once = asyncio.create_task(stop.at_once.wait())
        with suppress(TimeoutError):
            await asyncio.wait(
                {everybody, at_once}, timeout=terms.grace_s, return_when=asyncio.FIRST_COMPLETED
            )
        at_once.cancel()
        for worker in workers:
            worker.cancel()
    await everybody
