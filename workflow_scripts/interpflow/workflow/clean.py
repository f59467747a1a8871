"""Removal of half-written files that a killed run left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from interpflow.tables.atomic import TEMPORARY_MARK


def clean_temporary(root: Path = Path("results")) -> None:
    """Delete temporary files and directories under `root`; print how many."""
    leftovers = sorted(root.rglob(f".*{TEMPORARY_MARK}*")) if root.exists() else []
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    print(f"deleted {len(leftovers)} temporary files under {root}")
