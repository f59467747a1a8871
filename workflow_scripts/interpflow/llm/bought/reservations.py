"""The money in the store: spent, presumed spent, reserved. All sums are whole nano-dollars.

All functions run within a transaction of the store, so the sums always agree with the rows.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

NANO = 1_000_000_000
BATCH_PREFIX = "batch:"
# In place of the process: counted as presumed spent until the cost of the kept answer is booked.
UNREAD = "unread"


@dataclass(frozen=True)
class Money:
    """Nano-dollars. `presumed`: of attempts that may have been billed but brought no answer."""

    spent: int
    presumed: int
    reserved: int

    @property
    def committed(self) -> int:
        return self.spent + self.presumed + self.reserved


def nano(usd: float) -> int:
    """USD in nano-dollars, rounded up but for the error of the floating-point product."""
    if not (math.isfinite(usd) and usd >= 0):
        raise ValueError(f"{usd} is not an amount of money")
    return math.ceil(round(usd * NANO, 3))


def money(connection: sqlite3.Connection) -> Money:
    return Money(*connection.execute("SELECT spent, presumed, reserved FROM money").fetchone())


def reserve(connection: sqlite3.Connection, key: str, amount: int, cap: int, process: str) -> bool:
    """Set `amount` aside for the next attempt at `key` if the cap allows it.

    A reservation that the key still has is of an attempt that may have been billed: it is then
    presumed spent.
    """
    if money(connection).committed + amount > cap:
        return False
    presume_spent(connection, key)
    connection.execute("INSERT INTO reservations VALUES (?, ?, ?)", (key, amount, process))
    connection.execute("UPDATE money SET reserved = reserved + ?", (amount,))
    return True


def reserve_many(
    connection: sqlite3.Connection, amounts: Mapping[str, int], cap: int, holder: str
) -> set[str]:
    """`reserve` for each key in order until the cap is met; the keys that got one."""
    room = cap - money(connection).committed
    fitting: dict[str, int] = {}
    for key, amount in amounts.items():
        if amount > room:
            break
        room -= amount
        fitting[key] = amount
    held = connection.execute(
        "SELECT key FROM reservations WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(fitting)),),
    ).fetchall()
    for (key,) in held:
        presume_spent(connection, key)
    connection.executemany(
        "INSERT INTO reservations VALUES (?, ?, ?)",
        [(key, amount, holder) for key, amount in fitting.items()],
    )
    connection.execute("UPDATE money SET reserved = reserved + ?", (sum(fitting.values()),))
    return set(fitting)


def holder(connection: sqlite3.Connection, key: str) -> str | None:
    """Which process (or batch) holds the key's reservation; null if there is none."""
    row = connection.execute("SELECT process FROM reservations WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def drop(connection: sqlite3.Connection, key: str) -> int:
    """End the key's reservation; its amount, 0 if there is none."""
    row = connection.execute(
        "DELETE FROM reservations WHERE key = ? RETURNING nano, process", (key,)
    ).fetchone()
    if row is None:
        return 0
    amount, process = row
    column = "presumed" if process == UNREAD else "reserved"
    connection.execute(f"UPDATE money SET {column} = {column} - ?", (amount,))
    return amount


def presume_spent(connection: sqlite3.Connection, key: str) -> None:
    amount = drop(connection, key)
    connection.execute("UPDATE money SET presumed = presumed + ?", (amount,))


def book(connection: sqlite3.Connection, key: str, amount: int) -> None:
    """What the key's stored response cost; booked anew (another price), the former is undone."""
    (former,) = connection.execute(
        "SELECT IFNULL(cost_nano, 0) FROM responses WHERE key = ? AND copy = 0", (key,)
    ).fetchone()
    connection.execute(
        "UPDATE responses SET cost_nano = ? WHERE key = ? AND copy = 0", (amount, key)
    )
    connection.execute("UPDATE money SET spent = spent + ?", (amount - former,))
    drop(connection, key)


def settle(connection: sqlite3.Connection, key: str, amount: int) -> None:
    """End the key's reservation and book what was paid, unless its response is booked already."""
    row = connection.execute(
        "SELECT cost_nano FROM responses WHERE key = ? AND copy = 0", (key,)
    ).fetchone()
    if row is None:
        drop(connection, key)
        connection.execute("UPDATE money SET spent = spent + ?", (amount,))
    elif row[0] is None:
        book(connection, key, amount)
    else:
        drop(connection, key)


def in_flight(connection: sqlite3.Connection) -> int:
    """What single calls hold: all that is reserved but for batches."""
    (amount,) = connection.execute(
        "SELECT IFNULL(SUM(nano), 0) FROM reservations "
        "WHERE (process < ? OR process >= ?) AND process != ?",
        (BATCH_PREFIX, BATCH_PREFIX[:-1] + ";", UNREAD),
    ).fetchone()
    return amount


def recover(connection: sqlite3.Connection, alive: Callable[[str], bool]) -> None:
    """Presume spent what dead processes had reserved.

    That of answered keys only until their cost is booked. Batches go on without any process.
    """
    processes = connection.execute("SELECT DISTINCT process FROM reservations").fetchall()
    for (process,) in processes:
        if process.startswith(BATCH_PREFIX) or process == UNREAD or alive(process):
            continue
        rows = connection.execute(
            "SELECT key, EXISTS (SELECT 1 FROM responses WHERE responses.key = reservations.key) "
            "FROM reservations WHERE process = ?",
            (process,),
        ).fetchall()
        for key, answered in rows:
            amount = drop(connection, key)
            connection.execute("UPDATE money SET presumed = presumed + ?", (amount,))
            if answered:
                connection.execute(
                    "INSERT INTO reservations VALUES (?, ?, ?)", (key, amount, UNREAD)
                )
