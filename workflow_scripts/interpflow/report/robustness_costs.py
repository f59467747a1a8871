"""Charts of what perturbations cost: paired differences by operator, and by dose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from scipy.stats import gaussian_kde

from interpflow.report.theme import CONTROL, INK, MUTED, REAL, note, titled
from interpflow.studies.robustness.costs.outcomes import Condition, reference_conditions

Rows = list[dict[str, Any]]
# Altair builds one of several chart classes, by what is combined.
AnyChart = Any

FAMILY_COLOURS = {
    "control": MUTED,
    "typo": REAL,
    "obfuscation": CONTROL,
    "style": "#0f766e",
    "rewrite": "#7c3aed",
    "given": "#be185d",
}
SIGNIFICANT = 0.05
SHOWN_POINTS = 50  # of a cloud, evenly through the sorted differences
DENSITY_POINTS = 60
ROW = 22  # pixels of one operator


def accuracy_cost_chart(name: str, answers: Rows, estimates: Rows) -> AnyChart:
    """Change of accuracy by operator beside a raincloud of the paired changes of the gold answer's
    log-probability."""
    accuracies = _changes(estimates, "accuracy strict")
    costs = accuracies or _changes(estimates, "gold log-probability")
    if not costs:
        return note(f"Cost of perturbations: {name}", "Not run: there are no gold answers.")
    families = {row["operator"]: row["family"] for row in answers}
    shown = list(FAMILY_COLOURS)
    order = sorted(
        costs, key=lambda each: (shown.index(families[each]), costs[each]["estimate"] or 0)
    )
    parts = [_forest(costs, families, order, is_accuracy=bool(accuracies))]
    clouds = _differences(answers, order)
    if clouds:
        parts.append(_rainclouds(clouds, families, order))
    n = max(row["n_units"] for row in costs.values())
    return titled(
        alt.hconcat(*parts, spacing=24).resolve_scale(color="shared"),
        f"Cost of perturbations: {name}",
        f"paired by prompt (n = {n}); {level_of(costs.values())} intervals by family of prompts; "
        "filled: family-wise p < 0.05 (max-T over operators)",
        "of several doses of an operator, the one that most operators share, else the middle one",
    )


def dose_response_chart(name: str, estimates: Rows) -> AnyChart:
    """Accuracy against the number of edits, for each operator given at several doses."""
    points = [
        {
            "operator": row["level"].split(":")[0],
            "dose": float(row["level"].split(":")[1]),
            "kind": {"n_edits": "edits in a prompt", "rate": "share of words edited",
                     "strength": "strength"}[row["factor"]],
            "quantity": row["quantity"],
            "value": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
            "n": row["n_units"],
            "ci_level": row["ci_level"],
        }
        for row in estimates
        if row["analysis"] == "dose" and row["factor"] in ("n_edits", "rate", "strength")
        and row["quantity"] != "delivered dose"
    ]  # fmt: skip
    if not points:
        return note(
            f"Dose and accuracy: {name}", "Not run: no operator was given at several doses."
        )
    quantities = list(dict.fromkeys(row["quantity"] for row in points))
    panels = []
    for kind in dict.fromkeys(row["kind"] for row in points):
        base = alt.Chart(
            alt.Data(values=[row for row in points if row["kind"] == kind])
        ).encode(
            x=alt.X("dose:Q", title=kind,
                    axis=alt.Axis(tickMinStep=0.1 if "share" in kind else 1)),
            color=alt.Color("operator:N", title="operator"),
        )  # fmt: skip
        scale = alt.Scale(domain=[0, 1])
        line = base.mark_line(strokeWidth=1.5).encode(
            y=alt.Y("value:Q", title="accuracy", scale=scale, axis=alt.Axis(format="%")),
            strokeDash=alt.StrokeDash("quantity:N", title="curve", sort=quantities),
        )
        band = base.mark_rule().encode(y=alt.Y("low:Q", title="accuracy", scale=scale), y2="high:Q")
        dots = base.mark_point(filled=True, size=45).encode(y=alt.Y("value:Q", title="accuracy"))
        panels.append(alt.layer(band, line, dots).properties(width=360, height=240))
    counts = [row["n"] for row in points]
    thresholds = [
        f"{row['level']}: {row['quantity'].replace('n_edits', 'edits')}: {_amount(row)}"
        for row in estimates
        if row["analysis"] == "dose" and "has fallen by" in row["quantity"]
        and not row["quantity"].startswith("delivered")
    ]  # fmt: skip
    n = " to ".join(f"{n}" for n in sorted({min(counts), max(counts)}))
    return titled(
        alt.hconcat(*panels, spacing=30),
        f"Dose and accuracy: {name}",
        f"of an operator the same prompts at every dose (n = {n}), {level_of(points)} intervals by "
        "family of prompts",
        *thresholds[:3],
    )


def level_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """The level of the rows' intervals, "95 %"."""
    return f"{100 * next(iter(rows))['ci_level']:g} %"


