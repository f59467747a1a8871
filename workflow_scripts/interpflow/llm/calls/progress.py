"""One line now and then on how the calls go, and one at the end. Never a word of what is asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from interpflow.llm.answers import Usage

INTERVAL_S = 5.0
# While nothing comes, lines that say the same are rarer.
QUIET_INTERVAL_S = 30.0
logger = logging.getLogger(__name__)


class Progress:
    """Counts distinct requests, the tokens of what was bought, and money in USD.

    `pace`: the present rate-limit state in words.
    """

    def __init__(
        self,
        purpose: str,
        total: int,
        pace: Callable[[], str],
        *,
        priced: bool,
        cap_usd: float | None,
    ) -> None:
        self.purpose, self.total, self.pace = purpose, total, pace
        self.priced, self.cap_usd = priced, cap_usd
        self.from_store = self.bought = self.failed = self.in_flight = 0
        self.tokens_in = self.tokens_out = 0
        self.cost_usd = 0.0
        self._last = time.monotonic()

    def found(self, n: int = 1) -> None:
        """Answered by the store."""
        self.from_store += n
        self._now_and_then()

    def paid(self, usage: Usage, cost_usd: float) -> None:
        """A response was bought, whether or not it answers."""
        self.tokens_in += usage.all_input_tokens
        self.tokens_out += usage.output_tokens
        self.cost_usd += cost_usd

    def answered(self) -> None:
        self.bought += 1
        self._now_and_then()

    def gave_up(self) -> None:
        self.failed += 1
        self._now_and_then()

    def line(self) -> str:
        done = self.from_store + self.bought
        parts = [f"{self.purpose}: {done:,} of {self.total:,} answered"]
        parts.append(f"{self.from_store:,} from the store")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.in_flight:
            parts.append(f"{self.in_flight:,} in flight")
        if self.bought or self.tokens_in:
            parts.append(f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out")
        if self.priced:
            parts.append(self._money())
        return ", ".join(parts)

    def close(self) -> None:
        """The summary line."""
        logger.info("%s", self.line())

    def _money(self) -> str:
        text = f"{self.cost_usd:.4f} USD so far"
        left = self.total - self.from_store - self.bought - self.failed
        if self.bought and left > 0:
            projected = self.cost_usd * (1 + left / self.bought)
            text += f", about {projected:.4f} in all"
        return text if self.cap_usd is None else f"{text} (cap of the store {self.cap_usd:g})"

    async def keep_telling(self) -> None:
        """Lines while everybody waits; until cancelled."""
        while True:
            await asyncio.sleep(QUIET_INTERVAL_S)
            self._now_and_then(QUIET_INTERVAL_S)

    def _now_and_then(self, interval_s: float | None = None) -> None:
        now = time.monotonic()
        if now - self._last >= (INTERVAL_S if interval_s is None else interval_s):
            self._last = now
            logger.info("%s; %s", self.line(), self.pace())
