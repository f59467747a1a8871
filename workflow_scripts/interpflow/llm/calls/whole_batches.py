"""Questions for a model on this machine, which answers many at once and costs nothing.

The same store, leases and checks as for services; nothing waits, so nothing is paced.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from interpflow.llm.answers import RawResponse
from interpflow.llm.calls.draws import Question, draw_of
from interpflow.llm.calls.feeding import OTHERS_POLL_S, is_settled, take
from interpflow.llm.calls.progress import Progress
from interpflow.llm.calls.terms import Terms, settle
from interpflow.llm.providers import SendsMany

# Leased together: enough for the model to sort by length, few enough to share between jobs.
WHOLE = 1024


def buy_whole(asked: Sequence[Question], terms: Terms, progress: Progress) -> None:
    """Fill in each question's draws, from the store or by the model.

    Raises what the provider raises; whatever arrived until then is kept.
    """
    left = deque(asked)
    while left:
        batch = [left.popleft() for _ in range(min(len(left), WHOLE))]
        if terms.ledger is None:
            wanted = batch
        else:
            leased = terms.ledger.now(lambda books, batch=batch: take(books, terms, batch))
            open_ones = [q for q in batch if not is_settled(q, terms, progress)]
            wanted = [q for q in open_ones if q.following().key in leased]
            others = [q for q in open_ones if q.following().key not in leased]
            left.extend(others)
            if others and not wanted:
                time.sleep(OTHERS_POLL_S)
        left.extend(_answered_now(wanted, terms, progress))


def _answered_now(wanted: Sequence[Question], terms: Terms, progress: Progress) -> list[Question]:
    """One more draw of each; returns those that want another."""
    by_key = {question.following().key: question for question in wanted}
    provider = terms.provider
    assert isinstance(provider, SendsMany)
    try:
        for request, raw in provider.send_all([q.following() for q in wanted]):
            _record(by_key[request.key], terms, raw, progress)
    finally:
        if terms.ledger is not None:
            terms.ledger.now(lambda books: books.store.release(list(by_key)))
    return [q for q in wanted if _wants_more(q, terms, progress)]


def _record(question: Question, terms: Terms, raw: RawResponse, progress: Progress) -> None:
    request, ledger = question.following(), terms.ledger
    if ledger is not None:
        ledger.now(lambda books: books.store.keep(request, raw))
    draw = draw_of(question, request, raw, terms.provider, terms.cost)
    if ledger is not None:
        ledger.now(lambda books: settle(books, terms, draw, n_tries=1))
    question.draws.append(draw)
    progress.paid(draw.reading.usage, draw.cost_usd)


def _wants_more(question: Question, terms: Terms, progress: Progress) -> bool:
    if question.answered:
        progress.answered()
    elif question.may_ask(terms.llm.max_attempts):
        return True
    else:
        question.failure = question.failure or "no valid answer"
        progress.gave_up()
    return False
