"""Removal of half-written files that a killed run left behind."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from interpflow.tables.atomic import RESUMABLE_MARK, TEMPORARY_MARK


def clean_temporary(root: Path = Path("results"), *, is_shared: bool = False) -> None:
    """Delete temporary files and directories under `root`; print how many.

    is_shared: others may be writing there now, as in a store of runs: what a living process of
    this machine has begun is left to it.

    Unfinished activations are kept, because the run that makes them goes on where it stopped:
    hours of a model's work may be in them. They are listed with their size, to be deleted by hand
    if nothing will ask for them any more.
    """
    found = sorted(root.rglob(f".*{TEMPORARY_MARK}*")) if root.exists() else []
    resumable = [path for path in found if path.name.endswith(RESUMABLE_MARK) and path.is_dir()]
    leftovers = [path for path in found if not _within(path, resumable)]
    if is_shared:
        leftovers = [path for path in leftovers if not _is_written(path)]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    print(f"deleted {len(leftovers)} temporary files under {root}")
    for path in resumable:
        size = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
        print(f"kept {path} ({size / 1e6:.0f} MB): the next run goes on with it")


def _is_written(path: Path) -> bool:
    """Whether the process whose number stands in the name is alive."""
    number = re.search(rf"{re.escape(TEMPORARY_MARK)}(\d+)", path.name)
    if number is None:
        return False
    try:
        os.kill(int(number[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _within(path: Path, directories: list[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in directories)
