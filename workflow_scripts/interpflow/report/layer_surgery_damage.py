"""Charts of what plans cost: by task, by block beside the null band, by distance of an order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from interpflow.report.theme import CONTROL, DIVERGING, INK, MUTED, RANDOM, REAL, note, titled

Rows = list[dict[str, Any]]
# Altair builds one of several chart classes, by what is combined.
AnyChart = Any

SIGNIFICANT = 0.05
TEXT_COLUMN = "neutral text"
# Families shown task by task, with what their rows are.
SHOWN_FAMILIES = {
    "skip_each": "one block skipped",
    "keep_first": "only the first blocks",
    "ablate": "attention or MLP ablated",
    "swap": "neighbours swapped",
}
CELL_WIDTH, CELL_HEIGHT = 27, 20
LOSS_TICKS = [-1, -0.3, 0, 0.1, 0.3, 1, 3, 10, 30]
# What a set found on some items comes to on others.
VERDICT_MARKS = {"holds": "", "fails": " fails", "unclear": " ?"}
SERIES_COLOURS = {"skip": CONTROL, "swap": "#7c3aed", "repeat": REAL}


def damage_by_task_chart(name: str, effects: Rows) -> AnyChart:
    """Change of the answers' log-probability by plan and task, and of the loss on text."""
    title = f"What plans cost, task by task: {name}"
    panels = [
        _tiles(data, heading)
        for family, heading in SHOWN_FAMILIES.items()
        if (data := _damage(effects, family))
    ]
    if not panels:
        return note(title, "Not run: no task passed the difficulty gate, and no text was measured.")
    units = [row["n_clusters"] or row["n_units"] for row in effects if _is_answer(row)]
    n = f"{min(units)} to {max(units)} families of items a task; " if units else ""
    pairs = [alt.hconcat(*panels[i : i + 2], spacing=18) for i in range(0, len(panels), 2)]
    return titled(
        alt.vconcat(*pairs, spacing=24).resolve_scale(color="shared"),
        title,
        "change of the answer's log-probability, nats, on held-out items; neutral text: minus the "
        "change of loss, nats per token",
        f"{n}dot: family-wise p < 0.05 (max-T over the plans of a family); colours saturate at 6",
    )


def retention_chart(name: str, effects: Rows) -> AnyChart:
    """Loss and top-1 retention on neutral text by block, beside the band of random orders."""
    title = f"Skip, swap, repeat: {name}"
    data = _by_block(effects)
    if not data:
        return note(title, "Not run: no neutral text was measured.")
    series = list(dict.fromkeys(row["series"] for row in data))
    blocks = [str(block) for block in sorted({row["block"] for row in data})]
    for row in data:
        row["block"] = str(row["block"])
    band = _band(effects)
    loss = _by_block_panel(
        [row for row in data if row["what"] == "loss change"], series, blocks,
        "change of loss, nats per token", True, band,
    )  # fmt: skip
    kept = _by_block_panel(
        [row for row in data if row["what"] == "top-1 kept"], series, blocks,
        "share of tokens whose top-1 prediction stays", False, None,
    )  # fmt: skip
    told = (
        f"grey: central 95 % of {band['n']} random orders, line: their median" if band else
        "no random orders were run"
    )  # fmt: skip
    return titled(
        alt.hconcat(loss, kept, spacing=40),
        title,
        f"held-out documents (n = {max(row['n'] for row in data)}), 95 % intervals over documents; "
        f"{told}",
        "swap: with the next block; ×n: the block n times in a row",
    )


def order_distance_chart(name: str, plans: Rows, losses: Rows, effects: Rows) -> AnyChart:
    """Loss of random orders against their distance from the model's own."""
    title = f"Random orders: {name}"
    damage: dict[str, list[float]] = {}
    for row in losses:
        if row["delta_loss"] is not None:
            damage.setdefault(row["plan"], []).append(row["delta_loss"])
    data = [
        {
            "distance": row["distance"],
            "loss": float(np.mean(damage[row["plan"]])),
            "ends": _ends(row),
        }
        for row in plans
        if row["role"] == "random_order" and damage.get(row["plan"])
    ]
    if not data:
        return note(title, "Not run: no random orders were asked for.")
    kinds = [_ends({"moves_first": a, "moves_last": b})
             for a, b in ((False, False), (False, True), (True, False), (True, True))]  # fmt: skip
    points = (
        alt.Chart(alt.Data(values=data))
        .mark_point(filled=True, size=34, opacity=0.75)
        .encode(
            x=alt.X("distance:Q", title="pairs of blocks that changed sides (Kendall)"),
            y=alt.Y("loss:Q", title="change of loss, nats per token"),
            color=alt.Color(
                "ends:N", title=None, sort=kinds,
                scale=alt.Scale(domain=kinds, range=[REAL, "#0f766e", CONTROL, RANDOM]),
            ),
        )
        .properties(width=520, height=300)
    )  # fmt: skip
    return titled(
        points, title, *_correlations(effects), f"{len(data)} orders, drawn to fill the distances"
    )