def _amount(row: Mapping[str, Any]) -> str:
    if row["estimate"] is None:
        return "more than was tried" if "ABOVE_LARGEST_DOSE" in row["flags"] else "undefined"
    low, high = row["ci_low"], row["ci_high"]
    reach = "" if low is None or high is None else f" [{low:.2g}, {high:.2g}]"
    return f"{row['estimate']:.2g}{reach}"


def _changes(estimates: Rows, analysis: str) -> dict[str, Mapping[str, Any]]:
    """The change from the clean prompt by operator."""
    return {
        row["level"]: row
        for row in estimates
        if row["analysis"] == analysis and row["factor"] == "operator"
        and row["quantity"] == "change" and row["estimate"] is not None
    }  # fmt: skip


def _forest(
    costs: Mapping[str, Mapping[str, Any]],
    families: Mapping[str, str],
    order: Sequence[str],
    *,
    is_accuracy: bool,
) -> AnyChart:
    unit = 100.0 if is_accuracy else 1.0
    title = "change of accuracy (points)" if is_accuracy else "change of log-probability (nats)"
    data = [
        {
            "operator": _spoken(level),
            "family": families[level],
            "value": unit * costs[level]["estimate"],
            "low": _scaled(costs[level]["ci_low"], unit),
            "high": _scaled(costs[level]["ci_high"], unit),
            "filled": (costs[level]["p_adjusted"] or 1.0) < SIGNIFICANT,
        }
        for level in order
    ]
    base = alt.Chart(alt.Data(values=data)).encode(
        y=alt.Y("operator:N", sort=[_spoken(level) for level in order], title=None),
        color=_colour(families),
    )
    zero = (
        alt.Chart(alt.Data(values=[{"x": 0}]))
        .mark_rule(color=MUTED, strokeDash=[2, 2])
        .encode(x="x:Q")
    )
    reach = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    hollow = (
        base.transform_filter("!datum.filled").mark_point(size=40, fill="white").encode(x="value:Q")
    )
    solid = (
        base.transform_filter("datum.filled").mark_point(size=40, filled=True).encode(x="value:Q")
    )
    return alt.layer(zero, reach, hollow, solid).properties(width=280, height=ROW * len(order))


