"""Charts of the automated researcher: its registered tests, and what policies find."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import altair as alt

from interpflow.report.theme import CONTROL, GRID, INK, MUTED, RANDOM, REAL, note, titled
from interpflow.stats.intervals import wilson

Rows = list[dict[str, Any]]
# Altair builds one of several chart classes, by what is combined.
AnyChart = Any

VERDICT_COLOURS = {
    "CONFIRMED": REAL,
    "DIRECTION_ONLY": "#0f766e",
    "NEGLIGIBLE": MUTED,
    "INCONCLUSIVE": RANDOM,
    "CONTRADICTED": CONTROL,
    "INVALID": "#be185d",
}
POLICY_COLOURS = {"offline": REAL, "fixed_sweep": CONTROL, "random": RANDOM, "agent": "#7c3aed"}
SHOWN_TESTS = 40
ROW = 24  # pixels of one test
MOST_LABEL = 40  # characters


def ledger_chart(name: str, tests: Rows) -> AnyChart:
    """Predicted region, measured effect and verdict of each registered test, in their order."""
    title = f"The agent's registered tests: {name}"
    shown = [_test(row) for row in tests if row["estimate"] is not None][:SHOWN_TESTS]
    if not shown:
        return note(title, "The agent registered no test: it explored, and found nothing to claim.")
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    panels = [
        _ledger_panel([row for row in shown if row["metric"] == metric], metric)
        for metric in metrics
    ]
    n_left = sum(row["estimate"] is not None for row in tests) - len(shown)
    return titled(
        alt.vconcat(*panels, spacing=18).resolve_scale(color="shared"),
        title,
        "bar: what was predicted before the run; point and line: what was measured, 95 % interval",
        "each test has units of its own; the level α is what the false discovery rate left for it"
        + (f"; {n_left} further tests are in the table" if n_left else ""),
    )


def judging_chart(name: str, judging: Rows) -> AnyChart:
    """Discovery rate by plant and policy, and the share of runs with a false claim."""
    title = f"What policies find in altered copies of {name}"
    if not judging:
        return note(title, "Not run: no anomaly was planted.")
    found = _rates(judging)
    plants = list(dict.fromkeys(row["plant"] for row in found))
    policies = [name for name in POLICY_COLOURS if name in {row["policy"] for row in found}]
    panels = []
    for what, heading in (
        ("found", "planted anomaly found"),
        ("false", "runs with a false claim"),
    ):
        data = [row for row in found if row["what"] == what]
        kinds = [plant for plant in plants if any(row["plant"] == plant for row in data)]
        base = alt.Chart(alt.Data(values=data)).encode(
            y=alt.Y("plant:N", sort=kinds, title=None),
            yOffset=alt.YOffset("policy:N", sort=policies),
            color=alt.Color(
                "policy:N", title="policy", sort=policies,
                scale=alt.Scale(domain=policies, range=[POLICY_COLOURS[p] for p in policies]),
            ),
        )  # fmt: skip
        x = alt.X("rate:Q", title=heading, scale=alt.Scale(domain=[0, 1]),
                  axis=alt.Axis(format="%"))  # fmt: skip
        bars = base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=heading, scale=alt.Scale(domain=[0, 1])), x2="high:Q"
        )
        dots = base.mark_point(filled=True, size=60).encode(x=x)
        panels.append(
            alt.layer(bars, dots).properties(
                width=300, height=alt.Step(14, **{"for": "offset"}),
                title=alt.TitleParams(heading, fontSize=11),
            )
        )  # fmt: skip
    n = max(row["n"] for row in found)
    return titled(
        alt.hconcat(*panels, spacing=40),
        title,
        f"equal budgets; up to {n} runs each, over places and seeds; Wilson intervals, 95 %",
        "no_op: a block that writes nothing; swapped: two blocks exchanged; scaled: a block writes "
        "too little or too much; duplicated: a block twice",
    )


def _test(row: Mapping[str, Any]) -> dict[str, Any]:
    prediction = json.loads(row["prediction"]) if row["prediction"] else {}
    effect = row["smallest_effect"]
    low, high = prediction.get("within") or (None, None)
    if low is None and effect is not None:
        up = prediction.get("sign") == "increase"
        low, high = (effect, None) if up else (None, -effect)
    plan = row["label"] + (f", {row['task']}" if row["task"] else "")
    plan = plan if len(plan) < MOST_LABEL else f"{plan[: MOST_LABEL - 1]}…"
    placebo = "placebo: " if row["is_placebo"] else ""
    return {
        "label": f"{row['number']:>2}  {placebo}{plan}",
        "number": row["number"],
        "metric": row["metric"],
        "value": row["estimate"],
        "low": row["ci_low"],
        "high": row["ci_high"],
        "from": low,
        "to": high,
        "verdict": row["verdict"],
        "alpha": f"α {row['alpha']:.2g}" if row["alpha"] is not None else "",
    }


def _ledger_panel(data: Rows, metric: str) -> AnyChart:
    """One panel per metric: their units differ."""
    numbers = [row[key] for row in data for key in ("value", "low", "high", "from", "to")]
    known = [number for number in numbers if number is not None] + [0.0]
    pad = 0.06 * (max(known) - min(known) or 1.0)
    left, right = min(known) - pad, max(known) + pad
    for row in data:
        row["from"] = left if row["from"] is None and row["to"] is not None else row["from"]
        row["to"] = right if row["to"] is None and row["from"] is not None else row["to"]
    scale = alt.Scale(domain=[left, right], nice=False)
    order = [row["label"] for row in data]
    base = alt.Chart(alt.Data(values=data)).encode(
        y=alt.Y("label:N", sort=order, title=None,
                axis=alt.Axis(labelLimit=300, labelFont="monospace"))
    )  # fmt: skip
    predicted = (
        base.transform_filter("isValid(datum.from)")
        .mark_bar(color=GRID, height=ROW - 8)
        .encode(x=alt.X("from:Q", title=metric, scale=scale), x2="to:Q")
    )
    verdicts = list(VERDICT_COLOURS)
    colour = alt.Color(
        "verdict:N", title="verdict", sort=verdicts,
        scale=alt.Scale(domain=verdicts, range=list(VERDICT_COLOURS.values())),
    )  # fmt: skip
    zero = (
        alt.Chart(alt.Data(values=[{"x": 0}]))
        .mark_rule(color=MUTED, strokeDash=[2, 2])
        .encode(x=alt.X("x:Q", title=metric, scale=scale))
    )
    lines = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=metric, scale=scale), x2="high:Q", color=colour
    )
    dots = base.mark_point(filled=True, size=55).encode(
        x=alt.X("value:Q", title=metric, scale=scale), color=colour
    )
    levels = base.mark_text(align="left", fontSize=9, color=INK, x=525).encode(text="alpha:N")
    return alt.layer(predicted, zero, lines, dots, levels).properties(
        width=515, height=ROW * len(order)
    )


def _rates(judging: Rows) -> Rows:
    """Wilson intervals of what is found and of runs with a false claim, by plant and policy."""
    cells: dict[tuple[str, str], Rows] = {}
    for row in judging:
        cells.setdefault((row["plant"], row["policy"]), []).append(row)
    found = []
    for (plant, policy), runs in cells.items():
        counts = {"false": sum(run["n_false"] > 0 for run in runs)}
        if any(run["planted_blocks"] for run in runs):
            counts["found"] = sum(bool(run["discovered"]) for run in runs)
        for what, count in counts.items():
            low, high = wilson(count, len(runs))
            found.append({"what": what, "plant": plant, "policy": policy, "n": len(runs),
                          "rate": count / len(runs), "low": low, "high": high})  # fmt: skip
    return found
