"""Opening the store's file, and what its failures mean to the person at the keyboard."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interpflow.errors import UserError
from interpflow.llm.bought.local_disk import require_local
from interpflow.llm.bought.store_schema import APPLICATION_ID, SCHEMA_VERSION, TABLES

# A transaction of another job takes milliseconds; a disk that stalls may take many seconds.
BUSY_TIMEOUT_S = 120.0
# Answers in flight are billed: none is bought that there might be no room to keep.
MIN_FREE_BYTES = 32 << 20

# The first with JSON functions in every build.
OLDEST_SQLITE = (3, 38, 0)

# Low bytes of SQLite's result codes: https://www.sqlite.org/rescode.html
_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = (
    3, 5, 6, 8, 10, 11, 13, 14, 26,
)  # fmt: skip


def connect(path: Path) -> sqlite3.Connection:
    """The connection to the store at `path`, whose tables are made if the file is new.

    Write-ahead log, synchronous FULL. NORMAL would lose the last transactions at a loss of power
    (never at a kill), and each of them is a paid answer. What FULL costs, a wait for the disk per
    transaction, is shared by all that is written in one (`Store.together`): with 64 purchases in
    each, 0.5 ms per purchase (tests/benchmarks/services_store.py).
    Raises UserError: another schema version, another program's file, a network file system, no
    permission, no room.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise UserError(
            f"this Python has SQLite {sqlite3.sqlite_version}; the store of answers needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))}",
            where="python",
            remedy="use a Python that comes with its own SQLite (uv, conda, python.org)",
        )
    require_local(path)
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error.strerror or "cannot be made") from None
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def require_room(path: Path) -> None:
    """Raise UserError where the disk has no room left for answers that would be paid for."""
    if shutil.disk_usage(path.parent).free < MIN_FREE_BYTES:
        raise _full(path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of the database as one message each."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == _FULL:
            raise _full(path) from None
        if code == _IOERR:  # a limit on the size of files also ends here
            raise _full(path, ", a limit is reached or the disk fails") from None
        if code in (_BUSY, _LOCKED):
            raise UserError(
                f"another program has held the store of answers for {BUSY_TIMEOUT_S:.0f} s",
                where=f"llm.store: {path}",
                remedy="close what has the file open (a database browser, a stuck job) and run "
                "again; what is in the store stays, and what arrived meanwhile counts as spent",
            ) from None
        if code == _NOTADB:
            raise _not_ours(path) from None
        if code == _CORRUPT:
            raise UserError(
                "the store of answers is damaged",
                where=f"llm.store: {path}",
                remedy="save a copy, then recover what it holds with `sqlite3 FILE .recover`, or "
                "name another file in llm.store",
            ) from None
        if code in (_PERM, _READONLY, _CANTOPEN):
            raise _unusable(path, "cannot be opened for writing") from None
        raise


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # In one transaction: another job may be making the tables at this moment.
    connection.execute("BEGIN")
    mine, version = _marks(connection)
    foreign = not mine and connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    connection.execute("COMMIT")
    if foreign:
        raise _not_ours(path)
    if mine and version != SCHEMA_VERSION:
        raise UserError(
            f"the store of answers has schema version {version}; this release reads version "
            f"{SCHEMA_VERSION}",
            where=f"llm.store: {path}",
            remedy="name a new file in llm.store, or go on with the release that wrote this one; "
            "the file is left as it is",
        )
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    if not mine:
        _create(connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch a new file to the write-ahead log.

    SQLite does not wait by itself where two connections switch at the same time.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _marks(connection)[0]:  # another job may have been faster
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _marks(connection: sqlite3.Connection) -> tuple[bool, int]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application == APPLICATION_ID, version


def _full(path: Path, or_else: str = "") -> UserError:
    return UserError(
        f"no room is left on the disk of the store of answers{or_else}",
        where=f"llm.store: {path}",
        remedy="make room there and run again; everything bought so far is kept and is not bought "
        "again",
    )


def _not_ours(path: Path) -> UserError:
    return UserError(
        "this file is not a store of answers",
        where=f"llm.store: {path}",
        remedy="name another file in llm.store; this one is left as it is",
    )


def _unusable(path: Path, what: str) -> UserError:
    return UserError(
        f"the store of answers {what}",
        where=f"llm.store: {path}",
        remedy="name a path in llm.store that you may write to",
    )
