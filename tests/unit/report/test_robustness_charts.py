"""Numbers of the charts of the robustness study are those of its tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from interpflow.report.robustness_costs import accuracy_cost_chart, dose_response_chart
from interpflow.stats.record import Estimate

OPERATORS = (("keyboard", 1), ("keyboard", 2), ("keyboard", 3), ("deletion", 2))


def answers() -> list[dict[str, Any]]:
    """The gold answer's log-probability falls by the square of the number of edits, and more."""
    rows = []
    for base in range(30):
        common: dict[str, Any] = {"base_id": f"b{base}", "placement": "any", "rate": None,
                                  "strength": None}  # fmt: skip
        rows.append({**common, "family": "clean", "operator": "clean", "n_edits": None,
                     "gold_log_prob": -1.0})  # fmt: skip
        rows += [
            {**common, "family": "typo", "operator": operator, "n_edits": n,
             "gold_log_prob": -1.0 - n**2 - base / 100}
            for operator, n in OPERATORS
        ]  # fmt: skip
    return rows


def estimates(analysis: str, level: float = 0.95) -> list[dict[str, Any]]:
    found = Estimate(quantity="change", estimate=-0.2, ci_low=-0.3, ci_high=-0.1, ci_level=level,
                     p_adjusted=0.01, n_units=30)  # fmt: skip
    return [
        {"analysis": analysis, "factor": "operator", "level": operator, **found.to_row()}
        for operator in ("keyboard", "deletion")
    ]


def marks(chart: Any, **wanted: Any) -> list[dict[str, Any]]:
    """All data values of a chart that have these entries."""
    found: list[dict[str, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            values = node.get("values")
            found.extend(v for v in values or [] if isinstance(v, dict))
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(json.loads(json.dumps(chart.to_dict())))
    return [v for v in found if all(v.get(key) == value for key, value in wanted.items())]


def test_both_halves_show_the_same_dose() -> None:
    chart = accuracy_cost_chart("m", answers(), estimates("accuracy strict"))
    medians = {v["operator"]: v["m"] for v in marks(chart) if "m" in v}
    expected = -4 - np.median(np.arange(30)) / 100
    assert medians == {name: pytest.approx(expected) for name in ("keyboard", "deletion")}
    costs = [v for v in marks(chart) if "filled" in v]
    assert {(v["value"], v["low"], v["high"]) for v in costs} == {(-20.0, -30.0, -10.0)}


@pytest.mark.parametrize(
    ("analysis", "title", "value"),
    [("accuracy strict", "change of accuracy (points)", -20.0),
     ("gold log-probability", "change of log-probability (nats)", -0.2)],
)  # fmt: skip
def test_units_are_those_of_what_is_shown(analysis: str, title: str, value: float) -> None:
    chart = accuracy_cost_chart("m", answers(), estimates(analysis, level=0.9))
    text = json.dumps(chart.to_dict())
    assert title in text
    assert "90 % intervals" in text
    assert {v["value"] for v in marks(chart) if "filled" in v} == {value}


def test_the_dose_chart_says_its_prompts_and_level() -> None:
    rows = [
        {"analysis": "dose", "factor": "n_edits", "level": f"{operator}:{n}",
         **Estimate(quantity="isotonic mean", estimate=1 - n / 10, ci_low=0.1, ci_high=1.0,
                    ci_level=0.9, n_units=units).to_row()}
        for operator, units in (("keyboard", 30), ("ocr", 22)) for n in range(3)
    ]  # fmt: skip
    text = json.dumps(dose_response_chart("m", rows).to_dict())
    assert "n = 22 to 30" in text
    assert "90 % intervals" in text
