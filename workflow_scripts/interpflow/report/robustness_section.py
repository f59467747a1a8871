"""What the page shows of the robustness study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interpflow.report.drawn_figures import shown_figures

Row = Mapping[str, Any]


def robustness_section(
    summary: Mapping[str, Any], models: Sequence[str], figures: Sequence[str]
) -> dict[str, Any]:
    """The study's data, and each model's headlines, tables, gates and figures."""
    return {
        "data": summary["data"],
        "models": [
            _model(name, summary["models"][name], [f for f in figures if f"/{name}/" in f])
            for name in models
        ],
    }


def _model(name: str, found: Mapping[str, Any], figures: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "manifest": found["manifest"],
        "benchmark": found["benchmark"],
        "mediation": found["mediation"],
        "gates": found["gates"],
        "inside": found["inside"],
        "operators": _by_operator(found["estimates"]),
        "worst": [row for row in found["estimates"] if row["factor"] == "worst case"],
        "figures": shown_figures(figures),
    }


def _by_operator(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per operator: what it does to accuracy, answers and reward."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["factor"] != "operator":
            continue
        line = lines.setdefault(row["level"], {"operator": row["level"]})
        if (row["analysis"], row["quantity"]) == ("accuracy strict", "mean"):
            line["accuracy"] = row
        elif (row["analysis"], row["quantity"]) == ("accuracy strict", "change"):
            line["change"] = row
        elif row["analysis"] == "equivalence" and row["quantity"].startswith("change within"):
            line["equivalence"] = row
        elif row["analysis"] == "flips":
            line[row["quantity"]] = row
        elif row["analysis"].startswith("reward") and row["quantity"] == "change":
            line[row["analysis"]] = row
    return [line for line in lines.values() if "accuracy" in line]
