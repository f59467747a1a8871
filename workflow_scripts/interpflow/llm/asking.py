"""Questions in, answers out: the one call that studies make of a language-model service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.llm.answers import Answer
from interpflow.llm.asks import Ask
from interpflow.llm.batches.answering import Limits
from interpflow.llm.batches.buying import buy_by_batch
from interpflow.llm.bought.prices import Price, PriceTable
from interpflow.llm.calls import reasons
from interpflow.llm.calls.answer_checks import check_schema
from interpflow.llm.calls.client import buy
from interpflow.llm.calls.draws import Question, answers_of, questions
from interpflow.llm.calls.ledger import Ledger
from interpflow.llm.calls.pacing import Clock, Pace
from interpflow.llm.calls.progress import Progress
from interpflow.llm.calls.terms import GRACE_S, Terms
from interpflow.llm.calls.whole_batches import buy_whole
from interpflow.llm.providers import Provider, SendsMany, open_provider


def answer(
    asks: Sequence[Ask],
    role: RoleModel,
    llm: LlmSettings,
    *,
    purpose: str,
    models: Mapping[str, ModelSettings] | None = None,
) -> list[Answer]:
    """The answers to the asks, in their order: read from the store, and what it lacks bought.

    models: those of the config, of which the provider `local` runs one.
    purpose: what the answers are for, in a few words, for progress lines. An answer's outcome is
    ok, truncated or refusal; invalid or error only within `llm.max_failed_share`.

    Raises UserError for equal ids, a model without a price, a missing or wrong key, the cost cap, a
    service that refuses or stays silent, more failures than allowed. Everything bought is kept, and
    the same call again continues.
    """
    return answer_with(open_provider(role, models), asks, role, llm, purpose=purpose)


def answer_with(
    provider: Provider,
    asks: Sequence[Ask],
    role: RoleModel,
    llm: LlmSettings,
    *,
    purpose: str,
    clock: Clock | None = None,
    grace_s: float = GRACE_S,
    limits: Limits | None = None,
) -> list[Answer]:
    """`answer` with a provider that is open already, which is closed at the end.

    clock: another measure of time for waits. grace_s: how long a stopped run waits for the calls
    that are in flight. limits: of batches, for roles that use them.
    """
    _check(asks)
    asked = questions(asks, provider)
    with ExitStack() as stack:
        terms = Terms(
            provider, role, llm,
            ledger=stack.enter_context(Ledger(Path(llm.store), llm.max_cost_usd))
            if provider.stored and asked and not role.batch else None,
            price=_price(asked, llm) if provider.priced and asked else None,
            clock=clock or Clock(), grace_s=grace_s,
        )  # fmt: skip
        _get(asked, terms, purpose, limits)
    _check_failures(asked, llm, purpose)
    by_id = {each.id: each for question in asked for each in answers_of(question)}
    return [by_id[ask.id] for ask in asks]


def _get(asked: Sequence[Question], terms: Terms, purpose: str, limits: Limits | None) -> None:
    pace = Pace(terms.llm.max_concurrency, terms.clock)
    progress = Progress(
        purpose, len(asked), pace.state, priced=terms.price is not None,
        cap_usd=terms.llm.max_cost_usd,
    )  # fmt: skip
    try:
        if isinstance(terms.provider, SendsMany):
            buy_whole(asked, terms, progress)
        else:
            asyncio.run(_buy_and_close(asked, terms, pace, progress, limits))
    finally:
        progress.close()


async def _buy_and_close(
    asked: Sequence[Question], terms: Terms, pace: Pace, progress: Progress, limits: Limits | None
) -> None:
    # Connections belong to the event loop that opened them: they end with it.
    try:
        if terms.role.batch and asked:
            await buy_by_batch(asked, terms, progress, limits)
        else:
            await buy(asked, terms, pace, progress)
    finally:
        await terms.provider.close()


def _check(asks: Sequence[Ask]) -> None:
    twice = [id for id, n in Counter(ask.id for ask in asks).items() if n > 1]
    if twice:
        raise UserError(
            f"{len(twice)} ids belong to several asks, such as {twice[0]!r}",
            where="Ask.id", remedy="answers are joined by id: give each ask its own",
        )  # fmt: skip
    for ask in asks:
        check_schema(ask)


def _price(asked: Sequence[Question], llm: LlmSettings) -> Price:
    """The price of the one model that is asked. Raises UserError where it has none."""
    request = asked[0].request
    return PriceTable.load(Path(llm.prices) if llm.prices else None).price(
        request.model, request.host
    )


def _check_failures(asked: Sequence[Question], llm: LlmSettings, purpose: str) -> None:
    failed = [question for question in asked if not question.answered]
    n_failed, n = sum(len(q.same) for q in failed), sum(len(q.same) for q in asked)
    if n_failed > llm.max_failed_share * n:
        why = answers_of(failed[0])[0].why
        n_for_good = sum(len(q.same) for q in failed if not q.may_ask(llm.max_attempts))
        raise reasons.too_many_failed(llm, purpose, n_failed, n_for_good, n, why)