def minimal_sets_chart(name: str, sets: Rows, estimates: Rows, n_layers: int) -> AnyChart:
    """The blocks of each task's minimal sufficient and minimal necessary set."""
    title = f"Minimal sets of blocks: {name}"
    if not sets:
        return note(title, "Not run: no task passed the difficulty gate.")
    tasks = list(dict.fromkeys(row["task"] for row in sets))
    panels = [
        _set_panel([row for row in sets if row["kind"] == kind], kind, tasks, n_layers, estimates)
        for kind in dict.fromkeys(row["kind"] for row in sets)
    ]
    return titled(
        alt.hconcat(*panels, spacing=36),
        title,
        "sufficient: run alone they keep most of the intact accuracy; necessary: skipping them "
        "loses most of it",
        "found on discover and develop items; the number: share of the intact accuracy kept on "
        "confirm items; fails: the "
        "set does not do it there; ?: too few items to say",
    )


def _is_answer(row: Mapping[str, Any]) -> bool:
    return row["analysis"].startswith("answers ") and row["quantity"] == "log-probability change"


def _damage(effects: Rows, family: str) -> Rows:
    found = []
    for row in effects:
        if row["estimate"] is None:
            continue
        if _is_answer(row) and row["analysis"] == f"answers {family}":
            task, value = row["factor"].replace("_", " "), row["estimate"]
        elif (row["analysis"], row["factor"], row["quantity"]) == ("text", family, "loss change"):
            task, value = TEXT_COLUMN, -row["estimate"]
        else:
            continue
        p = row["p_adjusted"]
        mark = "•" if p is not None and p < SIGNIFICANT else ""
        found.append({"task": task, "plan": row["level"], "value": value, "mark": mark})
    return found


def _tiles(data: Rows, heading: str) -> AnyChart:
    plans = sorted(dict.fromkeys(row["plan"] for row in data), key=_numbers)
    tasks = sorted({row["task"] for row in data} - {TEXT_COLUMN})
    if any(row["task"] == TEXT_COLUMN for row in data):
        tasks = [TEXT_COLUMN, *tasks]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("task:N", sort=tasks, title=None, axis=alt.Axis(labelAngle=-45, labelLimit=140)),
        y=alt.Y("plan:N", sort=plans, title=None, axis=alt.Axis(labelLimit=150)),
    )
    tiles = base.mark_rect().encode(
        color=alt.Color(
            "value:Q", title="nats",
            scale=alt.Scale(scheme=DIVERGING, domain=[-6, 6], clamp=True, reverse=True),
        )
    )  # fmt: skip
    numbers = base.mark_text(fontSize=8).encode(
        text=alt.Text("shown:N"),
        color=alt.condition("abs(datum.value) > 3.5", alt.value("white"), alt.value(INK)),
    )
    shown = numbers.transform_calculate(
        shown="format(datum.value, abs(datum.value) < 9.95 ? '.1f' : '.0f') + datum.mark"
    )
    return alt.layer(tiles, shown).properties(
        width=CELL_WIDTH * len(tasks),
        height=CELL_HEIGHT * len(plans),
        title=alt.TitleParams(heading, fontSize=11),
    )


def _numbers(label: str) -> tuple[list[int], str]:
    """Plans are ordered by the blocks that they name."""
    return [int(number) for number in re.findall(r"\d+", label)], label


def _by_block(effects: Rows) -> Rows:
    found = []
    for row in effects:
        is_shown = row["analysis"] == "text" and row["factor"] in ("skip_each", "swap", "repeat")
        if not is_shown or row["quantity"] not in ("loss change", "top-1 kept"):
            continue
        if row["estimate"] is None:
            continue
        numbers = re.findall(r"\d+", row["level"])
        series = row["factor"].split("_")[0]
        if series == "repeat":
            series = f"×{numbers[-1]}"
        found.append({
            "series": series, "block": int(numbers[0]), "what": row["quantity"],
            "value": row["estimate"], "low": row["ci_low"], "high": row["ci_high"],
            "n": row["n_units"],
        })  # fmt: skip
    return found


