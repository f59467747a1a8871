"""Charts of mechanism: where the count is, which layers matter, and whether a count runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from interpflow.report.theme import CONTROL, DIVERGING, INK, MUTED, RANDOM, REAL, titled

Rows = list[dict[str, Any]]
# Altair builds one of several chart classes, by what is combined.
AnyChart = Any

SIGNIFICANT = 0.05
MEDIATOR_NAMES = {
    ("resid_post", "item"): "state at the swapped word",
    ("resid_post", "later_items"): "states at the words after it",
    ("resid_post", "answer"): "state at the answer position",
    ("attn_out", "answer"): "attention output, answer position",
    ("mlp_out", "answer"): "MLP output, answer position",
}
WINDOW_NAMES = {
    "prefix": "all words before k (check)",
    "site": "word k alone",
    "window": "words k, k+1, …",
    "suffix": "word k to the list's end",
    "far": "words beyond k, k+1, … to the end",
}


def position_map_chart(name: str, effects: Rows, gates: Mapping[str, Any]) -> AnyChart:
    """Recovery and damage of the residual stream, layer × place in the prompt."""
    tail = next(iter(gates["templates"].values()))["tail_tokens"]
    panels = []
    tested = {
        (row["quantity"].split(":")[0], row["layer"], row["slot"]): row["p_adjusted"]
        for row in effects
        if row["kind"] == "minimal"
        and row["component"] in ("embed", "resid_post")
        and row["quantity"].endswith("contrast with control donor")
    }
    for quantity, title in (("recovery", "clean state into the corrupted run: recovery"),
                            ("damage", "corrupted state into the clean run: damage")):  # fmt: skip
        data = [
            {
                "place": _place(row["slot"], tail),
                "order": _order(row["slot"], len(tail)),
                "layer": _layer(row),
                "value": row["estimate"],
                "significant": _below(tested.get((quantity, row["layer"], row["slot"]))),
            }
            for row in effects
            if row["kind"] == "minimal"
            and row["component"] in ("embed", "resid_post")
            and row["metric"] == "logit_difference"
            and row["quantity"] == quantity
        ]
        panels.append(_heat_map(data, title))
    return titled(
        alt.hconcat(*panels, spacing=30),
        f"Where the count is: {name}",
        "share of the total effect; dots: family-wise p < 0.05 against control donors (max-T)",
    )


def _heat_map(data: Rows, title: str) -> AnyChart:
    places = [row["place"] for row in sorted(data, key=lambda row: row["order"])]
    places = list(dict.fromkeys(places))
    layers = sorted({row["layer"] for row in data}, key=_layer_order, reverse=True)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("place:N", sort=places, title=None, axis=alt.Axis(labelAngle=-50, labelLimit=140)),
        y=alt.Y("layer:N", sort=layers, title="residual after layer"),
    )
    tiles = base.mark_rect().encode(
        color=alt.Color(
            "value:Q",
            title="share",
            scale=alt.Scale(scheme=DIVERGING, domain=[-1, 1], clamp=True, reverse=True),
        )
    )
    numbers = base.mark_text(fontSize=8, dy=-3).encode(
        text=alt.Text("value:Q", format=".2f"),
        color=alt.condition("abs(datum.value) > 0.6", alt.value("white"), alt.value(INK)),
    )
    dots = base.transform_filter("datum.significant").mark_point(
        filled=True, size=9, yOffset=8, color=INK, opacity=0.9
    )
    return alt.layer(tiles, numbers, dots).properties(
        width=31 * len(places), height=34 * len(layers), title=alt.TitleParams(title, fontSize=11)
    )


def layer_importance_chart(name: str, effects: Rows) -> AnyChart:
    """Recovery by layer for the mediators of the layer summary, with Fieller intervals."""
    data = [
        {
            "layer": _layer(row),
            "mediator": MEDIATOR_NAMES[row["component"], row["slot"]],
            "value": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        for row in effects
        if row["kind"] == "minimal"
        and row["quantity"] == "recovery"
        and (row["component"], row["slot"]) in MEDIATOR_NAMES
    ]
    layers = sorted({row["layer"] for row in data}, key=_layer_order)
    found = [label for label in MEDIATOR_NAMES.values() if label in {r["mediator"] for r in data}]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("layer:N", sort=layers, title="layer", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("mediator:N", sort=found),
        color=alt.Color(
            "mediator:N", sort=found, title="patched", legend=alt.Legend(labelLimit=260)
        ),
    )
    bars = base.mark_bar().encode(
        y=alt.Y("value:Q", title="recovery of the total effect", axis=alt.Axis(format="%"))
    )
    rules = base.mark_rule(color=INK).encode(y="low:Q", y2="high:Q", color=alt.value(INK))
    chart = alt.layer(bars, rules).properties(width=90 * len(layers), height=260)
    return titled(
        chart,
        f"Layer importance: {name}",
        "ratio of means over minimal pairs with 95 % Fieller intervals; layers are in series: "
        "shares do not add up",
    )


def running_count_chart(
    name: str, slopes: Rows, probes: Rows, verdict: Mapping[str, Any]
) -> AnyChart:
    """Slope of the answer on the running-count difference by layer and window, and the probe."""
    names = {"real": "another running count", "control": "same running count, other words",
             "random": "random direction, same length"}  # fmt: skip
    data = [
        {
            "window": WINDOW_NAMES[row["window"]],
            "donor": names[row["donor"]],
            "layer": _layer(row),
            "slope": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        for row in slopes
        if row["split"] == "confirm"
    ]
    layers = sorted({row["layer"] for row in data}, key=_layer_order)
    base = alt.Chart().encode(
        x=alt.X("layer:N", sort=layers, title="layer", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("donor:N", sort=list(names.values())),
        color=alt.Color(
            "donor:N",
            title="donor state",
            sort=list(names.values()),
            scale=alt.Scale(domain=list(names.values()), range=[REAL, CONTROL, RANDOM]),
            legend=alt.Legend(orient="bottom", labelLimit=240),
        ),
    )
    dots = base.mark_point(filled=True, size=45).encode(
        y=alt.Y("slope:Q", title="Δ answer / Δ running count")
    )
    rules = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q")
    panel = alt.layer(rules, dots).properties(width=34 * len(layers), height=230)
    facets = panel.facet(
        column=alt.Column("window:N", title=None, sort=list(WINDOW_NAMES.values())),
        data=alt.Data(values=data),
        spacing=14,
    )
    panels = [facets, _probe_panel(probes)] if probes else [facets]
    return titled(
        alt.hconcat(*panels, spacing=30),
        f"Running count: {name} — {verdict['verdict']}",
        "slope on held-out pairs, 95 % intervals by base list; 1: the answer follows the patched "
        "running count, 0: it does not",
    )


def _probe_panel(probes: Rows) -> AnyChart:
    data = [
        {
            "layer": _layer(row),
            "score": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
            "control": row["control_mean"],
            "control_max": row["control_max"],
        }
        for row in probes
    ]
    layers = sorted({row["layer"] for row in data}, key=_layer_order)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("layer:N", sort=layers, title="layer", axis=alt.Axis(labelAngle=0))
    )
    controls = base.mark_bar(color=RANDOM, opacity=0.6, size=18).encode(
        y=alt.Y("control:Q", title="partial R²"), y2="control_max:Q"
    )
    dots = base.mark_point(filled=True, size=55, color=REAL).encode(
        y=alt.Y("score:Q", scale=alt.Scale(domainMax=1), title="partial R²")
    )
    rules = base.mark_rule(color=REAL).encode(y="low:Q", y2="high:Q")
    title = alt.TitleParams(
        "Probe of the running count", fontSize=12,
        subtitle="beyond position; bars: control word sets, mean to maximum",
    )  # fmt: skip
    zero = alt.Chart(alt.Data(values=[{"y": 0}])).mark_rule(color=MUTED).encode(y="y:Q")
    return alt.layer(zero, controls, rules, dots).properties(
        width=34 * len(layers), height=230, title=title
    )


def _below(p_value: float | None) -> bool:
    return p_value is not None and p_value < SIGNIFICANT


def _layer(row: Mapping[str, Any]) -> str:
    return "embed" if row["layer"] < 0 else str(row["layer"])


def _layer_order(layer: str) -> int:
    return -1 if layer == "embed" else int(layer)


def _place(slot: str, tail: list[str]) -> str:
    """A slot as a reader of the prompt knows it; the tail's tokens by their own text."""
    if slot == "item":
        return "swapped word"
    if slot == "later_items":
        return "all later words"
    if slot == "answer":
        return f"answer {_shown(tail[-1])}"
    if slot.startswith("tail-"):
        return f"{_shown(tail[-1 - int(slot[5:])])} ({slot[4:]})"
    return slot.replace("item", "word ")


def _shown(token: str) -> str:
    return "“" + token.replace("\n", "↵").replace(" ", "␣") + "”"


def _order(slot: str, n_tail: int) -> int:
    if slot == "item":
        return 0
    if slot.startswith("item+"):
        return int(slot[5:])
    if slot == "later_items":
        return 100
    return 200 + n_tail - (0 if slot == "answer" else int(slot[5:]))
