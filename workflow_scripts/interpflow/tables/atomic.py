"""Files that appear whole or not at all: temporary file, fsync, rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interpflow.errors import UserError

TEMPORARY_MARK = ".tmp-"  # in the name of every unfinished file; `clean_tmp` deletes by it
# Ends the name of an unfinished directory whose complete parts the next run takes over; there is
# one for a target, so its name is stable. `clean_tmp` leaves it alone.
RESUMABLE_MARK = f"{TEMPORARY_MARK}partial"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well.

    On any error the temporary file is removed and `path` is left as it was. A full disk
    raises UserError naming the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}{TEMPORARY_MARK}{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise full_disk(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


def full_disk(error: OSError, path: Path) -> Exception:
    """The message for a full disk or quota; any other error as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return UserError(
        "no space left on the disk; nothing already computed is lost",
        where=str(path),
        remedy="free some space and run the same command again",
    )


def sync_directory(directory: Path) -> None:
    """Make the names in a directory last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
