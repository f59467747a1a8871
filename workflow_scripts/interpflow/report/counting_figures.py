"""The figures of one model of the counting study."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import altair as alt

from interpflow.report.behaviour_charts import accuracy_chart, confusion_chart, responses_chart
from interpflow.report.mechanism_charts import (
    layer_importance_chart,
    position_map_chart,
    running_count_chart,
)
from interpflow.report.theme import note, save_svg
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows

Rows = list[dict[str, Any]]


def draw_figures(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Write every figure of `outputs` (name → SVG path) from the model's tables.

    A model whose interventions were refused gets figures that say so.
    """
    answers = read_rows(inputs["answers"], "counting_answers")
    estimates = read_rows(inputs["benchmark"], "estimates")
    confusion = read_rows(inputs["confusion"], "confusion")
    verdict = read_document(inputs["verdict"], "counting_verdict")
    gates = read_document(inputs["gates"], "counting_gates")
    effects = read_rows(inputs["map"], "effect_map")
    charts: dict[str, alt.TopLevelMixin] = {
        "accuracy": accuracy_chart(name, answers, estimates),
        "confusion": confusion_chart(name, confusion),
        "responses": responses_chart(name, answers, estimates),
    }
    if gates["status"] == "refused":
        reason = "\n".join(textwrap.wrap(f"Not run: {gates['reason']}.", 88))
        for figure, title in (
            ("position_map", "Where the count is"),
            ("layer_importance", "Layer importance"),
            ("running_count", "Running count"),
        ):
            charts[figure] = note(f"{title}: {name}", reason)
    else:
        slopes = read_rows(inputs["slopes"], "running_count")
        probes = read_rows(inputs["probes"], "probes")
        charts["position_map"] = position_map_chart(name, effects, gates)
        charts["layer_importance"] = layer_importance_chart(name, effects)
        charts["running_count"] = running_count_chart(name, slopes, probes, verdict)
    for figure, path in outputs.items():
        save_svg(charts[figure], path)
