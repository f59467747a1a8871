"""Message Batches of the stub: created whole, ended after a number of polls, rows by the plan."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

_numbers = itertools.count(1)


@dataclass
class Batch:
    id: str
    created_at: float
    lines: list[dict[str, Any]]
    kinds: Counter[str]
    polls_left: int
    polls: int = field(default=0)

    @property
    def ended(self) -> bool:
        return self.polls_left <= 0


class Batches:
    """The batches of one stub, newest last. `after_polls`: retrievals until a batch has ended."""

    def __init__(self, after_polls: int) -> None:
        self.after_polls = after_polls
        self.all: dict[str, Batch] = {}

    def create(
        self, requests: list[dict[str, Any]], row: Callable[[str, dict[str, Any], str], dict]
    ) -> Batch:
        """`row(custom_id, params, batch id)` decides and bills each row; it gives its result."""
        name = f"msgbatch_{next(_numbers):06d}{time.time_ns():x}"
        lines = [
            {"custom_id": one["custom_id"], "result": row(one["custom_id"], one["params"], name)}
            for one in requests
        ]
        kinds = Counter(line["result"]["type"] for line in lines)
        # Results come in no particular order.
        lines = lines[::-1]
        self.all[name] = Batch(name, time.time(), lines, kinds, self.after_polls)
        return self.all[name]

    def poll(self, name: str) -> Batch | None:
        batch = self.all.get(name)
        if batch is not None:
            batch.polls_left -= 1
        return batch

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Newest first, `limit` at a time, those after `after_id`."""
        names = list(self.all)[::-1]
        if (after := query.get("after_id")) in names:
            names = names[names.index(after) + 1 :]
        limit = int(query.get("limit", 20))
        shown = names[:limit]
        return {
            "data": [self.described(self.all[name]) for name in shown],
            "has_more": len(names) > limit,
            "first_id": shown[0] if shown else None,
            "last_id": shown[-1] if shown else None,
        }

    def described(self, batch: Batch) -> dict[str, Any]:
        made = datetime.fromtimestamp(batch.created_at, UTC)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts |= dict(batch.kinds) if batch.ended else {"processing": len(batch.lines)}
        return {
            "id": batch.id, "type": "message_batch",
            "processing_status": "ended" if batch.ended else "in_progress",
            "request_counts": counts, "created_at": made.isoformat(),
            "expires_at": (made + timedelta(days=1)).isoformat(),
            "ended_at": made.isoformat() if batch.ended else None,
            "archived_at": None, "cancel_initiated_at": None,
            "results_url": f"/v1/messages/batches/{batch.id}/results" if batch.ended else None,
        }  # fmt: skip

    @staticmethod
    def results(batch: Batch) -> bytes:
        """JSON Lines with characters as they are, U+2028 among them, as services write them."""
        lines = (json.dumps(line, ensure_ascii=False).encode() for line in batch.lines)
        return b"".join(line + b"\n" for line in lines)
