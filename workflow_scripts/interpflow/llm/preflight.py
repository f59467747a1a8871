"""What a run with language models needs, known before it starts: keys, prices, the cap, a disk."""

from __future__ import annotations

from pathlib import Path

from interpflow.config.llm import RoleModel
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.bought.local_disk import require_local
from interpflow.llm.bought.prices import Price, PriceTable
from interpflow.llm.providers import open_provider
from interpflow.llm.providers.anthropic import BASE_URL
from interpflow.llm.roles import used_roles
from interpflow.llm.wire.service_address import checked_base_url

SERVICES = ("anthropic", "openai_compatible")


def check_services(config: Config) -> None:
    """Raise UserError for what would stop every run: a local model that is none, a model without a
    price, a store on a network file system, or one that would be removed with the results."""
    used = [player for role in used_roles(config).values() for player in role]
    table = None
    for player in used:
        if player.settings.provider in SERVICES:
            checked_base_url(base_url(player.settings), f"{player.key}.base_url")
            table = table or _table(config)
            price_of(player.settings, table, player.key)
    if any(player.settings.provider != "offline" for player in used):
        _check_store(Path(config.llm.store))


def check_purchase(config: Config) -> None:
    """Raise UserError for what is missing to buy anything: the key of a used role, or the cap.

    Apart from `check_services`, as an estimate and results that are there need neither.
    """
    used = [player for role in used_roles(config).values() for player in role]
    services = [player for player in used if player.settings.provider in SERVICES]
    for player in services:
        try:
            open_provider(player.settings)
        except UserError as error:
            raise UserError(
                error.what,
                where=f"{player.key}, {error.where.removeprefix('llm.roles, ')}",
                remedy=error.remedy,
            ) from None
    if services and config.llm.max_cost_usd is None:
        table = _table(config)
        paid = [each for each in services if not price_of(each.settings, table, each.key).free]
        if paid:
            raise UserError(
                f"{paid[0].settings.model} costs money and there is no cap",
                where="llm.max_cost_usd",
                remedy="set the most that may be spent, in USD; `snakemake estimate` says what to "
                "expect",
            )


def base_url(settings: RoleModel) -> str:
    """The address of a role's service."""
    return settings.base_url or BASE_URL


def price_of(settings: RoleModel, table: PriceTable, key: str) -> Price:
    """The price of a role's model. Raises UserError, naming the role, where there is none."""
    try:
        return table.price(settings.model or "", base_url(settings))
    except UserError as error:
        raise UserError(
            error.what, where=f"{key}.model and {error.where}", remedy=error.remedy
        ) from None


def _table(config: Config) -> PriceTable:
    return PriceTable.load(config.llm.prices)


def _check_store(store: Path) -> None:
    require_local(store)
    if store.resolve().is_relative_to(Path("results").resolve()):
        raise UserError(
            "the store of bought answers would be lost with the results, which may be deleted",
            where=f"llm.store: {store}",
            remedy="name a path outside results/",
        )
