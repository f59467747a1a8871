"""Which head and which MLP of a planted model does what, and what each task needs of them.

All tasks share one plan; a part that one task needs is irrelevant to another. Only the second
induction head differs: it writes what is read in the task "redundant" alone.
"""

from __future__ import annotations

from collections.abc import Callable

from interpflow.models.planted.heads import (
    HeadLayout,
    HeadWeights,
    induction_head,
    letter_average_head,
    marker_average_head,
    previous_token_head,
)
from interpflow.models.planted.mlps import MlpWeights, count_mlp, letter_mlp, marker_mlp
from interpflow.models.planted.truth import PlantedSite, Role, Task

N_LAYERS, N_HEADS, N_KV_HEADS = 4, 8, 2

_MAKE_HEAD: dict[str, Callable[[HeadLayout, str], HeadWeights]] = {
    "previous token": previous_token_head,
    "induction": induction_head,
    "letter average": letter_average_head,
    "marker average": marker_average_head,
}
# (layer, head) -> (mechanism, feature it writes). What is written to "idle" is read by nothing.
# The first four heads of layer 1 share keys and values and are all dead.
_HEADS = {
    (0, 1): ("previous token", "idle"),
    (0, 2): ("previous token", "previous"),
    (0, 5): ("letter average", "idle"),
    (1, 4): ("previous token", "idle"),
    (1, 5): ("letter average", "idle"),
    (1, 6): ("marker average", "marker_share"),
    (2, 0): ("marker average", "idle"),
    (2, 3): ("induction", "copied"),
    (2, 7): ("induction", "idle"),
    (3, 1): ("induction", "idle"),
    (3, 4): ("letter average", "idle"),
}
_SECOND_INDUCTION = (2, 7)
_MLPS: dict[int, tuple[str, Callable[[], MlpWeights]]] = {
    0: ("marker", marker_mlp),
    2: ("count", count_mlp),
    3: ("letter answer", letter_mlp),
}
_Place = tuple[str, int, int | None]
_NEEDED: dict[Task, dict[_Place, tuple[str, ...]]] = {
    "induction": {
        ("head_out", 0, 2): ("successors",),
        ("head_out", 2, 3): ("answer",),
        ("mlp_out", 3, None): ("answer",),
    },
    "redundant": {
        ("head_out", 0, 2): ("successors",),
        ("head_out", 2, 3): ("answer",),
        ("head_out", 2, 7): ("answer",),
        ("mlp_out", 3, None): ("answer",),
    },
    "counting": {
        ("mlp_out", 0, None): ("changed",),
        ("head_out", 1, 6): ("answer",),
        ("mlp_out", 2, None): ("answer",),
    },
}


def planned_heads(layout: HeadLayout, task: Task) -> dict[tuple[int, int], HeadWeights]:
    """Weights of the live heads by (layer, head)."""
    return {
        place: _MAKE_HEAD[mechanism](layout, target)
        for place, (mechanism, target) in _placed_heads(task).items()
    }


def planned_mlps() -> dict[int, MlpWeights]:
    """Weights of the live MLPs by layer."""
    return {layer: make() for layer, (_, make) in _MLPS.items()}


def planned_truth(task: Task) -> tuple[PlantedSite, ...]:
    """Every head and MLP with its role in the task, layer by layer."""
    live = {("head_out", *place): does for place, (does, _) in _placed_heads(task).items()}
    live |= {("mlp_out", layer, None): does for layer, (does, _) in _MLPS.items()}
    needed = _NEEDED[task]
    rows = []
    for layer in range(N_LAYERS):
        places: list[_Place] = [("head_out", layer, head) for head in range(N_HEADS)]
        for place in [*places, ("mlp_out", layer, None)]:
            component, _, head = place
            role: Role = "needed" if place in needed else "irrelevant" if place in live else "dead"
            rows.append(
                PlantedSite(
                    component, layer, head, role, live.get(place, ""), needed.get(place, ())
                )
            )
    return tuple(rows)


def _placed_heads(task: Task) -> dict[tuple[int, int], tuple[str, str]]:
    if task != "redundant":
        return _HEADS
    return {**_HEADS, _SECOND_INDUCTION: ("induction", "copied")}
