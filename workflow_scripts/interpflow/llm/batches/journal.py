"""The journal of batches in the store: what was meant to be sent, what was sent, what came of it.

Written ahead: an intent before a batch is created, its id after. So whenever the job is killed, the
next one knows which batches to look for before it sends a request again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interpflow.llm.batches.service import RowKind
from interpflow.llm.bought import leases, reservations
from interpflow.llm.bought.budget import Budget
from interpflow.llm.bought.reservations import BATCH_PREFIX
from interpflow.llm.bought.store import Store
from interpflow.llm.requests import Request

OWNER = "batches"


@dataclass(frozen=True)
class Journaled:
    """A batch that is not collected yet. `service_id` null: it is not known whether it exists."""

    id: int
    n: int
    intended_at: float
    service_id: str | None

    @property
    def holder(self) -> str:
        """Of its reservations, and its own lease: who polls it."""
        return f"{BATCH_PREFIX}{self.id}"


def intend(
    store: Store, budget: Budget, requests: Sequence[Request], bounds_usd: Mapping[str, float]
) -> tuple[Journaled, list[Request]] | None:
    """Journal a batch of as many of the requests, in their order, as the cap allows.

    Durable: the requests, the reservations of their upper bounds, the intent. Null if not even one
    fits.
    """
    now = time.time()
    with store.together() as connection:
        (last,) = connection.execute("SELECT IFNULL(MAX(id), 0) FROM batches").fetchone()
        holder = f"{BATCH_PREFIX}{last + 1}"
        fitting = budget.reserve_many(
            {request.key: bounds_usd[request.key] for request in requests}, holder
        )
        if not fitting:
            return None
        sent = [request for request in requests if request.key in fitting]
        batch = Journaled(last + 1, len(sent), now, None)
        store.add_requests(sent)
        connection.execute(
            "INSERT INTO batches (id, host, provider, n, intended_at, state) "
            "VALUES (?, ?, ?, ?, ?, 'intended')",
            (batch.id, sent[0].host, sent[0].provider, batch.n, now),
        )
        connection.executemany(
            "INSERT INTO batch_entries (batch, key) VALUES (?, ?)",
            [(batch.id, request.key) for request in sent],
        )
        leases.claim(connection, [holder], OWNER, store.living)
    return batch, sent


def created(store: Store, batch: Journaled, service_id: str) -> Journaled:
    """The batch exists under that id."""
    with store.together() as connection:
        connection.execute(
            "UPDATE batches SET state = 'created', service_id = ? WHERE id = ?",
            (service_id, batch.id),
        )
    return Journaled(batch.id, batch.n, batch.intended_at, service_id)


def adopt(store: Store, host: str, provider: str) -> list[Journaled]:
    """The open batches at a host that this job polls from now on: all that no living job does."""
    with store.together() as connection:
        rows = connection.execute(
            "SELECT id, n, intended_at, service_id FROM batches "
            "WHERE state IN ('intended', 'created') AND host = ? AND provider = ? ORDER BY id",
            (host, provider),
        ).fetchall()
        found = [Journaled(*row) for row in rows]
        mine = leases.claim(connection, [each.holder for each in found], OWNER, store.living)
    return [each for each in found if each.holder in mine]


def known_ids(store: Store) -> set[str]:
    """Ids of all batches whose id the journal knows."""
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT service_id FROM batches WHERE service_id IS NOT NULL"
        ).fetchall()
    return {service_id for (service_id,) in rows}


def keys_of(store: Store, batch: Journaled) -> set[str]:
    with store.reading() as connection:
        rows = connection.execute("SELECT key FROM batch_entries WHERE batch = ?", (batch.id,))
        return {key for (key,) in rows}


def mark(store: Store, batch: Journaled, kinds: Mapping[str, RowKind]) -> None:
    """What became of entries. Those that were not billed give their reservations back."""
    with store.together() as connection:
        connection.executemany(
            "UPDATE batch_entries SET kind = ? WHERE batch = ? AND key = ?",
            [(kind, batch.id, key) for key, kind in kinds.items()],
        )
        for key, kind in kinds.items():
            if kind != "succeeded":
                reservations.drop(connection, key)


def collected(store: Store, batch: Journaled) -> Counter[str]:
    """Close a batch; how many entries became what, together its whole number.

    An entry that the results did not mention is "missing": it may have been billed.
    """
    with store.together() as connection:
        rows = connection.execute(
            "SELECT key FROM batch_entries WHERE batch = ? AND kind IS NULL", (batch.id,)
        ).fetchall()
        for (key,) in rows:
            reservations.presume_spent(connection, key)
        connection.execute(
            "UPDATE batch_entries SET kind = 'missing' WHERE batch = ? AND kind IS NULL",
            (batch.id,),
        )
        _close(store, batch, "collected")
        counts = connection.execute(
            "SELECT kind, COUNT(*) FROM batch_entries WHERE batch = ? GROUP BY kind", (batch.id,)
        ).fetchall()
    return Counter(dict(counts))


def void(store: Store, batch: Journaled, why: str) -> None:
    """The batch was never created: its entries are free to be sent, its money too."""
    with store.together() as connection:
        for key in keys_of(store, batch):
            reservations.drop(connection, key)
        _close(store, batch, "void", why)


def _close(store: Store, batch: Journaled, state: str, why: str = "") -> None:
    with store.together() as connection:
        connection.execute(
            "UPDATE batches SET state = ?, why = ? WHERE id = ?", (state, why, batch.id)
        )
        leases.release(connection, [batch.holder], store.living)
