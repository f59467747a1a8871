"""The ledger: every hypothesis, registration and verdict in one chain that only grows.

Each record holds the SHA-256 of the one before it, so that a record changed or taken out later
breaks the chain, and a verdict stands after the registration that it belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.agent.record.lines import append_line, read_lines
from interpflow.config.identity import canonical_json
from interpflow.errors import UserError

START = "0" * 64
# What may differ when a resumed session appends a record again: the time, and what is cached since.
PASSING = ("t", "budget_cost")
REMEDY = "remove the agent's directory to let it begin anew; runs in the store are kept"


class Ledger:
    """Records in their order, in memory and (with a path) in a file of JSON lines.

    A file that is there is continued: its records must be those that are appended again, as a
    session that is resumed appends them.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._there = read_lines(path) if path else []
        if path:
            verify(self._there, str(path))
        self.records: list[dict[str, Any]] = []

    def append(self, kind: str, content: Mapping[str, Any], at: float) -> dict[str, Any]:
        """The record of a new entry, on the disk when this returns.

        at: seconds since the agent began. Raises UserError where the file already holds another
        record at this place.
        """
        place = len(self.records)
        previous = self.records[-1]["sha256"] if self.records else START
        record = {"n": place, "kind": kind, "t": round(at, 3), **content, "previous": previous}
        if place < len(self._there):
            record = self._kept(record, self._there[place])
        else:
            record["sha256"] = _digest(record)
            if self._path:
                append_line(self._path, record)
        self.records.append(record)
        return record

    def _kept(self, record: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
        """The record in the file, if it says the same: an agent killed after it was written acts
        again a little later."""
        said = canonical_json({k: v for k, v in there.items() if k not in ("sha256", *PASSING)})
        if said != canonical_json({k: v for k, v in record.items() if k not in PASSING}):
            raise UserError(
                f"record {record['n']} of the ledger is not what the agent registers again",
                where=str(self._path),
                remedy=REMEDY,
            )
        return there

    def verify(self) -> None:
        """Raise UserError where the chain is broken, in memory or in the file."""
        verify(self.records, str(self._path or "ledger"))
        if self._path:
            verify(read_lines(self._path), str(self._path))


def verify(records: Sequence[Mapping[str, Any]], where: str = "ledger") -> None:
    """Raise UserError for a record that was changed, taken out or put in, and for a result whose
    registration does not stand before it."""
    previous, registered = START, set()
    for place, record in enumerate(records):
        if (
            record.get("n") != place
            or record.get("previous") != previous
            or record.get("sha256") != _digest(record)
        ):
            raise UserError(
                f"the chain of the ledger breaks at record {place}", where=where, remedy=REMEDY
            )
        if record["kind"] == "registration":
            registered.add(record["id"])
        if record["kind"] == "result" and record["registration"] not in registered:
            raise UserError(
                f"the result of record {place} stands before its registration", where=where
            )
        previous = record["sha256"]


def _digest(record: Mapping[str, Any]) -> str:
    content = canonical_json({k: v for k, v in record.items() if k != "sha256"})
    return hashlib.sha256(content.encode()).hexdigest()
