"""The one thread of a job that writes to the store: many small writes, few waits for the disk.

The event loop must not wait for the disk, and a transaction that is durable costs milliseconds.
What has gathered while the last transaction was written goes into the next one together: at 200
calls in flight a commit serves dozens of them. A caller gets its result only after the commit that
holds it: what was acknowledged is on the disk.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from interpflow.llm.bought.budget import Budget
    from interpflow.llm.bought.store import Store

T = TypeVar("T")
MOST_TOGETHER = 500


@dataclass(frozen=True)
class Books:
    """The store and the money in it."""

    store: Store
    budget: Budget


@dataclass
class _Entry:
    work: Callable[[Books], Any]
    future: asyncio.Future[Any] | Future[Any]
    result: Any = None
    error: BaseException | None = None


def _run_together(books: Books, entries: list[_Entry]) -> None:
    """Run all in one transaction; if one fails, undo them all and run each in its own.

    So no entry's error takes another's work with it. What an entry does beside the store must
    bear being done twice. Where no transaction can even begin (another program holds the file, for
    minutes by then), the error is everybody's: each would only wait as long again.
    """
    begun = False
    try:
        with books.store.together():
            begun = True
            for entry in entries:
                entry.result = entry.work(books)
    except BaseException as error:
        if len(entries) == 1 or not begun:
            for entry in entries:
                entry.error = error
            return
        for entry in entries:
            _run_together(books, [entry])


def _resolve(entries: list[_Entry]) -> None:
    """Hand the results over; once per loop, as waking one costs a system call."""
    loops: dict[asyncio.AbstractEventLoop, list[_Entry]] = {}
    for entry in entries:
        if isinstance(entry.future, asyncio.Future):
            loops.setdefault(entry.future.get_loop(), []).append(entry)
        else:
            _set(entry)
    for loop, mine in loops.items():
        with suppress(RuntimeError):  # the loop was closed; what was written is written
            loop.call_soon_threadsafe(lambda mine=mine: [_set(entry) for entry in mine])


def _set(entry: _Entry) -> None:
    if entry.future.done():
        return
    if entry.error is not None:
        entry.future.set_exception(entry.error)
    else:
        entry.future.set_result(entry.result)


class Ledger:
    """Opens the store (UserError where it cannot) and owns its connection until closed."""

    def __init__(self, path: Path, cap_usd: float | None) -> None:
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._work, args=(path, cap_usd), name="llm-ledger", daemon=True
        )
        self._thread.start()
        self._opened.result()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        """Everything handed over is written first."""
        self._entries.put(None)
        self._thread.join()

    async def do(self, work: Callable[[Books], T]) -> T:
        """Run `work` in a transaction with others; back when it is durable. Raises what it does."""
        future = asyncio.get_running_loop().create_future()
        self._entries.put(_Entry(work, future))
        return await future  # if this task is cancelled meanwhile, the work is done all the same

    def now(self, work: Callable[[Books], T]) -> T:
        """The same for callers without an event loop."""
        future: Future[Any] = Future()
        self._entries.put(_Entry(work, future))
        return future.result()

    def _work(self, path: Path, cap_usd: float | None) -> None:
        from interpflow.llm.bought.budget import Budget
        from interpflow.llm.bought.store import open_store

        with ExitStack() as stack:
            try:
                store = stack.enter_context(open_store(path))
                books = Books(store, Budget(store, cap_usd))
            except BaseException as error:
                self._opened.set_exception(error)
                return
            self._opened.set_result(None)
            while entries := self._gather():
                _run_together(books, entries)
                _resolve(entries)

    def _gather(self) -> list[_Entry]:
        """All that waits, at least one; nothing once the ledger is to close."""
        first = self._entries.get()
        entries = [] if first is None else [first]
        while entries and len(entries) < MOST_TOGETHER:
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                break
            if entry is None:
                self._entries.put(None)
                break
            entries.append(entry)
        return entries
