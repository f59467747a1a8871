"""Which processes that hold something in the store are still alive.

Each open store holds the lock of a file of its own next to the store; the kernel frees it when the
process ends, however it ends. Unlike a process number this cannot be mistaken for another process
that got the same number, nor does it fail between containers that share the disk.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path


class Living:
    """This process's mark, and the test of others'. Closed with its store."""

    def __init__(self, store: Path) -> None:
        self._folder = store.with_name(f"{store.name}-jobs")
        self._folder.mkdir(exist_ok=True)
        self.me, self._file = self._mark()

    def clear(self) -> None:
        """Remove the marks that dead processes left."""
        for mark in self._folder.iterdir():
            self.alive(mark.name)

    def alive(self, process: str) -> bool:
        """Whether the process of that mark runs. The mark of a dead one is cleared away."""
        if process == self.me:
            return True
        mark = self._folder / process
        try:
            file = os.open(mark, os.O_RDWR)
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's, which cannot be tested
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            mark.unlink(missing_ok=True)
            return False
        finally:
            os.close(file)

    def _mark(self) -> tuple[str, int]:
        while True:
            name = uuid.uuid4().hex
            mark = self._folder / name
            file = os.open(mark, os.O_CREAT | os.O_RDWR, 0o666)
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another process may have cleared it away before it was locked.
            if mark.exists():
                return name, file
            os.close(file)

    def close(self) -> None:
        (self._folder / self.me).unlink(missing_ok=True)
        os.close(self._file)
