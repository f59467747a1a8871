"""Charts of what changes inside: shifts by layer, attention by head, and what restores answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from interpflow.report.robustness_costs import level_of
from interpflow.report.theme import CONTROL, DIVERGING, INK, MUTED, RANDOM, REAL, note, titled

Rows = list[dict[str, Any]]
AnyChart = Any

SIGNIFICANT = 0.05
SLOT_NAMES = {
    "edited": "edited words, last tokens",
    "edited_span": "edited words, all tokens",
    "numbers": "numbers",
    "later": "question after the first edit",
    "frame": "words around the question",
    "answer": "answer position",
    "all": "all aligned tokens",
}
COMPONENT_NAMES = {
    "resid_post": "residual", "embed": "residual", "attn_out": "attention output",
    "mlp_out": "MLP output", "mlp_act": "neurons", "head_out": "head output",
}  # fmt: skip


def shift_map_chart(name: str, effects: Rows) -> AnyChart:
    """How much further typos move states than matched edits of other words do, layer × place."""
    rows = _confirmed(effects, "cosine_distance", "shift: typo − control")
    data = [
        {
            "place": f"{COMPONENT_NAMES.get(row['component'], row['component'])}, {row['slot']}",
            **_cell(row, row["p_adjusted"]),
        }
        for row in rows
    ]
    title = f"Shift of states: {name}"
    if not data:
        return note(title, "Not run: too few prompts of the confirmation split kept their states.")
    n = _families(rows)
    return titled(
        _tiles(data, "place", None, "state after layer", width=90),
        title,
        "cosine distance to the clean prompt's state, typo − matched edit of another word, "
        "in units of the distance between two prompts",
        f"confirmation split, {n} families of prompts; dots: family-wise p < 0.05 (max-T)",
    )


def attention_map_chart(name: str, effects: Rows) -> AnyChart:
    """Attention to edited words, layer × head, by the token that looks."""
    rows = _confirmed(effects, "log_did", "attention to edited words: typo")
    title = f"Attention to edited words: {name}"
    if not rows:
        return note(title, "Not run: no attention was kept, or too few prompts of the split.")
    panels = []
    reach = max(abs(row["estimate"]) for row in rows)
    for query in dict.fromkeys(row["slot"] for row in rows):
        data = [
            {
                "head": f"head {row['head']}",
                **_cell(row, row["p_adjusted"]),
            }
            for row in rows
            if row["slot"] == query
        ]
        heading = f"from {query.replace(':', ' ')}"
        chart = _tiles(data, "head", heading, "layer", width=46, reach=reach)
        panels.append(chart)
    return titled(
        alt.concat(*panels, columns=3, spacing=20),
        title,
        "log of attention over the uniform causal null: "
        "(edited word, perturbed − clean) − (matched word, perturbed − clean)",
        f"confirmation split, {_families(rows)} families of prompts; dots: family-wise p < 0.05 "
        "(max-T over layers, heads and queries)",
    )


def restoration_chart(name: str, effects: Rows, gates: Mapping[str, Any]) -> AnyChart:
    """Restoration and damage by layer for each set of positions, and the heads that restore."""
    title = f"What restores the answer: {name}"
    if gates["status"] != "run":
        return note(title, f"Not run: {gates['reason']}.")
    panels = [
        _curves(effects, direction, quantity, heading)
        for direction, quantity, heading in (
            ("denoise", "recovery", "clean states into the perturbed run: restoration"),
            ("noise", "damage", "perturbed states into the clean run: damage"),
        )
    ]
    heads = _head_tiles(effects)
    rows = alt.hconcat(*panels, spacing=30)
    level = level_of(effects)
    chart = alt.vconcat(rows, heads, spacing=24) if heads is not None else rows
    return titled(
        chart,
        title,
        f"{gates['n_pairs']} prompts answered right, and wrong when perturbed; ratio of means of "
        f"the logit difference with {level} Fieller intervals by family of prompts",
    )


def restored_tokens_chart(name: str, tokens: Rows, gates: Mapping[str, Any]) -> AnyChart:
    """Restoration by layer at each token of a few prompts."""
    title = f"Restoration token by token: {name}"
    if gates["status"] != "run" or not tokens:
        return note(title, f"Not run: {gates['reason']}.")
    panels = []
    for pair in dict.fromkeys(row["pair_id"] for row in tokens):
        rows = [row for row in tokens if row["pair_id"] == pair]
        data = [
            {
                # By place: Vega would fold equal tokens into one.
                "token": f"{row['position']:03d}",
                "text": row["token"].replace("\n", "⏎").replace(" ", "·"),
                "role": row["role"],
                "layer": _layer(row["layer"]),
                "order": row["layer"],
                "value": None
                if row["logit_difference"] is None
                else (row["logit_difference"] - row["base_logit_difference"])
                / (row["donor_logit_difference"] - row["base_logit_difference"]),
            }
            for row in rows
        ]
        panels.append(_token_tiles(data, rows[0]["operator"]))
    return titled(
        alt.vconcat(*panels, spacing=26),
        title,
        "share of the damage undone by the clean state at one token; examples, n = 1 each; "
        "hatched: no clean token stands for it",
        "bold: edited words; italics: numbers; the answer is read at the last token",
    )


def _curves(effects: Rows, direction: str, quantity: str, heading: str) -> AnyChart:
    data = [
        {
            "slot": SLOT_NAMES[row["slot"]],
            "layer": _layer(row["layer"]),
            "order": row["layer"],
            "value": row["estimate"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        for row in effects
        if row["direction"] == direction
        and row["quantity"] == quantity
        and row["component"] in ("embed", "resid_post")
        and row["estimate"] is not None
    ]
    layers = _ordered_layers(data)
    names = [label for label in SLOT_NAMES.values() if label in {row["slot"] for row in data}]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("layer:N", sort=layers, title="state after layer", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("slot:N", sort=names, title="patched at",
                        legend=alt.Legend(labelLimit=240)),
    )  # fmt: skip
    y = alt.Y("value:Q", title="share of the total effect", axis=alt.Axis(format="%"))
    zero = alt.Chart(alt.Data(values=[{"y": 0}, {"y": 1}])).mark_rule(
        color=MUTED, strokeDash=[2, 2]
    )
    lines = base.mark_line(point=True).encode(y=y)
    bars = base.mark_rule(opacity=0.5).encode(
        y=alt.Y("low:Q", title="share of the total effect"), y2="high:Q"
    )
    return alt.layer(zero.encode(y="y:Q"), bars, lines).properties(
        width=330, height=260, title=alt.TitleParams(heading, fontSize=11)
    )


def _head_tiles(effects: Rows) -> AnyChart | None:
    tested = {
        (row["layer"], row["head"], row["slot"]): row["p_adjusted"]
        for row in effects
        if row["direction"] == "denoise" and row["component"] == "head_out"
        and "contrast" in row["quantity"]
    }  # fmt: skip
    panels = []
    for slot in ("later", "answer"):
        data = [
            {
                "head": f"head {row['head']}",
                **_cell(row, tested.get((row["layer"], row["head"], slot))),
            }
            for row in effects
            if row["direction"] == "denoise"
            and row["component"] == "head_out"
            and row["slot"] == slot
            and row["quantity"] == "recovery"
            and row["estimate"] is not None
        ]
        if data:
            heading = f"restoration by one head's output at: {SLOT_NAMES[slot]}"
            panels.append(_tiles(data, "head", heading, "layer", width=60))
    patterns = [
        {
            "direction": "restoration" if row["direction"] == "denoise" else "damage",
            **_cell(row, None),
        }
        for row in effects
        if row["component"] == "pattern"
        and row["head"] < 0
        and row["quantity"] in ("recovery", "damage")
        and row["estimate"] is not None
    ]
    if patterns:
        heading = "by the attention of the answer's query, all heads"
        panels.append(_tiles(patterns, "direction", heading, "layer", width=84))
    return alt.hconcat(*panels, spacing=30) if panels else None


def _tiles(
    data: Rows,
    column: str,
    heading: str | None,
    y_title: str,
    width: int,
    reach: float | None = None,
) -> AnyChart:
    """Numbers on a diverging scale around 0 (up to `reach`, or the largest), dots where `label`
    says so."""
    columns = list(dict.fromkeys(row[column] for row in data))
    reach = reach or max([abs(row["value"]) for row in data] or [1.0])
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X(f"{column}:N", sort=columns, title=None,
                axis=alt.Axis(labelAngle=0 if width < 80 else -30, labelLimit=180)),
        y=alt.Y("layer:N", sort=_ordered_layers(data)[::-1], title=y_title),
    )  # fmt: skip
    tiles = base.mark_rect().encode(
        color=alt.Color(
            "value:Q",
            legend=None,
            scale=alt.Scale(scheme=DIVERGING, domain=[-reach, reach], reverse=True),
        )
    )
    dark = f"abs(datum.value) > {0.6 * reach}"
    numbers = base.mark_text(fontSize=9, dy=-3).encode(
        text=alt.Text("value:Q", format=".2f"),
        color=alt.condition(dark, alt.value("white"), alt.value(INK)),
    )
    dots = base.mark_text(fontSize=11, dy=8).encode(
        text="label:N", color=alt.condition(dark, alt.value("white"), alt.value(INK))
    )
    chart = alt.layer(tiles, numbers, dots).properties(
        width=width * len(columns), height=34 * len(_ordered_layers(data))
    )
    return chart.properties(title=alt.TitleParams(heading, fontSize=11)) if heading else chart


def _token_tiles(data: Rows, operator: str) -> AnyChart:
    layers = _ordered_layers(data)
    places = list(dict.fromkeys(row["token"] for row in data))
    x = alt.X("token:N", sort=places, title=None, axis=None)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=x, y=alt.Y("layer:N", sort=layers[::-1], title="after layer")
    )
    tiles = base.transform_filter("isValid(datum.value)").mark_rect().encode(
        color=alt.Color(
            "value:Q", title="restored",
            scale=alt.Scale(scheme=DIVERGING, domain=[-1, 1], clamp=True, reverse=True),
        )
    )  # fmt: skip
    hatched = base.transform_filter("!isValid(datum.value)").mark_text(
        text="╱", color=RANDOM, fontSize=12
    )
    first = [row for row in data if row["order"] == data[0]["order"]]
    words = alt.Chart(alt.Data(values=first)).encode(x=x, text="text:N")
    styles: list[tuple[str, str, Any, Any]] = [
        ("edited", REAL, "bold", "normal"),
        ("number", INK, "normal", "italic"),
        ("answer", CONTROL, "normal", "normal"),
        ("other", MUTED, "normal", "normal"),
        ("unaligned", MUTED, "normal", "normal"),
    ]
    labels = [
        words.transform_filter(f"datum.role == '{role}'").mark_text(
            angle=270,
            align="right",
            fontSize=10,
            color=colour,
            fontWeight=weight,
            fontStyle=style,
            y=18 * len(layers) + 6,
        )
        for role, colour, weight, style in styles
    ]
    return alt.layer(tiles, hatched, *labels).properties(
        width=17 * len(places),
        height=18 * len(layers),
        title=alt.TitleParams(operator.replace("_", " "), fontSize=11),
    )


def _confirmed(effects: Rows, metric: str, quantity: str) -> Rows:
    """The defined cells of one map, as measured on the confirmation split."""
    return [
        row
        for row in effects
        if (row["metric"], row["quantity"]) == (metric, quantity)
        and row["family"].endswith("(confirm)")
        and row["estimate"] is not None
    ]


def _cell(row: Mapping[str, Any], p_value: float | None) -> dict[str, Any]:
    """What `_tiles` draws of an effect, but for its column."""
    return {
        "layer": _layer(row["layer"]),
        "order": row["layer"],
        "value": row["estimate"],
        "label": _significant(p_value),
    }


def _families(rows: Rows) -> int:
    return max(row["n_units"] for row in rows)


def _ordered_layers(data: Rows) -> list[str]:
    return [name for _, name in sorted({(row["order"], row["layer"]) for row in data})]


def _layer(layer: int) -> str:
    return "embedding" if layer < 0 else str(layer)


def _significant(p_value: float | None) -> str:
    return "•" if p_value is not None and p_value < SIGNIFICANT else ""
