"""Questions answered by batches: what the store lacks goes into batches until each has its answer.

Looking up, reading and asking anew are those of single calls; the batches themselves, and that none
is paid twice, are in `answering`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from interpflow.llm.batches.answering import Limits, answer_by_batch
from interpflow.llm.batches.service import BatchProvider
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.store import open_store
from interpflow.llm.calls import reasons
from interpflow.llm.calls.draws import Question, look_up
from interpflow.llm.calls.feeding import is_settled
from interpflow.llm.calls.ledger import Books
from interpflow.llm.calls.progress import Progress
from interpflow.llm.calls.stopping import Stop, stopped_by_signals
from interpflow.llm.calls.terms import Terms, settle
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.providers import ChecksModel


async def buy_by_batch(
    asked: Sequence[Question], terms: Terms, progress: Progress, limits: Limits | None = None
) -> None:
    """Fill in each question's draws, or its `failure`.

    Raises UserError where the service refuses, at the cost cap, and on a signal; batches that were
    sent stay in the journal, and the next run collects them.
    """
    stop = Stop()
    with stopped_by_signals(stop), open_store(Path(terms.llm.store)) as store:
        books = Books(store, Budget(store, terms.llm.max_cost_usd))
        buying = asyncio.create_task(_rounds(asked, terms, progress, books, limits))
        asked_to_stop = asyncio.create_task(stop.asked.wait())
        await asyncio.wait({buying, asked_to_stop}, return_when=asyncio.FIRST_COMPLETED)
        asked_to_stop.cancel()
        if not buying.done():
            buying.cancel()
            with suppress(asyncio.CancelledError):
                await buying
        if stop.reason is not None:
            raise stop.reason
        await buying


async def _rounds(
    asked: Sequence[Question], terms: Terms, progress: Progress, books: Books, limits: Limits | None
) -> None:
    _look_up(books, terms, asked)
    left = [question for question in asked if not is_settled(question, terms, progress)]
    if left and isinstance(terms.provider, ChecksModel):
        # A batch is accepted whatever its model is called, and fails as a whole hours later.
        try:
            await terms.provider.check_model()
        except ServiceFailure as failure:
            # A key may be allowed to ask and not to look up models; of other trouble, creating the
            # batch will say what there is to say.
            if failure.kind == "fatal" and failure.status != 403:
                raise reasons.refused(terms.role, failure) from None
    while left:
        failed = await answer_by_batch(
            [question.following() for question in left],
            cast(BatchProvider, terms.provider), books.store, books.budget, terms.price, progress,
            limits,
        )  # fmt: skip
        asked_for = {question.following().key: question for question in left}
        _look_up(books, terms, left)
        for key, why in failed.items():
            asked_for[key].failure = why
        unanswered = [question for question in left if not question.answered]
        # Its responses were counted as answers when they came, before they were checked.
        progress.bought -= sum(not question.failure for question in unanswered)
        left = [q for q in unanswered if not q.failure and q.may_ask(terms.llm.max_attempts)]
        progress.failed += sum(not q.failure for q in unanswered) - len(left)


def _look_up(books: Books, terms: Terms, asked: Sequence[Question]) -> None:
    with books.store.together():
        look_up(
            books.store, asked, terms.provider, terms.cost,
            lambda _, draw: settle(books, terms, draw, n_tries=1),
        )  # fmt: skip
