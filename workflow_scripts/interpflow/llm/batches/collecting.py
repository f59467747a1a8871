"""The results of an ended batch, streamed into the store."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import cast

from interpflow.llm.answers import RawResponse
from interpflow.llm.batches import journal
from interpflow.llm.batches.journal import Journaled
from interpflow.llm.batches.service import BatchProvider, BatchService, RowKind
from interpflow.llm.bought.call_costs import cost_usd
from interpflow.llm.bought.prices import Price
from interpflow.llm.bought.store import Store
from interpflow.llm.calls.progress import Progress
from interpflow.llm.failures import ServiceFailure, kind_of_status

Row = tuple[str, RowKind, RawResponse | None]
ROWS_TOGETHER = 200
GONE = (404, 410)


@dataclass
class Collected:
    """`counts` by what entries became sum to the batch's number of entries. `rejected`: why, by
    key, for requests that can never succeed. `fatal`: nothing will, for the account's reasons."""

    counts: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, str] = field(default_factory=dict)
    fatal: ServiceFailure | None = None


async def collect(
    batch: Journaled,
    provider: BatchProvider,
    store: Store,
    price: Price | None,
    progress: Progress,
    asked: Collection[str],
) -> Collected:
    """Keep every response, read and settle it, and close the batch in the journal.

    May be broken off anywhere and begun anew. `asked`: keys whose answers progress counts.
    Raises ServiceFailure.
    """
    got = Collected()
    keys = journal.keys_of(store, batch)
    rows: list[Row] = []
    async with _streamed(provider, batch.service_id or "") as results:
        async for row in results:
            if row[0] in keys:
                rows.append(row)
            if len(rows) == ROWS_TOGETHER:
                _enter(batch, rows, provider, store, price, progress, asked, got)
                rows.clear()
    _enter(batch, rows, provider, store, price, progress, asked, got)
    got.counts = journal.collected(store, batch)
    return got


async def holds(provider: BatchService, service_id: str, keys: Collection[str]) -> bool:
    """Whether the ended batch is the one with exactly these keys. Raises ServiceFailure."""
    seen: set[str] = set()
    async with _streamed(provider, service_id) as results:
        async for key, _, _ in results:
            if key not in keys:
                return False
            seen.add(key)
    return len(seen) == len(keys)


def _streamed(provider: BatchService, service_id: str) -> aclosing[AsyncGenerator[Row, None]]:
    """The results, whose connection is given back also when not all of them are read."""
    return aclosing(cast("AsyncGenerator[Row, None]", provider.batch_results(service_id)))


def _enter(
    batch: Journaled,
    rows: Sequence[Row],
    provider: BatchProvider,
    store: Store,
    price: Price | None,
    progress: Progress,
    asked: Collection[str],
    got: Collected,
) -> None:
    answered = {key: raw for key, kind, raw in rows if kind == "succeeded" and raw is not None}
    # Counted already if an earlier attempt broke off after them.
    new = (answered.keys() & set(asked)) - store.bought(answered)
    now = time.time()
    # In one transaction, as the service keeps its results: what is undone is fetched again.
    with store.together():
        for key, raw in answered.items():
            request = store.request(key)
            store.keep(request, replace(raw, sent_at=batch.intended_at, received_at=now))
            reading = provider.read(raw)
            cost = cost_usd(price, provider, request, reading, longest=0, batch=True)
            store.settle(
                key, reading.outcome, reading.usage, cost, price.id if price else "",
                reading.request_id, reading.model, 1, reading.why,
            )  # fmt: skip
            if key in new:
                progress.paid(reading.usage, cost)
                progress.answered()
        for key, kind, raw in rows:
            if key not in answered:
                failure = _failure(kind, raw)
                store.note_failure(store.request(key), failure, 1)
                if failure.kind == "bad_request":
                    got.rejected[key] = failure.what
                elif failure.kind == "fatal":
                    got.fatal = failure
        journal.mark(store, batch, {key: kind for key, kind, _ in rows})


def _failure(kind: RowKind, raw: RawResponse | None) -> ServiceFailure:
    """Of an entry without an answer, which is not billed."""
    if kind != "errored" or raw is None:
        return ServiceFailure("passing", f"{kind} in a batch")
    return ServiceFailure(
        kind_of_status(raw.status), f"{_error_type(raw.body)} in a batch", status=raw.status
    )


def _error_type(body: bytes) -> str:
    """The service's name of the error; its message may quote the request and is left out."""
    try:
        error = json.loads(body)
        return str(error.get("error", error)["type"])[:60]
    except (ValueError, AttributeError, KeyError, TypeError):
        return "error"
