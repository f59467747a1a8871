"""A look into the store that changes nothing, for estimates."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interpflow.errors import UserError
from interpflow.llm.answers import FINAL_OUTCOMES
from interpflow.llm.bought.reservations import NANO, money
from interpflow.llm.bought.store_file import explained
from interpflow.llm.bought.store_schema import APPLICATION_ID, SCHEMA_VERSION


@dataclass(frozen=True)
class StoreContents:
    """`n_answers` that satisfy a read; USD `spent`, and `held` by calls that are not settled (under
    way, or perhaps billed without an answer): both count against the cap."""

    n_answers: int = 0
    spent_usd: float = 0.0
    held_usd: float = 0.0


def store_contents(path: Path) -> StoreContents:
    """What the store holds; nothing where there is none. Raises UserError for another file."""
    if not path.exists():
        return StoreContents()
    with explained(path):
        connection = _opened(path)
        try:
            outcomes = json.dumps(sorted(FINAL_OUTCOMES))
            (n,) = connection.execute(
                "SELECT count(*) FROM responses WHERE copy = 0 AND outcome IN "
                "(SELECT value FROM json_each(?))",
                (outcomes,),
            ).fetchone()
            there = money(connection)
        finally:
            connection.close()
    return StoreContents(n, there.spent / NANO, (there.presumed + there.reserved) / NANO)


def stored_keys(path: Path, keys: Iterable[str]) -> set[str]:
    """Those of the keys that need not be bought."""
    if not path.exists():
        return set()
    with explained(path):
        connection = _opened(path)
        try:
            rows = connection.execute(
                "SELECT key FROM responses WHERE copy = 0 AND outcome IN "
                "(SELECT value FROM json_each(?)) AND key IN (SELECT value FROM json_each(?))",
                (json.dumps(sorted(FINAL_OUTCOMES)), json.dumps(list(keys))),
            ).fetchall()
        finally:
            connection.close()
    return {key for (key,) in rows}


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    if application != APPLICATION_ID or version != SCHEMA_VERSION:
        connection.close()
        raise UserError(
            "this file is no store of answers that this release can read",
            where=f"llm.store: {path}",
            remedy="name another file in llm.store; this one is left as it is",
        )
    return connection
