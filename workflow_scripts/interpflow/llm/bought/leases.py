"""Leases on keys, so that two jobs that run at once never buy the same request.

All functions run within a transaction of the store.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable

from interpflow.llm.bought.living import Living


def claim(
    connection: sqlite3.Connection, keys: Iterable[str], owner: str, living: Living
) -> set[str]:
    """The keys that are now this owner's to buy.

    Left out are keys that were answered in the meantime, that wait in a batch, or that another
    living job (or another owner in this process) holds. A dead job's leases are taken over.
    """
    wanted = json.dumps(list(keys))
    rows = connection.execute(
        "SELECT wanted.value, process, owner FROM json_each(?) AS wanted "
        "LEFT JOIN leases ON leases.key = wanted.value "
        "WHERE NOT EXISTS (SELECT 1 FROM responses WHERE responses.key = wanted.value) "
        "AND NOT EXISTS (SELECT 1 FROM batch_entries JOIN batches ON batches.id = batch "
        "WHERE batch_entries.key = wanted.value AND state IN ('intended', 'created'))",
        (wanted,),
    ).fetchall()
    holders = {process for _, process, _ in rows if process is not None}
    dead = {process for process in holders if not living.alive(process)}
    mine = {
        key
        for key, process, holder in rows
        if process is None or process in dead or (process == living.me and holder == owner)
    }
    now = time.time()
    connection.executemany(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
        [(key, living.me, owner, now) for key in sorted(mine)],
    )
    return mine


def in_abandoned_batches(
    connection: sqlite3.Connection, keys: Iterable[str], living: Living
) -> bool:
    """Whether any of the keys waits in a batch that no living process polls."""
    rows = connection.execute(
        "SELECT DISTINCT batch, process FROM batch_entries JOIN batches ON batches.id = batch "
        "LEFT JOIN leases ON leases.key = 'batch:' || batch "
        "WHERE state IN ('intended', 'created') "
        "AND batch_entries.key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(keys)),),
    ).fetchall()
    return any(process is None or not living.alive(process) for _, process in rows)


def release(connection: sqlite3.Connection, keys: Iterable[str], living: Living) -> None:
    """Give keys back; those of other jobs are left alone."""
    connection.execute(
        "DELETE FROM leases WHERE process = ? AND key IN (SELECT value FROM json_each(?))",
        (living.me, json.dumps(list(keys))),
    )


def release_all(connection: sqlite3.Connection, living: Living) -> None:
    """Give back what this process holds, and clear away what dead ones held."""
    processes = connection.execute("SELECT DISTINCT process FROM leases").fetchall()
    gone = [p for (p,) in processes if p == living.me or not living.alive(p)]
    connection.executemany("DELETE FROM leases WHERE process = ?", [(p,) for p in gone])
