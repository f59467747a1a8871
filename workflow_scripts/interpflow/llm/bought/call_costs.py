"""What a call can take and cost at most, and what its response did cost. Money in USD."""

from __future__ import annotations

from interpflow.llm.answers import Reading, Usage
from interpflow.llm.bought.prices import Price
from interpflow.llm.calls.rate_limits import Load
from interpflow.llm.providers import Provider
from interpflow.llm.requests import Request


def load_of(provider: Provider, request: Request, longest: int) -> Load:
    """The most that a call can take. longest: tokens of an answer where the body sets no limit."""
    body = request.content
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body]
    return Load(provider.estimated_input_tokens(request), int(max(limits, default=longest)))


def most_usd(price: Price | None, load: Load, *, batch: bool = False) -> float:
    """The most that a call of this load can cost; 0 where nothing is paid."""
    return price.upper_bound(load.input_tokens, load.max_tokens, batch) if price else 0.0


def cost_usd(
    price: Price | None,
    provider: Provider,
    request: Request,
    reading: Reading,
    *,
    longest: int,
    batch: bool,
) -> float:
    """What a response cost, by the tokens that it says it used.

    One that does not say (a body that arrived damaged, a server that reports no usage) counts as
    the most that it can have cost: it was billed all the same.
    """
    if price is None:
        return 0.0
    if reading.usage == Usage():
        return most_usd(price, load_of(provider, request, longest), batch=batch)
    return price.cost(reading.usage, batch=batch)
