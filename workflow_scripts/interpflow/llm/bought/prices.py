"""What calls cost: a dated table of prices, and the cost of a response by its four kinds of tokens.

Prices are data (`resources/llm/prices.csv`). A table of one's own (`llm.prices`) is looked up
first: for services the released table does not know, other prices, or 0 for a model one hosts.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from interpflow.errors import UserError
from interpflow.llm.answers import Usage
from interpflow.paths import RESOURCES_DIR

RELEASED_TABLE = RESOURCES_DIR / "llm" / "prices.csv"
REQUIRED_COLUMNS = (
    "model", "input", "cache_write_5m", "cache_write_1h", "cache_read", "output", "batch_factor",
    "valid_from",
)  # fmt: skip
# Makers name snapshots of a model by its date: -20250929, -2026-04-01.
_SNAPSHOT = re.compile(r"-20\d{2}-?\d{2}-?\d{2}$")
_PER_TOKEN = 1e-6


@dataclass(frozen=True)
class Rates:
    """USD per million tokens, for prompts longer than `above_prompt_tokens`."""

    above_prompt_tokens: int
    input: float
    cache_write_5m: float
    cache_write_1h: float
    cache_read: float
    output: float


@dataclass(frozen=True)
class Price:
    """The price of a model at a host. `rates` by rising length of the prompt; the first is at 0."""

    id: str
    rates: tuple[Rates, ...]
    batch_factor: float

    @property
    def free(self) -> bool:
        return self.upper_bound(1, 1) == 0

    def cost(self, usage: Usage, batch: bool = False) -> float:
        """USD. The length of the whole prompt, cached or not, decides the rates of every token."""
        rates = self._rates(usage.all_input_tokens)[-1]
        short_lived = usage.cache_write_tokens - usage.cache_write_1h_tokens
        millions = _PER_TOKEN * (
            usage.input_tokens * rates.input
            + short_lived * rates.cache_write_5m
            + usage.cache_write_1h_tokens * rates.cache_write_1h
            + usage.cache_read_tokens * rates.cache_read
            + usage.output_tokens * rates.output
        )
        return millions * (self.batch_factor if batch else 1)

    def upper_bound(self, input_tokens: int, max_tokens: int, batch: bool = False) -> float:
        """USD, the most that a call can cost: its prompt all at the dearest of the input rates.

        `input_tokens` must be an upper estimate; `max_tokens` is the limit sent with the call.
        """
        dearest = max(
            input_tokens * max(rates.input, rates.cache_write_5m, rates.cache_write_1h)
            + max_tokens * rates.output
            for rates in self._rates(input_tokens)
        )
        return _PER_TOKEN * dearest * (self.batch_factor if batch else 1)

    def _rates(self, prompt_tokens: int) -> list[Rates]:
        longest = max(prompt_tokens, 1)
        return [rates for rates in self.rates if longest > rates.above_prompt_tokens]


@dataclass(frozen=True)
class _Row:
    model: str
    host: str
    valid_from: date
    batch_factor: float
    rates: Rates

    def matches(self, model: str, hosts: set[str]) -> bool:
        names = {model, _SNAPSHOT.sub("", model)}
        return any(fnmatchcase(name, self.model) for name in names) and (
            not self.host or any(fnmatchcase(host, self.host) for host in hosts)
        )

    @property
    def entry(self) -> tuple[int, int, date, str, str]:
        """Rows of one entry differ by length of prompt only; the greatest entry applies."""
        return len(self.model.strip("*")), len(self.host), self.valid_from, self.model, self.host


@dataclass(frozen=True)
class PriceTable:
    """Prices of one's own table, then of the released one."""

    tables: tuple[tuple[_Row, ...], ...]

    @classmethod
    def load(cls, path: Path | str | None = None) -> PriceTable:
        """`path` is one's own table. Raises UserError for a table that cannot be read."""
        paths = ([Path(path)] if path else []) + [RELEASED_TABLE]
        return cls(tuple(tuple(_read(each)) for each in paths))

    def price(self, model: str, host: str, today: date | None = None) -> Price:
        """The price of `model` at the base URL `host`, as valid today.

        Of the entries that match the one with the longest model pattern applies, then the longest
        host pattern, then the latest `valid_from`. Raises UserError for a model without a price.
        """
        today = today or date.today()
        hosts = _spellings(host)
        for table in self.tables:
            fitting = [
                row for row in table if row.valid_from <= today and row.matches(model, hosts)
            ]
            if fitting:
                entry = max(row.entry for row in fitting)
                return _price([row for row in fitting if row.entry == entry])
        raise UserError(
            f"the model {model} at {urlsplit(host).hostname or host} has no price, so nothing is "
            "bought from it",
            where="llm.prices",
            remedy="name a CSV table of your own in llm.prices with a row for the model (columns: "
            f"see {RELEASED_TABLE}; prices of 0 for a model that you host)",
        )


def _price(rows: list[_Row]) -> Price:
    rows = sorted(rows, key=lambda row: row.rates.above_prompt_tokens)
    first = rows[0]
    name = f"{first.model} at {first.host}" if first.host else first.model
    return Price(
        id=f"{name} {first.valid_from}",
        rates=tuple(row.rates for row in rows),
        batch_factor=first.batch_factor,
    )


def _spellings(host: str) -> set[str]:
    """What a host pattern may be written against: the URL, host and port, or the host."""
    parts = urlsplit(host)
    return {host.rstrip("/"), parts.netloc.rpartition("@")[2], parts.hostname or ""}


def _read(path: Path) -> Iterator[_Row]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            "the table of prices cannot be read",
            where=f"llm.prices: {path}",
            remedy="name a CSV file in UTF-8, or null for the released table",
        ) from None
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    reader = csv.DictReader(line for _, line in numbered)
    missing = [name for name in REQUIRED_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"the table of prices lacks the columns {', '.join(missing)}",
            where=f"llm.prices: {path}",
            remedy=f"use the columns of {RELEASED_TABLE}",
        )
    for (n, _), cells in zip(numbered[1:], reader, strict=False):
        yield _row(cells, f"llm.prices: {path}, line {n}")


def _row(cells: dict[str, str | None], where: str) -> _Row:
    def cell(name: str) -> str:
        return (cells.get(name) or "").strip()

    def amount(name: str) -> float:
        try:
            value = float(cell(name))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise _bad(f"{name} is {cell(name)!r}, not a price of 0 or more", where)
        return value

    above = cell("above_prompt_tokens") or "0"
    if not above.isdigit():
        raise _bad(f"above_prompt_tokens is {above!r}, not a number of tokens", where)
    try:
        valid_from = date.fromisoformat(cell("valid_from"))
    except ValueError:
        raise _bad(f"valid_from is {cell('valid_from')!r}, not a date", where) from None
    if not cell("model"):
        raise _bad("the row names no model", where)
    rates = Rates(
        int(above), amount("input"), amount("cache_write_5m"), amount("cache_write_1h"),
        amount("cache_read"), amount("output"),
    )  # fmt: skip
    return _Row(cell("model"), cell("host"), valid_from, amount("batch_factor"), rates)


def _bad(what: str, where: str) -> UserError:
    return UserError(
        f"in the table of prices {what}",
        where=where,
        remedy="USD per million tokens as plain numbers, dates as 2026-11-21",
    )
