"""Stopping a run at once and in order: one reason, heard by everybody."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from interpflow.errors import UserError


class Halt(Exception):
    """This task ends because the run is being stopped; the reason is with `Stop`."""


class Stop:
    """Not yet asked for, or asked for with a reason: the first one counts."""

    def __init__(self) -> None:
        self.reason: BaseException | None = None
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def because(self, reason: BaseException) -> Halt:
        """Ask for the stop. Returns what the asking task raises to end itself."""
        if self.reason is None:
            self.reason = reason
        self.asked.set()
        return Halt()

    def check(self) -> None:
        """Raises Halt once the stop was asked for."""
        if self.reason is not None:
            raise Halt()


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks for the stop; the second does not wait for calls in flight.

    Only in the main thread, the only one that signals reach; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in numbers}

    def heard(number: signal.Signals) -> None:
        if stop.asked.is_set():
            stop.at_once.set()
        stop.because(
            UserError(
                f"stopped by {number.name}; every answer that arrived is kept",
                remedy="run the same command again: only what is missing is asked for",
            )
        )

    for number in numbers:
        loop.add_signal_handler(number, heard, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