def _by_block_panel(
    data: Rows,
    series: Sequence[str],
    blocks: Sequence[str],
    heading: str,
    is_symlog: bool,
    band: Mapping[str, Any] | None,
) -> AnyChart:
    blues = iter(("#93c5fd", "#3b82f6", REAL, "#1e3a8a"))
    colours = [SERIES_COLOURS.get(name) or next(blues, INK) for name in series]
    scale, ticks = alt.Scale(type="linear"), alt.Axis()
    if is_symlog:
        scale, ticks = (
            alt.Scale(type="symlog", constant=0.1),
            alt.Axis(values=LOSS_TICKS, format=".2~f"),
        )
    y = alt.Y("value:Q", title=heading, scale=scale, axis=ticks)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("block:N", sort=blocks, title="block", axis=alt.Axis(labelAngle=0)),
        color=alt.Color(
            "series:N", sort=list(series), title=None,
            scale=alt.Scale(domain=list(series), range=colours),
        ),
    )  # fmt: skip
    lines = base.mark_line(point=True, strokeWidth=1.5).encode(y=y)
    bars = base.mark_rule(opacity=0.5).encode(
        y=alt.Y("low:Q", title=heading, scale=scale), y2="high:Q"
    )
    layers = [bars, lines]
    if band is not None:
        values = alt.Data(values=[dict(band)])
        area = alt.Chart(values).mark_rect(color=RANDOM, opacity=0.25)
        middle = alt.Chart(values).mark_rule(color=MUTED, strokeDash=[4, 3])
        layers = [
            area.encode(y=alt.Y("low:Q", title=heading, scale=scale), y2="high:Q"),
            middle.encode(y=alt.Y("middle:Q", title=heading, scale=scale)),
            *layers,
        ]
    return alt.layer(*layers).properties(width=340, height=280)


def _band(effects: Rows) -> dict[str, Any] | None:
    for row in effects:
        if (row["analysis"], row["factor"], row["level"]) == ("null band", "random orders", "all"):
            if row["estimate"] is None:
                return None
            return {"low": row["ci_low"], "middle": row["estimate"], "high": row["ci_high"],
                    "n": row["n_units"]}  # fmt: skip
    return None


def _ends(row: Mapping[str, Any]) -> str:
    moved = [end for end in ("first", "last") if row[f"moves_{end}"]]
    return f"{' and '.join(moved)} block moved" if moved else "first and last block in place"


def _correlations(effects: Rows) -> list[str]:
    found = []
    for row in effects:
        if row["analysis"] != "order distance" or row["level"] or row["estimate"] is None:
            continue
        p = row["p_value"]
        told = "" if p is None else f", permutation p = {p:.2g}"
        found.append(
            f"{row['factor']}: rank correlation of loss with distance {row['estimate']:.2f} "
            f"[{row['ci_low']:.2f}, {row['ci_high']:.2f}]{told}"
        )
    return found


def _set_panel(
    sets: Rows, kind: str, tasks: Sequence[str], n_layers: int, estimates: Rows
) -> AnyChart:
    kept = {
        (row["factor"], row["level"]): row["estimate"]
        for row in estimates
        if row["quantity"].startswith("share of intact accuracy") and row["estimate"] is not None
    }
    cells, words = [], []
    for row in sets:
        task = row["task"].replace("_", " ")
        chosen = set(map(int, re.findall(r"\d+", row["blocks"])))
        cells += [{"task": task, "block": block, "inside": block in chosen}
                  for block in range(n_layers)]  # fmt: skip
        share = kept.get((row["task"], kind))
        told = "" if share is None else f"{share:.0%}{VERDICT_MARKS[row['verdict']]}"
        words.append({"task": task, "share": told})
    names = [task.replace("_", " ") for task in tasks]
    y = alt.Y("task:N", sort=names, title=None, axis=alt.Axis(labelLimit=150))
    grid = (
        alt.Chart(alt.Data(values=cells))
        .mark_rect(stroke="white", strokeWidth=2)
        .encode(
            x=alt.X("block:O", title="block", axis=alt.Axis(labelAngle=0)),
            y=y,
            color=alt.condition("datum.inside", alt.value(REAL), alt.value("#eef1f4")),
        )
    )
    shares = (
        alt.Chart(alt.Data(values=words))
        .mark_text(align="left", fontSize=10, color=MUTED, x=24 * n_layers + 8)
        .encode(y=y, text="share:N")
    )
    return alt.layer(grid, shares).properties(
        width=24 * n_layers, height=20 * len(names), title=alt.TitleParams(kind, fontSize=11)
    )
