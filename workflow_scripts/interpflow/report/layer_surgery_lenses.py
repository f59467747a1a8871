"""Charts of the lenses: what can be read at every depth, on average and token by token."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from interpflow.report.theme import CONTROL, INK, MUTED, RANDOM, REAL, note, titled
from interpflow.stats.intervals import mean_interval

Rows = list[dict[str, Any]]
# Altair builds one of several chart classes, by what is combined.
AnyChart = Any

LENS_COLOURS = {"logit": CONTROL, "bias": "#0f766e", "tuned": REAL}
SHOWN_PROMPTS, SHOWN_TOKENS = 4, 16
SIDE_BY_SIDE = 9  # tokens up to which the two lenses stand beside each other
CELL_WIDTH, CELL_HEIGHT = 54, 19


def lens_depth_chart(name: str, readings: Rows, exits: Rows) -> AnyChart:
    """Divergence of each lens from the model by depth, and the depth at which answers stay."""
    title = f"What is known at which depth: {name}"
    if not readings:
        return note(title, "Not run: there were no held-out documents.")
    curves = _curves([row for row in readings if row["depth"] is not None])
    lenses = [lens for lens in LENS_COLOURS if lens in {row["lens"] for row in curves}]
    base = alt.Chart(alt.Data(values=curves)).encode(
        x=alt.X("depth:O", title="blocks run before the lens reads", axis=alt.Axis(labelAngle=0)),
        color=alt.Color(
            "lens:N", sort=lenses, title="lens",
            scale=alt.Scale(domain=lenses, range=[LENS_COLOURS[lens] for lens in lenses]),
        ),
    )  # fmt: skip
    heading = "KL from the model, nats per token"
    scale = alt.Scale(type="symlog", constant=0.05)
    ticks = alt.Axis(values=[0, 0.1, 0.3, 1, 3, 10, 30], format=".2~f")
    y = alt.Y("kl:Q", title=heading, scale=scale, axis=ticks)
    lines = base.mark_line(point=True).encode(y=y)
    bars = base.mark_rule(opacity=0.5).encode(
        y=alt.Y("low:Q", title=heading, scale=scale), y2="high:Q"
    )
    mean = [{"kl": row["kl"]} for row in _curves([r for r in readings if r["depth"] is None])]
    baseline = (
        alt.Chart(alt.Data(values=mean)).mark_rule(color=RANDOM, strokeDash=[4, 3]).encode(y=y)
    )
    parts: list[AnyChart] = [alt.layer(baseline, bars, lines).properties(width=340, height=280)]
    depths = _depths_by_task(exits)
    if depths:
        parts.append(_exit_panel(depths))
    n = len({row["document_id"] for row in readings})
    return titled(
        alt.hconcat(*parts, spacing=40).resolve_scale(color="independent"),
        title,
        f"left: held-out documents (n = {n}), 95 % intervals over documents; dashed: the model's "
        "mean prediction, whatever the text",
        "right: depth from which the model's own first token of the answer, right or wrong, stays "
        "the most probable one; mean over held-out items of the analysed tasks",
    )


def lens_trajectory_chart(name: str, trajectories: Rows) -> AnyChart:
    """Most probable token at every depth and position of a few prompts, by both lenses."""
    title = f"Lens trajectories: {name}"
    prompts = list(dict.fromkeys(row["prompt"] for row in trajectories))[:SHOWN_PROMPTS]
    if not prompts:
        return note(title, "Not run: there was no prompt to show.")
    rows = []
    for prompt in prompts:
        here = [row for row in trajectories if row["prompt"] == prompt]
        panels = [
            _tiles([row for row in here if row["lens"] == lens], lens)
            for lens in ("logit", "tuned")
            if any(row["lens"] == lens for row in here)
        ]
        n_tokens = len({row["position"] for row in here})
        together = alt.hconcat if n_tokens <= SIDE_BY_SIDE else alt.vconcat
        rows.append(together(*panels, spacing=14))
    return titled(
        alt.vconcat(*rows, spacing=26),
        title,
        "in a cell: the most probable next token as read there; colour: probability of the token "
        "that the whole model predicts",
        "the top row of each panel is the model itself; below: the prompt's own tokens",
    )


def _curves(readings: Rows) -> Rows:
    cells: dict[tuple[str, int], list[float]] = {}
    for row in readings:
        cells.setdefault((row["lens"], row["depth"]), []).append(row["kl"])
    found = []
    for (lens, depth), values in cells.items():
        mean = mean_interval(values)
        found.append(
            {"lens": lens, "depth": depth, "kl": mean.estimate, "low": mean.ci_low,
             "high": mean.ci_high}
        )  # fmt: skip
    return found


def _depths_by_task(exits: Rows) -> Rows:
    cells: dict[tuple[str, str], list[int]] = {}
    for row in exits:
        if row["stable_depth"] is not None and row["split"] == "confirm":
            cells.setdefault((row["task"], row["lens"]), []).append(row["stable_depth"])
    return [
        {"task": task.replace("_", " "), "lens": lens, "depth": float(np.mean(values)),
         "sd": float(np.std(values)), "n": len(values)}
        for (task, lens), values in cells.items()
    ]  # fmt: skip


def _exit_panel(depths: Rows) -> AnyChart:
    tuned = {row["task"]: row["depth"] for row in depths if row["lens"] == "tuned"}
    order = sorted({row["task"] for row in depths}, key=lambda task: tuned.get(task, 0.0))
    lenses = [lens for lens in LENS_COLOURS if lens in {row["lens"] for row in depths}]
    return (
        alt.Chart(alt.Data(values=depths))
        .mark_point(filled=True, size=60)
        .encode(
            y=alt.Y("task:N", sort=order, title=None),
            x=alt.X("depth:Q", title="depth at which the answer is decided, blocks",
                    scale=alt.Scale(zero=True)),
            color=alt.Color(
                "lens:N", sort=lenses, title="lens",
                scale=alt.Scale(domain=lenses, range=[LENS_COLOURS[lens] for lens in lenses]),
            ),
        )
        .properties(width=280, height=18 * len(order))
    )  # fmt: skip


def _tiles(rows: Rows, lens: str) -> AnyChart:
    last = max(row["position"] for row in rows)
    data = [
        {
            "place": row["position"],
            "depth": row["depth"],
            "shown": row["top_token"].strip()[:9] or "␣",
            "own": row["token"].strip()[:9] or "␣",
            "probability": row["final_probability"],
        }
        for row in rows
        if row["position"] > last - SHOWN_TOKENS
    ]
    places = sorted({row["place"] for row in data})
    depths = sorted({row["depth"] for row in data}, reverse=True)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("place:O", sort=places, axis=None),
        y=alt.Y("depth:O", sort=depths, title="depth"),
    )
    tiles = base.mark_rect().encode(
        color=alt.Color(
            "probability:Q", title="probability of the model's token",
            scale=alt.Scale(scheme="blues", domain=[0, 1]),
        )
    )  # fmt: skip
    words = base.mark_text(fontSize=10).encode(
        text="shown:N",
        color=alt.condition("datum.probability > 0.55", alt.value("white"), alt.value(INK)),
    )
    first = [row for row in data if row["depth"] == depths[0]]
    own = (
        alt.Chart(alt.Data(values=first))
        .mark_text(fontSize=10, color=MUTED, fontStyle="italic", y=CELL_HEIGHT * len(depths) + 10)
        .encode(x=alt.X("place:O", sort=places, axis=None), text="own:N")
    )
    return alt.layer(tiles, words, own).properties(
        width=CELL_WIDTH * len(places),
        height=CELL_HEIGHT * len(depths),
        title=alt.TitleParams(f"{lens} lens", fontSize=11),
    )
