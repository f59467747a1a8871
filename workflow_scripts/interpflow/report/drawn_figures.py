"""Figures on the page: the drawing itself and the words under it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from interpflow.report.captions import FIGURE_CAPTIONS


def shown_figures(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Name, caption and SVG of each figure, for the template."""
    return [
        {
            "name": Path(path).stem.replace("_", " "),
            "caption": FIGURE_CAPTIONS[Path(path).stem],
            # Our own renderer wrote it; text of models and data is escaped in it.
            "svg": Markup(Path(path).read_text(encoding="utf-8")),
        }
        for path in paths
    ]
