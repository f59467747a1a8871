"""The plans of a sweep: families that answer a question each, their null band and controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, Literal

import numpy as np

from interpflow.config.layer_surgery import SurgeryPlans
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.orders import order_facts, orders_by_distance
from interpflow.plans.requests import NamedPlan, named_plan

Role = Literal["structured", "random_order", "control"]
INTACT, ALL_PLANS = "intact", "all"
# Families of structured plans, in the order in which they are run.
FAMILIES: tuple[str, ...] = (
    INTACT, "skip_each", "skip_range", "keep_first", "keep_last", "repeat", "swap", "reverse",
    "parallel", "ablate", "ablate_head", "own",
)  # fmt: skip
RANDOM_ORDER, RANDOM_INNER_ORDER, CONTROL = "random_order", "random_inner_order", "control"
# A control's mean depth is at most this many blocks from that of the range it stands for.
_DEPTH_TOLERANCES = (0.5, 1.0)
# Sets of blocks are listed up to this number; beyond it so many are drawn for each one wanted.
_MAX_LISTED = 20_000
_DRAWS_EACH = 50


@dataclass(frozen=True)
class SweepPlan:
    """A plan of a sweep.

    families: every family it belongs to: skipping the last block is also keeping all before it.
    control_of: the plan, written out, that it is a control of.
    """

    named: NamedPlan
    role: Role
    families: tuple[str, ...]
    control_of: str = ""

    @property
    def plan(self) -> LayerPlan:
        return self.named.plan

    @property
    def kind(self) -> str:
        """The first family it belongs to."""
        return self.families[0]

    def to_row(self, n_layers: int) -> dict[str, Any]:
        """A row of the table `surgery_plans`; the facts of an order are null for other plans."""
        facts = order_facts(self.plan, n_layers)
        return {
            "plan": str(self.plan),
            "label": self.named.label,
            "kind": self.kind,
            "families": list(self.families),
            "role": self.role,
            "control_of": self.control_of,
            "n_blocks": self.plan.n_blocks,
            "distance": None if facts is None else facts.distance,
            "displacement": None if facts is None else facts.displacement,
            "moves_first": None if facts is None else facts.moves_first,
            "moves_last": None if facts is None else facts.moves_last,
        }


def sweep_plans(settings: SurgeryPlans, n_layers: int, n_heads: int, seed: int) -> list[SweepPlan]:
    """All plans of a sweep, each once: structured ones, random orders, depth-matched controls.

    The intact model comes first; the order depends on nothing but the arguments. Raises UserError
    for an own plan that the model cannot run, naming its place in the config.
    """
    members: dict[LayerPlan, tuple[NamedPlan, list[str]]] = {}
    for family, named in _structured(settings, n_layers, n_heads):
        _, families = members.setdefault(named.plan, (named, []))
        if family not in families:
            families.append(family)
    found = [SweepPlan(named, "structured", tuple(of)) for named, of in members.values()]
    known = set(members)
    rng = np.random.default_rng(seed)
    for plan in (
        *_random_orders(settings.random_orders, n_layers, known, rng),
        *_controls(settings.controls, found, n_layers, known, rng),
    ):
        known.add(plan.plan)
        found.append(plan)
    return found


def generating_plans(structured: Sequence[SweepPlan], chosen: Sequence[str]) -> list[SweepPlan]:
    """The plans under which text is generated: "intact", "all", or families of plans."""
    if ALL_PLANS in chosen:
        return list(structured)
    return [plan for plan in structured if set(plan.families) & set(chosen)]


def range_lengths(n_layers: int) -> list[int]:
    """Lengths of the ranges that are skipped or run side by side: 2, a quarter, three eighths and
    a half of the blocks, those that leave some block."""
    wanted = {2, round(n_layers / 4), round(3 * n_layers / 8), round(n_layers / 2)}
    return sorted(length for length in wanted if 2 <= length < n_layers)


def _structured(
    settings: SurgeryPlans, n_layers: int, n_heads: int
) -> Iterator[tuple[str, NamedPlan]]:
    def asked(family: str, **request: Any) -> tuple[str, NamedPlan]:
        return family, named_plan(request, n_layers, n_heads)

    blocks = range(n_layers)
    yield asked(INTACT, kind="identity")
    for block in blocks:
        yield asked("skip_each", kind="skip", blocks=[block])
    if settings.skip_ranges:
        for length in range_lengths(n_layers):
            for first in dict.fromkeys((0, (n_layers - length) // 2, n_layers - length)):
                yield asked("skip_range", kind="skip", blocks=[*range(first, first + length)])
    if settings.keep:
        for n in blocks:
            yield asked("keep_first", kind="keep_first", n=n)
        for n in range(1, n_layers):
            yield asked("keep_last", kind="keep_last", n=n)
    for times in settings.repeats:
        for block in blocks:
            yield asked("repeat", kind="repeat", first=block, times=times)
    if settings.swaps:
        for block in range(n_layers - 1):
            yield asked("swap", kind="swap", block=block, with_block=block + 1)
    if settings.reverse and n_layers >= 4:
        yield asked("reverse", kind="reverse", first=1, last=n_layers - 2)
    if settings.parallel:
        for first, last in _inner_ranges(n_layers):
            yield asked("parallel", kind="parallel", first=first, last=last)
    for request in _ablations(settings, n_layers, n_heads):
        family = "ablate_head" if request["part"] == "head" else "ablate"
        yield asked(family, **request)
    for place, request in enumerate(settings.own):
        where = f"layer_surgery.plans.own[{place}]"
        yield "own", named_plan(request, n_layers, n_heads, where=where)


def _inner_ranges(n_layers: int) -> list[tuple[int, int]]:
    """Ranges in the middle that leave the first and the last block, the whole inside last."""
    inside = n_layers - 2
    lengths = [length for length in range_lengths(n_layers) if length < inside]
    ranges = [((n_layers - length) // 2, length) for length in [*lengths, inside] if length >= 2]
    return [(first, first + length - 1) for first, length in ranges]


def _ablations(settings: SurgeryPlans, n_layers: int, n_heads: int) -> Iterator[Mapping[str, Any]]:
    for method in settings.ablations:
        for block in range(n_layers):
            for part in ("attention", "mlp"):
                yield {"kind": "ablate", "block": block, "part": part, "method": method}
        if settings.heads:
            for block in range(n_layers):
                for head in range(n_heads):
                    yield {
                        "kind": "ablate", "block": block, "part": "head", "method": method,
                        "head": head,
                    }  # fmt: skip


def _random_orders(
    count: int, n_layers: int, known: set[LayerPlan], rng: np.random.Generator
) -> list[SweepPlan]:
    """Half of them leave the first and the last block in place, since moving those breaks a model
    whatever the distance; where there are few such orders, the rest move all blocks."""
    inside = n_layers - 2
    taken = {plan.blocks for plan in known if order_facts(plan, n_layers) is not None}
    known_inside = [
        tuple(block - 1 for block in order[1:-1])
        for order in taken
        if inside > 0 and order[0] == 0 and order[-1] == n_layers - 1
    ]
    inner = [
        (0, *(block + 1 for block in order), n_layers - 1)
        for order in orders_by_distance(inside, count // 2, rng, known_inside)
    ]
    taken.update(inner)
    whole = orders_by_distance(n_layers, count - len(inner), rng, taken)
    kinds = [(RANDOM_ORDER, order) for order in whole]
    kinds += [(RANDOM_INNER_ORDER, order) for order in inner]
    return [
        SweepPlan(
            NamedPlan(f"order {' '.join(map(str, order))}", kind, LayerPlan.of(order)),
            "random_order",
            (kind,),
        )
        for kind, order in kinds
    ]


def _controls(
    count: int,
    structured: list[SweepPlan],
    n_layers: int,
    known: set[LayerPlan],
    rng: np.random.Generator,
) -> list[SweepPlan]:
    """For each skipped range, random sets of as many blocks with about the same mean depth that are
    no range themselves."""
    taken, found = set(known), []
    for ranged in structured:
        if "skip_range" not in ranged.families:
            continue
        kept = set(ranged.plan.blocks)
        skipped = tuple(block for block in range(n_layers) if block not in kept)
        for blocks in _sets_like(skipped, n_layers, count, taken, rng):
            named = named_plan({"kind": "skip", "blocks": list(blocks)}, n_layers, 1)
            taken.add(named.plan)
            found.append(SweepPlan(named, "control", (CONTROL,), str(ranged.plan)))
    return found


def _sets_like(
    skipped: tuple[int, ...],
    n_layers: int,
    count: int,
    taken: set[LayerPlan],
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """At most `count` sets that hold the first and the last block exactly if `skipped` does."""
    ends = tuple(block for block in (0, n_layers - 1) if block in skipped)
    inner, size = range(1, n_layers - 1), len(skipped) - len(ends)
    if comb(len(inner), size) <= _MAX_LISTED:
        candidates = [tuple(sorted((*ends, *chosen))) for chosen in combinations(inner, size)]
        rng.shuffle(candidates)
    else:
        candidates = _equally_deep(skipped, n_layers, _DRAWS_EACH * count, rng)
    mean = sum(skipped) / len(skipped)
    found: list[tuple[int, ...]] = []
    for tolerance in _DEPTH_TOLERANCES:
        for candidate in map(tuple, candidates):
            if len(found) == count:
                return sorted(found)
            near = abs(sum(candidate) / len(candidate) - mean) <= tolerance
            gone = LayerPlan.of(block for block in range(n_layers) if block not in candidate)
            is_range = max(candidate) - min(candidate) + 1 == len(candidate)
            if near and not is_range and candidate not in found and gone not in taken:
                found.append(candidate)
    return sorted(found)


def _equally_deep(
    skipped: tuple[int, ...], n_layers: int, n_draws: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Sets of the same mean depth and with the same ends, by a walk that moves one inner block up
    and another down by as much."""
    ends = {block for block in (0, n_layers - 1) if block in skipped}
    inner = [block for block in skipped if block not in ends]
    found = []
    for _ in range(n_draws):
        for _ in range(len(inner)):
            up, down = rng.choice(len(inner), 2, replace=False)
            by = int(rng.integers(1, max(2, n_layers // 4)))
            moved = [*inner]
            moved[up], moved[down] = moved[up] + by, moved[down] - by
            if len(set(moved)) == len(moved) and min(moved) > 0 and max(moved) < n_layers - 1:
                inner = moved
        found.append(tuple(sorted((*ends, *inner))))
    return list(dict.fromkeys(found))
