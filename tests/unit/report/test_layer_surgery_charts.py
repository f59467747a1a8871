"""What charts of layer surgery show is what their tables say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import vl_convert

from interpflow.report.layer_surgery_damage import minimal_sets_chart, retention_chart
from interpflow.report.layer_surgery_lenses import lens_depth_chart
from interpflow.stats.record import Estimate


def row(analysis: str, factor: str, level: str, **values: Any) -> dict[str, Any]:
    found = Estimate(ci_low=0.05, ci_high=0.5, n_units=30, **values)
    return {"analysis": analysis, "factor": factor, "level": level, **found.to_row()}


def inside(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a chart's specification."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from inside(child)
    elif isinstance(node, list):
        for child in node:
            yield from inside(child)


def texts(chart: Any) -> set[str]:
    """Words that stand in the drawn chart."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    return {part.split("<")[0] for part in svg.split(">") if part.split("<")[0].strip()}


def test_small_losses_have_their_own_ticks() -> None:
    effects = [
        row("text", "skip_each", f"skip {block}", quantity="loss change", estimate=0.1 * 5**block)
        for block in range(3)
    ]
    effects += [
        row("text", "skip_each", f"skip {block}", quantity="top-1 kept", estimate=0.9)
        for block in range(3)
    ]
    assert {"0.1", "0.3", "1"} <= texts(retention_chart("m", effects))
    readings = [
        {
            "lens": "logit",
            "depth": depth,
            "document_id": f"d{document}",
            "kl": 3.0 - depth + document / 99,
        }
        for depth in range(4)
        for document in range(9)
    ]
    assert {"0.1", "0.3", "1", "3"} <= texts(lens_depth_chart("m", readings, []))


def test_a_set_that_is_not_confirmed_is_marked() -> None:
    sets = [
        {"task": task, "kind": "sufficient", "blocks": "0 2", "verdict": verdict}
        for task, verdict in (("sums", "fails"), ("facts", "holds"), ("rhymes", "unclear"))
    ]
    measured = [
        row("minimal sets", each["task"], "sufficient", quantity="share of intact accuracy kept",
            estimate=0.42)
        for each in sets
    ]  # fmt: skip
    chart = json.loads(minimal_sets_chart("m", sets, measured, 3).to_json())
    shown = {each["task"]: each["share"] for each in inside(chart) if "share" in each}
    assert shown == {"sums": "42% fails", "facts": "42%", "rhymes": "42% ?"}
