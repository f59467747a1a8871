"""The hard cap on what a store may cost, shared by all jobs that use it at the same time."""

from __future__ import annotations

import math
from collections.abc import Mapping

from interpflow.llm.bought import reservations
from interpflow.llm.bought.reservations import NANO, Money, nano
from interpflow.llm.bought.store import Store


class Budget:
    """Reserve the most that a call can cost before it is sent; settle what it did cost after.

    spent + presumed + reserved never exceeds `cap_usd`, whichever jobs run at once. The order of a
    call: `reserve`, send, `Store.keep`, `Store.settle` (which books the cost and ends the
    reservation). An attempt without an answer: `release` if it surely was not billed, else
    `presume_spent`. A job that is killed leaves reservations behind; those of keys without an
    answer are presumed spent when the next job opens its budget, as the service may have billed
    them. `cap_usd` null allows only what is free.
    """

    def __init__(self, store: Store, cap_usd: float | None) -> None:
        self._store = store
        self._cap = math.floor(round((cap_usd or 0.0) * NANO, 3))
        with store.together() as connection:
            reservations.recover(connection, store.living.alive)

    def reserve(self, key: str, usd: float) -> bool:
        """Whether the cap has room for an attempt that costs at most `usd`, which is then held.

        If the key holds a reservation still, that one is presumed spent: release it first if its
        attempt was not billed. Raises UserError if the disk is too full to keep an answer.
        """
        self._store.require_room()
        living = self._store.living
        with self._store.together() as connection:
            if reservations.reserve(connection, key, nano(usd), self._cap, living.me):
                return True
            # Who waits for others to give back must not wait for a job that died meanwhile.
            reservations.recover(connection, living.alive)
            return False

    def reserve_many(self, usd: Mapping[str, float], holder: str) -> set[str]:
        """Reserve for as many keys, in their order, as the cap allows; those that it allows.

        `holder` is in place of this process: the reservations outlive it.
        """
        self._store.require_room()
        with self._store.together() as connection:
            return reservations.reserve_many(
                connection, {key: nano(each) for key, each in usd.items()}, self._cap, holder
            )

    def settle(self, key: str, usd: float) -> None:
        """Book what was paid for the key and end its reservation; `Store.settle` does it too.

        A stored response is booked once, however often it is settled.
        """
        with self._store.together() as connection:
            reservations.settle(connection, key, nano(usd))

    def release(self, key: str) -> None:
        """The attempt was not billed: its reservation is free again. Another job's is left alone:
        that job may have died with its call in flight."""
        with self._store.together() as connection:
            if reservations.holder(connection, key) == self._store.living.me:
                reservations.drop(connection, key)

    def presume_spent(self, key: str) -> None:
        """The attempt may have been billed: its whole reservation counts as spent for good."""
        with self._store.together() as connection:
            reservations.presume_spent(connection, key)

    @property
    def spent_usd(self) -> float:
        """Booked and presumed."""
        money = self._money()
        return (money.spent + money.presumed) / NANO

    @property
    def presumed_usd(self) -> float:
        return self._money().presumed / NANO

    @property
    def reserved_usd(self) -> float:
        """Held by single calls, which end soon."""
        with self._store.reading() as connection:
            return reservations.in_flight(connection) / NANO

    @property
    def in_batches_usd(self) -> float:
        """Held by batches, which may last a day."""
        with self._store.reading() as connection:
            held = reservations.money(connection).reserved
            return (held - reservations.in_flight(connection)) / NANO

    def _money(self) -> Money:
        with self._store.reading() as connection:
            return reservations.money(connection)
