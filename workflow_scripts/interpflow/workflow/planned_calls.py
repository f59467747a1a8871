"""Calls that are planned of one player for one purpose, with their tokens and price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.answers import Usage
from interpflow.llm.asks import Ask
from interpflow.llm.bought.prices import Price, PriceTable
from interpflow.llm.bought.store_reading import stored_keys
from interpflow.llm.preflight import SERVICES, price_of
from interpflow.llm.providers import open_provider
from interpflow.llm.requests import canonical_body
from interpflow.llm.roles import Player

CHARACTERS_PER_TOKEN = 4.0  # of prompts and JSON, rather more tokens than there will be
# What a service adds to a prompt for structured output.
HIDDEN_TOKENS = 300


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of one player for one purpose. Tokens and USD are upper bounds.

    `is_bound`: the calls are, too, as they depend on the answers before them. `n_stored`: of the
    calls, those whose answers the store holds; null where that cannot be known beforehand.
    """

    role: str
    model: str
    purpose: str
    n_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    is_bound: bool
    n_stored: int | None

    def times(self, n: int, purpose: str) -> PlannedCalls:
        """`n` times as much, for another purpose, as a bound."""
        return replace(
            self, purpose=purpose, n_calls=self.n_calls * n, input_tokens=self.input_tokens * n,
            output_tokens=self.output_tokens * n, cost_usd=self.cost_usd * n, is_bound=True,
            n_stored=None,
        )  # fmt: skip


def planned(config: Config, player: Player, purpose: str, asks: Sequence[Ask]) -> PlannedCalls:
    """The calls for these asks. Raises UserError for a paid model without a price."""
    price = None
    if player.settings.provider in SERVICES:
        price = price_of(player.settings, PriceTable.load(config.llm.prices), player.key)
    usages = [_usage(ask, player) for ask in asks]
    return PlannedCalls(
        role=player.key.removeprefix("llm.roles."),
        model=player.settings.model or player.identity.name,
        purpose=purpose,
        n_calls=len(asks),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cost_usd=_cost(usages, price, player.settings.batch),
        is_bound=False,
        n_stored=_n_stored(config, player, asks),
    )


def _usage(ask: Ask, player: Player) -> Usage:
    if player.settings.provider == "offline":
        return Usage()
    characters = len(ask.system) + sum(len(str(turn.content)) for turn in ask.turns)
    if ask.schema is not None:
        characters += len(canonical_body(ask.schema))
    tokens = round(characters / CHARACTERS_PER_TOKEN) + HIDDEN_TOKENS
    return Usage(input_tokens=tokens, output_tokens=min(ask.max_tokens, player.settings.max_tokens))


def _cost(usages: Sequence[Usage], price: Price | None, batch: bool) -> float:
    return sum(price.cost(usage, batch) for usage in usages) if price else 0.0


def _n_stored(config: Config, player: Player, asks: Sequence[Ask]) -> int | None:
    """Null without a key: requests are made by the provider, which wants one."""
    if player.settings.provider == "offline":
        return 0
    store = Path(config.llm.store)
    if not store.exists():
        return 0
    try:
        provider = open_provider(player.settings, config.models)
    except UserError:
        return None
    return len(stored_keys(store, {provider.request(ask).key for ask in asks}))
