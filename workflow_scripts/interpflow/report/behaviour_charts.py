"""Charts of behaviour: accuracy, confusion and the distribution of answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt

from interpflow.report.theme import INK, MUTED, REAL, SEQUENTIAL, titled

Rows = list[dict[str, Any]]
# Altair builds one of several chart classes, by what is combined.
AnyChart = Any


def accuracy_chart(name: str, answers: Rows, estimates: Rows) -> AnyChart:
    """Accuracy of the scored answers: count × length, and by category and wording."""
    return titled(
        alt.hconcat(
            _count_by_length(answers),
            alt.vconcat(
                _levels(estimates, "category", "Category", step=13),
                _levels(estimates, "template_id", "Wording", step=16),
            ),
            spacing=40,
        ),
        f"Accuracy: {name}",
        _headline(estimates),
    )


def confusion_chart(name: str, confusion: Rows) -> AnyChart:
    """Answers to each truth, as shares of the truth's prompts."""
    rows = [row for row in confusion if row["readout"] == "scored"]
    totals: Counter[int] = Counter()
    for row in rows:
        totals[row["truth"]] += row["n"]
    used = [row for row in rows if row["n"] > 0 or row["response"].isdigit()]
    data = [
        {
            "truth": row["truth"],
            "answer": row["response"],
            "share": row["n"] / totals[row["truth"]] if totals[row["truth"]] else None,
            "n": row["n"],
        }
        for row in used
    ]
    order = sorted({row["response"] for row in used}, key=lambda r: (not r.isdigit(), r.zfill(3)))
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("answer:N", sort=order, title="answer", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("truth:O", title="truth", sort="descending"),
    )
    tiles = base.mark_rect().encode(
        color=alt.Color(
            "share:Q",
            title="share of truth",
            scale=alt.Scale(scheme=SEQUENTIAL, domain=[0, 1]),
            legend=alt.Legend(format="%"),
        )
    )
    numbers = (
        base.transform_filter("datum.n > 0")
        .mark_text(fontSize=8)
        .encode(
            text="n:Q",
            color=alt.condition("datum.share > 0.5", alt.value("white"), alt.value(INK)),
        )
    )
    chart = alt.layer(tiles, numbers).properties(width=24 * len(order), height=24 * len(totals))
    return titled(chart, f"Answers against truth: {name}", "numbers are prompts; scored answers")


def responses_chart(name: str, answers: Rows, estimates: Rows) -> AnyChart:
    """How often each count is true, and how often the model says it."""
    truth = Counter(row["count"] for row in answers)
    said = Counter(row["scored_count"] for row in answers)
    data = [
        {"count": count, "what": what, "share": found[count] / len(answers)}
        for what, found in (("truth", truth), ("answers", said))
        for count in sorted(set(truth) | set(said))
    ]
    test = _estimate(estimates, "scored", "total variation of answers from truth")
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_bar()
        .encode(
            x=alt.X("count:O", title="count", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("what:N", sort=["truth", "answers"]),
            y=alt.Y("share:Q", title="share of prompts", axis=alt.Axis(format="%")),
            color=alt.Color(
                "what:N",
                title=None,
                sort=["truth", "answers"],
                scale=alt.Scale(domain=["truth", "answers"], range=[MUTED, REAL]),
            ),
        )
        .properties(width=520, height=220)
    )
    found = (
        f"total variation {test['estimate']:.3f}, paired swap p = {_p(test['p_value'])}"
        if test and test["estimate"] is not None
        else ""
    )
    return titled(chart, f"Answers and truths: {name}", found)


def _headline(estimates: Rows) -> str:
    score = _estimate(estimates, "scored", "accuracy")
    if not score:
        return ""
    return (
        f"{score['estimate']:.1%} of {score['n_units']} prompts, 95 % interval "
        f"{score['ci_low']:.1%} to {score['ci_high']:.1%}"
    )


def _count_by_length(answers: Rows) -> AnyChart:
    right: Counter[tuple[int, int]] = Counter()
    total: Counter[tuple[int, int]] = Counter()
    for row in answers:
        cell = (row["length"], row["count"])
        total[cell] += 1
        right[cell] += row["scored_count"] == row["count"]
    data = [
        {"length": cell[0], "count": cell[1], "accuracy": right[cell] / n, "n": n}
        for cell, n in sorted(total.items())
    ]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("length:O", title="words in the list", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("count:O", title="true count", sort="descending"),
    )
    tiles = base.mark_rect().encode(
        color=alt.Color(
            "accuracy:Q",
            scale=alt.Scale(scheme=SEQUENTIAL, domain=[0, 1]),
            legend=alt.Legend(format="%"),
        )
    )
    numbers = base.mark_text(fontSize=8).encode(
        text=alt.Text("accuracy:Q", format=".0%"),
        color=alt.condition("datum.accuracy > 0.5", alt.value("white"), alt.value(INK)),
    )
    n_lengths = len({row["length"] for row in data})
    n_counts = len({row["count"] for row in data})
    return alt.layer(tiles, numbers).properties(width=34 * n_lengths, height=24 * n_counts)


def _levels(estimates: Rows, factor: str, title: str, step: int) -> AnyChart:
    data = [
        {
            "level": row["level"],
            "accuracy": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        for row in estimates
        if row["analysis"] == "scored"
        and row["factor"] == factor
        and row["quantity"] == "accuracy"
        and row["level"] != "all"
    ]
    base = alt.Chart(alt.Data(values=data)).encode(
        y=alt.Y("level:N", title=title, sort=alt.EncodingSortField("accuracy", order="descending"))
    )
    scale = alt.Scale(domain=[0, 1])
    dots = base.mark_point(filled=True, size=35, color=REAL).encode(
        x=alt.X("accuracy:Q", scale=scale, axis=alt.Axis(format="%"), title="accuracy")
    )
    bars = base.mark_rule(color=REAL).encode(x=alt.X("low:Q", title="accuracy"), x2="high:Q")
    return alt.layer(bars, dots).properties(width=260, height=alt.Step(step))


def _estimate(estimates: Rows, analysis: str, quantity: str) -> dict[str, Any] | None:
    for row in estimates:
        if (row["analysis"], row["quantity"], row["factor"]) == (analysis, quantity, "all"):
            return row
    return None


def _p(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2g}"
