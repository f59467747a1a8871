"""The store of bought answers: one SQLite file that parallel jobs share. What is in it is paid for.

A raw response is durable before anything is read from it; outcome, usage and cost are derived from
it and may be derived anew. Nothing is ever deleted. The choice of one file on a local disk, against
a file per job on a shared one: the cap on money needs one transaction over all jobs, and a network
file system gives none. So such a path is refused, and the rules that call services run on one
machine (the one that Snakemake was started on).
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from interpflow.errors import UserError
from interpflow.llm.answers import FINAL_OUTCOMES, Outcome, RawResponse, Usage
from interpflow.llm.bought import leases, reservations
from interpflow.llm.bought.living import Living
from interpflow.llm.bought.reservations import NANO, nano
from interpflow.llm.bought.store_file import connect, explained, require_room
from interpflow.llm.failures import ServiceFailure
from interpflow.llm.requests import Request

# Bodies shrink to 30 % and a row to one page at any level; higher ones cost time only.
DEFLATE_LEVEL = 1
_USAGE = "input_tokens, cache_write_tokens, cache_read_tokens, output_tokens, cache_write_1h_tokens"


@dataclass(frozen=True)
class Stored:
    """A response of the store. Null what was not derived yet (its job was killed after buying)."""

    key: str
    raw: RawResponse
    outcome: Outcome | None
    usage: Usage | None
    cost_usd: float | None
    model: str | None


@contextmanager
def open_store(path: Path | str) -> Iterator[Store]:
    """The store in the file `path`, made if there is none.

    Raises UserError for a store of another schema version, a file of another kind, a path on a
    network file system, without permission or on a full disk.
    """
    store = Store(Path(path).absolute())
    try:
        yield store
    finally:
        store.close()


class Store:
    """See `open_store`. For use in one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = connect(path)
        self._depth = 0
        try:
            self.living = Living(path)
            self.living.clear()
        except OSError as error:
            self._connection.close()
            raise UserError(
                f"the folder of the store of answers cannot be written: {error.strerror}",
                where=f"llm.store: {path}",
                remedy="name a path in llm.store that you may write to",
            ) from None

    @contextmanager
    def together(self) -> Iterator[sqlite3.Connection]:
        """Everything that is written inside is one transaction: durable at its end, or undone.

        May be nested; the outermost one counts. An exception undoes all.
        """
        if self._depth:
            yield self._connection
            return
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have undone it already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path):
            yield self._connection

    def find(self, keys: Iterable[str], *, any_outcome: bool = False) -> dict[str, Stored]:
        """The stored responses of `keys`, by key.

        Only those whose outcome satisfies a read, unless `any_outcome`: then also those of other
        outcomes and those not yet read (`outcome` null), which were bought nevertheless.
        """
        query = (
            "SELECT key, body, status, headers, sent_at, received_at, channel, outcome, "
            f"cost_nano, model, {_USAGE} FROM responses "
            "WHERE copy = 0 AND key IN (SELECT value FROM json_each(?))"
        )
        with self.reading() as connection:
            rows = connection.execute(query, (json.dumps(list(keys)),)).fetchall()
        found = [_stored(row) for row in rows]
        return {each.key: each for each in found if any_outcome or each.outcome in FINAL_OUTCOMES}

    def bought(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that have a response, of whatever outcome; without reading them."""
        query = "SELECT key FROM responses WHERE key IN (SELECT value FROM json_each(?))"
        with self.reading() as connection:
            return {key for (key,) in connection.execute(query, (json.dumps(list(keys)),))}

    def keep(self, request: Request, raw: RawResponse) -> bool:
        """Store what came. False if the key had another response before, which remains its first.

        The same bytes stored again are ignored.
        """
        with self.together() as connection:
            self._add_request(connection, request)
            former = connection.execute(
                "SELECT body FROM responses WHERE key = ? ORDER BY copy", (request.key,)
            ).fetchall()
            if any(zlib.decompress(body) == raw.body for (body,) in former):
                return True
            connection.execute(
                "INSERT INTO responses (key, copy, body, status, headers, sent_at, received_at, "
                "channel) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    request.key, len(former), zlib.compress(raw.body, DEFLATE_LEVEL), raw.status,
                    json.dumps(dict(raw.headers)), raw.sent_at, raw.received_at, raw.channel,
                ),
            )  # fmt: skip
        return not former

    def settle(
        self,
        key: str,
        outcome: Outcome,
        usage: Usage,
        cost_usd: float,
        price_id: str,
        request_id: str,
        model: str,
        attempts: int,
        why: str,
    ) -> None:
        """What was read from a kept response; books its cost, ends its reservation and its lease.

        May be repeated with other values. Raises KeyError if the key has no response.
        """
        with self.together() as connection:
            changed = connection.execute(
                "UPDATE responses SET outcome = ?, input_tokens = ?, cache_write_tokens = ?, "
                "cache_read_tokens = ?, output_tokens = ?, cache_write_1h_tokens = ?, "
                "price_id = ?, request_id = ?, model = ?, attempts = ?, why = ? "
                "WHERE key = ? AND copy = 0",
                (
                    outcome, usage.input_tokens, usage.cache_write_tokens, usage.cache_read_tokens,
                    usage.output_tokens, usage.cache_write_1h_tokens, price_id, request_id, model,
                    attempts, why, key,
                ),
            ).rowcount  # fmt: skip
            if not changed:
                raise KeyError(key)
            reservations.book(connection, key, nano(cost_usd))
            leases.release(connection, [key], self.living)

    def note_failure(self, request: Request, failure: ServiceFailure, attempt: int) -> None:
        """Record an attempt that brought no answer. It satisfies no read."""
        with self.together() as connection:
            connection.execute(
                "INSERT INTO failures VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    request.key, time.time(), attempt, failure.kind, failure.what, failure.status,
                    failure.maybe_billed, failure.request_id,
                ),
            )  # fmt: skip

    def claim(self, keys: Iterable[str], owner: str, *, beside_batches: bool = False) -> set[str]:
        """The keys that are now this owner's to buy; the others are being bought elsewhere.

        Never a key that has a response, of whatever outcome: look for it again. Leases of dead
        processes are taken over. Raises UserError for keys that wait in a batch that nobody is
        collecting (unless `beside_batches`: they are left out then), and if the disk is too full
        to keep an answer.
        """
        self.require_room()
        keys = list(keys)
        with self.together() as connection:
            if not beside_batches and leases.in_abandoned_batches(connection, keys, self.living):
                raise UserError(
                    "requests of this role wait in a batch that an earlier run sent",
                    where="llm.roles: batch",
                    remedy="set batch: true for the role and run again: its answers are collected "
                    "and are not bought a second time",
                )
            return leases.claim(connection, keys, owner, self.living)

    def release(self, keys: Iterable[str]) -> None:
        """Give leases back without an answer."""
        with self.together() as connection:
            leases.release(connection, keys, self.living)

    def require_room(self) -> None:
        """Raise UserError if the disk is too full to keep an answer: then none may be bought."""
        require_room(self.path)

    def add_requests(self, requests: Iterable[Request]) -> None:
        """Keep requests before there is an answer, so that any later run can keep theirs."""
        with self.together() as connection:
            for request in requests:
                self._add_request(connection, request)

    def request(self, key: str) -> Request:
        """Raises KeyError if the store does not know the request."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT provider, model, endpoint, host, api_version, betas, body, sample, "
                "ask_again FROM requests WHERE key = ?",
                (key,),
            ).fetchone()
        if row is None:
            raise KeyError(key)
        provider, model, endpoint, host, api_version, betas, body, sample, ask_again = row
        return Request(
            provider, model, endpoint, host, api_version, tuple(json.loads(betas)),
            zlib.decompress(body), sample, ask_again,
        )  # fmt: skip

    def close(self) -> None:
        """Leases of this process are given back."""
        try:
            with self.together() as connection:
                leases.release_all(connection, self.living)
        except (UserError, sqlite3.Error):
            pass  # the lock of a closed store is free, and that is what counts
        self._connection.close()
        self.living.close()

    def _add_request(self, connection: sqlite3.Connection, request: Request) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.key, request.provider, request.model, request.endpoint, request.host,
                request.api_version, json.dumps(request.betas), request.sample, request.ask_again,
                zlib.compress(request.body, DEFLATE_LEVEL),
            ),
        )  # fmt: skip


def _stored(row: tuple) -> Stored:
    key, body, status, headers, sent_at, received_at, channel, outcome, cost, model, *usage = row
    kept: Mapping[str, str] = json.loads(headers)
    raw = RawResponse(zlib.decompress(body), status, kept, sent_at, received_at, channel)
    read = outcome is not None
    return Stored(
        key=key,
        raw=raw,
        outcome=outcome,
        usage=Usage(*usage) if read else None,
        cost_usd=None if cost is None else cost / NANO,
        model=model,
    )
