"""The figures of one model of the layer surgery study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interpflow.report.layer_surgery_agents import judging_chart, ledger_chart
from interpflow.report.layer_surgery_damage import (
    damage_by_task_chart,
    minimal_sets_chart,
    order_distance_chart,
    retention_chart,
)
from interpflow.report.layer_surgery_lenses import lens_depth_chart, lens_trajectory_chart
from interpflow.report.theme import save_svg
from interpflow.tables.parquet import read_rows


def draw_figures(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Write every figure of `outputs` (name → SVG path) from the model's tables.

    A figure whose analysis was refused or not asked for says so.
    """
    plans = read_rows(inputs["plans"], "surgery_plans")
    effects = read_rows(inputs["effects"], "estimates")
    sets = read_rows(inputs["sets"], "surgery_sets")
    measured = read_rows(inputs["set_estimates"], "estimates")
    # Tasks below the floor of difficulty have exits and no effects.
    analysed = {row["factor"] for row in effects if row["analysis"].startswith("answers ")}
    n_layers = plans[0]["n_blocks"]  # the intact model comes first
    charts: dict[str, Any] = {
        "damage_by_task": lambda: damage_by_task_chart(name, effects),
        "retention": lambda: retention_chart(name, effects),
        "order_distance": lambda: order_distance_chart(
            name, plans, read_rows(inputs["losses"], "surgery_text_losses"), effects
        ),
        "minimal_sets": lambda: minimal_sets_chart(name, sets, measured, n_layers),
        "lens_depth": lambda: lens_depth_chart(
            name,
            read_rows(inputs["lenses"], "surgery_lenses"),
            [r for r in read_rows(inputs["exits"], "surgery_exits") if r["task"] in analysed],
        ),
        "lens_trajectory": lambda: lens_trajectory_chart(
            name, read_rows(inputs["trajectories"], "surgery_trajectories")
        ),
        "agent_ledger": lambda: ledger_chart(name, read_rows(inputs["tests"], "surgery_tests")),
        "agent_judging": lambda: judging_chart(
            name, read_rows(inputs["judging"], "surgery_judging")
        ),
    }
    for figure, path in outputs.items():
        save_svg(charts[figure](), path)
