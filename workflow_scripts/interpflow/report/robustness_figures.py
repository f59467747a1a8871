"""The figures of one model of the robustness study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interpflow.report.robustness_costs import accuracy_cost_chart, dose_response_chart
from interpflow.report.robustness_mechanism import (
    attention_map_chart,
    restoration_chart,
    restored_tokens_chart,
    shift_map_chart,
)
from interpflow.report.theme import save_svg
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows


def draw_figures(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Write every figure of `outputs` (name → SVG path) from the model's tables.

    A figure whose analysis was refused or not asked for says so.
    """
    answers = read_rows(inputs["answers"], "robustness_answers")
    estimates = read_rows(inputs["benchmark"], "estimates")
    inside = read_rows(inputs["map"], "effect_map")
    patched = read_rows(inputs["mediation"], "effect_map")
    tokens = read_rows(inputs["tokens"], "robustness_token_effects")
    gates = read_document(inputs["gates"], "robustness_gates")
    charts: dict[str, Any] = {
        "accuracy_cost": accuracy_cost_chart(name, answers, estimates),
        "dose_response": dose_response_chart(name, estimates),
        "shift_map": shift_map_chart(name, inside),
        "attention_map": attention_map_chart(name, inside),
        "restoration": restoration_chart(name, patched, gates),
        "restored_tokens": restored_tokens_chart(name, tokens, gates),
    }
    for figure, path in outputs.items():
        save_svg(charts[figure], path)
