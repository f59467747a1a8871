"""What the calls of one role are made under, and how one response is entered in the books."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.bought.call_costs import cost_usd
from interpflow.llm.calls.draws import Draw
from interpflow.llm.calls.ledger import Books, Ledger
from interpflow.llm.calls.pacing import Clock
from interpflow.llm.providers import Provider
from interpflow.llm.requests import Request

if TYPE_CHECKING:
    from interpflow.llm.bought.prices import Price

# On a stop, what is in flight is billed: it is given this long to arrive.
GRACE_S = 20.0


def this_owner() -> str:
    """A name of this run for leases, unlike any other's."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Terms:
    """`ledger`: None where nothing is stored. `price`: None where nothing is paid."""

    provider: Provider
    role: RoleModel
    llm: LlmSettings
    ledger: Ledger | None = None
    price: Price | None = None
    clock: Clock = field(default_factory=Clock)
    grace_s: float = GRACE_S
    owner: str = field(default_factory=this_owner)

    def cost(self, request: Request, reading: Reading, raw: RawResponse) -> float:
        """USD of a response, from the tokens it says it used; less if it came by a batch."""
        return cost_usd(
            self.price, self.provider, request, reading,
            longest=self.role.max_tokens, batch=raw.channel != "sync",
        )  # fmt: skip


def settle(books: Books, terms: Terms, draw: Draw, n_tries: int) -> None:
    """Enter what was read from a kept response: its cost too, instead of its reservation."""
    reading = draw.reading
    books.store.settle(
        draw.request.key, outcome=draw.checked.outcome, usage=reading.usage,
        cost_usd=draw.cost_usd, price_id=terms.price.id if terms.price else "",
        request_id=reading.request_id, model=reading.model, attempts=n_tries,
        why=draw.checked.why,
    )  # fmt: skip
