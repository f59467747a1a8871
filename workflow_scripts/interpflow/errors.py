"""The one exception that a user's mistake raises: shown as a message, never as a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake the user can mend: what is wrong, where (key or file), and what would be right.

    Rule scripts and the command-line entry points print it without a traceback and exit with 1.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where:  {self.where}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple:
        # Keyword-only fields would be lost when a worker process sends the error to its parent.
        return _rebuild, (self.what, self.where, self.remedy)


def _rebuild(what: str, where: str, remedy: str) -> UserError:
    return UserError(what, where=where, remedy=remedy)


@contextmanager
def named(key: str) -> Iterator[None]:
    """The key of the config that led to a file, added to what is wrong with the file."""
    try:
        yield
    except UserError as error:
        where = error.where if error.where.startswith(key) else f"{key}: {error.where}"
        raise UserError(error.what, where=where, remedy=error.remedy) from error
