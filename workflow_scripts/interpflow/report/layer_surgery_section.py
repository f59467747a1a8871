"""What the page shows of the layer surgery study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interpflow.report.drawn_figures import shown_figures


def layer_surgery_section(
    summary: Mapping[str, Any], models: Sequence[str], figures: Sequence[str]
) -> dict[str, Any]:
    """The study's data, and each model's headlines, claims, tables, agent and figures."""
    return {
        "data": summary["data"],
        "models": [
            _model(name, summary, [f for f in figures if f"/{name}/" in f]) for name in models
        ],
    }


def _model(name: str, summary: Mapping[str, Any], figures: Sequence[str]) -> dict[str, Any]:
    found = summary["models"][name]
    judging = found["judging"]
    judged = found["free"]["tasks"] if found.get("free") else {}
    return {
        "name": name,
        "sentences": [sentence.removeprefix(f"{name}: ") for sentence in summary["verdicts"][name]],
        "manifest": found["manifest"],
        "gates": [*found["gates"]["gates"], *(judging["gates"] if judging else [])],
        "tasks": [
            {"name": task, "judged": judged.get(task), **told}
            for task, told in found["gates"]["tasks"].items()
        ],
        "sweep": found["sweep"],
        "lenses": found["lenses"],
        "effects": found["effects"],
        "sets": found["sets"],
        "agent": found["agent"],
        "judging": _judging(judging) if judging else None,
        "figures": shown_figures(figures),
    }


def _judging(judging: Mapping[str, Any]) -> dict[str, Any]:
    """One line per policy and kind of anomaly."""
    lines = [
        {"policy": policy, "plant": plant, "found": told["discovery"].get(plant),
         "false": told["false_claims"].get(plant)}
        for policy, told in judging["policies"].items()
        for plant in dict.fromkeys([*told["discovery"], *told["false_claims"]])
        if plant != "all"
    ]  # fmt: skip
    return {**judging, "lines": lines}