def _rainclouds(
    clouds: Mapping[str, np.ndarray], families: Mapping[str, str], order: Sequence[str]
) -> AnyChart:
    """Half densities above thinned-out points and quartiles, one line per operator."""
    shapes: Rows = []
    points: Rows = []
    boxes: Rows = []
    for place, operator in enumerate(order):
        if operator not in clouds:
            continue
        values = np.sort(clouds[operator])
        top = len(order) - place  # the first operator stands on top
        mine = {"operator": operator, "family": families[operator]}
        shapes += [{**mine, "x": x, "y": top + 0.05, "y2": top + 0.05 + 0.42 * d}
                   for x, d in _density(values)]  # fmt: skip
        shown = values[np.linspace(0, len(values) - 1, min(SHOWN_POINTS, len(values))).astype(int)]
        spread = 0.12 + 0.16 * (np.arange(len(shown)) * 0.618 % 1)
        points += [{**mine, "x": float(x), "y": float(top - s)} for x, s in zip(shown, spread)]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        boxes.append({**mine, "x": float(low), "x2": float(high), "m": float(middle), "y": top})
    scale = alt.Scale(type="symlog", constant=0.1)
    height = alt.Scale(domain=[0.4, len(order) + 0.6], nice=False)
    x_title = "change of log-probability of the gold answer (nats)"
    axis = alt.Axis(values=[-30, -10, -3, -1, 0, 1], grid=True)
    area = (
        alt.Chart(alt.Data(values=shapes))
        .mark_area(opacity=0.45)
        .encode(
            x=alt.X("x:Q", scale=scale, title=x_title, axis=axis),
            y=alt.Y("y:Q", scale=height, axis=None),
            y2="y2:Q",
            detail="operator:N",
            color=_colour(families),
        )
    )
    rain = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=7, opacity=0.55).encode(
        x=alt.X("x:Q", scale=scale, title=x_title, axis=axis), y=alt.Y("y:Q", scale=height),
        color=_colour(families),
    )  # fmt: skip
    quartiles = (
        alt.Chart(alt.Data(values=boxes))
        .mark_rule(color=INK, strokeWidth=2)
        .encode(x=alt.X("x:Q", scale=scale, title=x_title, axis=axis), x2="x2:Q", y="y:Q")
    )
    median = (
        alt.Chart(alt.Data(values=boxes))
        .mark_point(shape="diamond", filled=True, size=30, color=INK)
        .encode(x=alt.X("m:Q", scale=scale, title=x_title, axis=axis), y="y:Q")
    )
    return alt.layer(area, rain, quartiles, median).properties(width=420, height=ROW * len(order))


def _density(values: np.ndarray) -> list[tuple[float, float]]:
    """Points of a density on the scale that is drawn (symlog), its peak at 1."""
    drawn = np.sign(values) * np.log1p(np.abs(values) / 0.1)
    if np.ptp(drawn) < 1e-6:
        return []
    grid = np.linspace(drawn.min() - 0.3, drawn.max() + 0.3, DENSITY_POINTS)
    density = gaussian_kde(drawn)(grid)
    back = np.sign(grid) * 0.1 * np.expm1(np.abs(grid))
    return [(float(x), float(d / density.max())) for x, d in zip(back, density)]


def _differences(answers: Rows, order: Sequence[str]) -> dict[str, np.ndarray]:
    """Change of the gold answer's log-probability by operator, one value per prompt, at the dose
    and the placements that stand for the operator in the tables."""
    shown = _reference_rows([row for row in answers if row["operator"] != "clean"])
    clean = {row["base_id"]: row["gold_log_prob"] for row in answers if row["operator"] == "clean"}
    sums: dict[str, dict[str, list[float]]] = {operator: {} for operator in order}
    for row in shown:
        start = clean.get(row["base_id"])
        if row["operator"] in sums and start is not None and row["gold_log_prob"] is not None:
            change = row["gold_log_prob"] - start
            sums[row["operator"]].setdefault(row["base_id"], []).append(change)
    return {
        operator: np.array([np.mean(values) for values in found.values()])
        for operator, found in sums.items()
        if len(found) > 1
    }


def _reference_rows(answers: Rows) -> Rows:
    keys = ("family", "operator", "placement", "n_edits", "rate", "strength")
    each = [Condition(*(row[key] for key in keys)) for row in answers]
    conditions = list(dict.fromkeys(each))
    places = reference_conditions(conditions).values()
    reference = {conditions[i] for chosen in places for i in chosen}
    return [row for row, condition in zip(answers, each) if condition in reference]


def _colour(families: Mapping[str, str]) -> alt.Color:
    used = [family for family in FAMILY_COLOURS if family in set(families.values())]
    return alt.Color(
        "family:N",
        title="family",
        scale=alt.Scale(domain=used, range=[FAMILY_COLOURS[family] for family in used]),
    )


def _spoken(operator: str) -> str:
    return operator.replace("_", " ")


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else unit * value
