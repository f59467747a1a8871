"""One look for all figures, and their rendering to SVG without a browser or a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from interpflow.tables.atomic import atomic_path

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
REAL, CONTROL, RANDOM = "#1d4ed8", "#b45309", "#9aa5b1"
SEQUENTIAL, DIVERGING = "blues", "blueorange"
FONT = "Helvetica, Arial, sans-serif"

_CONFIG: dict[str, Any] = {
    "background": "white",
    "font": FONT,
    "title": {"color": INK, "fontSize": 14, "anchor": "start", "subtitleColor": MUTED,
              "subtitleFontSize": 11, "offset": 12},
    "axis": {"labelColor": INK, "titleColor": MUTED, "gridColor": GRID, "domainColor": MUTED,
             "tickColor": MUTED, "labelFontSize": 11, "titleFontSize": 11,
             "titleFontWeight": "normal"},
    "legend": {"labelColor": INK, "titleColor": MUTED, "titleFontWeight": "normal",
               "labelFontSize": 11, "titleFontSize": 11},
    "header": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12},
    "view": {"stroke": None},
}  # fmt: skip


def save_svg(chart: alt.TopLevelMixin, path: Path | str) -> None:
    """Render a chart to SVG, whole or not at all."""
    spec = chart.to_dict()
    spec["config"] = _CONFIG
    svg = vl_convert.vegalite_to_svg(spec)
    with atomic_path(path) as temporary:
        temporary.write_text(svg, encoding="utf-8")


def titled(chart: Any, title: str, *subtitle: str) -> Any:
    """The chart with a title that says what is seen and a subtitle that says how to read it."""
    return chart.properties(title=alt.TitleParams(text=title, subtitle=list(subtitle)))


def note(title: str, text: str) -> alt.LayerChart:
    """A figure that says why there is none."""
    words = alt.Chart(alt.Data(values=[{"text": text}])).mark_text(
        align="left", color=MUTED, fontSize=13, x=0, lineBreak="\n"
    )
    chart = words.encode(text="text:N").properties(width=560, height=60)
    return titled(alt.layer(chart), title)
