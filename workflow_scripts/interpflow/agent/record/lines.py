"""Files of JSON lines that only grow, and survive a kill in the middle of a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpflow.errors import UserError


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file; none where there is no file.

    What a kill left of a last line is cut off. Raises UserError for a line that is no JSON.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    found: list[dict[str, Any]] = []
    for n, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise UserError(
                "a line is damaged",
                where=f"{path}, line {n}",
                remedy="remove the agent's directory to let it begin anew; runs in the store "
                "are kept",
            ) from None
    return found


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line; it is on the disk when this returns."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
