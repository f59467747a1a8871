"""Growing a circuit greedily: in every round the part is added that helps most, all candidates
measured exactly beside what is already there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from interpflow.engine.circuits.circuit import (
    CircuitValues,
    evaluate_edge_circuits,
    evaluate_node_circuits,
)
from interpflow.engine.circuits.edges import Edge
from interpflow.engine.circuits.pair_batches import Prompts
from interpflow.engine.metrics import Metric
from interpflow.engine.model import Model
from interpflow.engine.sites import Site
from interpflow.errors import UserError

AIMS = ("larger", "full")

Part = TypeVar("Part", Site, Edge)
Evaluate = Callable[[Sequence[frozenset]], CircuitValues]


def grow_node_circuit(
    model: Model,
    clean_ids: Prompts,
    corrupted_ids: Prompts,
    metric: Metric,
    candidates: Sequence[Site],
    *,
    budget: int,
    start: Sequence[Site] = (Site("embed"),),
    aim: str = "larger",
    name: str | None = None,
    replacement: str = "donor",
) -> Growth[Site]:
    """Grow a circuit of sites; see `grow` and `evaluate_node_circuits`."""

    def evaluate(circuits: Sequence[frozenset]) -> CircuitValues:
        return evaluate_node_circuits(
            model, clean_ids, corrupted_ids, metric, circuits, name=name, replacement=replacement
        )

    return grow(evaluate, candidates, budget=budget, start=start, aim=aim)


def grow_edge_circuit(
    model: Model,
    clean_ids: Prompts,
    corrupted_ids: Prompts,
    metric: Metric,
    candidates: Sequence[Edge],
    *,
    budget: int,
    start: Sequence[Edge] = (),
    aim: str = "larger",
    name: str | None = None,
    replacement: str = "donor",
) -> Growth[Edge]:
    """Grow a circuit of edges; see `grow` and `evaluate_edge_circuits`. Candidates are best the top
    edges of an attribution: a round costs one pass per candidate and pair."""

    def evaluate(circuits: Sequence[frozenset]) -> CircuitValues:
        return evaluate_edge_circuits(
            model, clean_ids, corrupted_ids, metric, circuits, name=name, replacement=replacement
        )

    return grow(evaluate, candidates, budget=budget, start=start, aim=aim)


def grow(
    evaluate: Evaluate,
    candidates: Sequence[Part],
    *,
    budget: int,
    start: Sequence[Part] = (),
    aim: str = "larger",
) -> Growth[Part]:
    """Add `budget` parts to the circuit `start`, one per round, each the best of all that are left
    when added to what is there. Ties go to the first candidate.

    aim: "larger" makes the mean metric over pairs as large as possible (for CPR); "full" brings it
    as near as possible to that of the full circuit (for CMD).
    """
    if aim not in AIMS:
        raise UserError(f"there is no aim {aim!r}", remedy=f"use one of {', '.join(AIMS)}")
    left = [part for part in dict.fromkeys(candidates) if part not in start]
    if not 0 <= budget <= len(left):
        raise UserError(
            f"a budget of {budget} for {len(left)} candidates",
            where="budget",
            remedy="give at most as many as there are candidates outside the start",
        )
    kept = frozenset(start)
    first = evaluate([kept])
    values = [first.circuit[:, 0]]
    order: list[Part] = []
    for _ in range(budget):
        found = evaluate([kept | {part} for part in left]).circuit
        means = found.mean(axis=0)
        worth = means if aim == "larger" else -np.abs(means - first.full.mean())
        best = int(np.argmax(worth))
        order.append(left.pop(best))
        kept |= {order[-1]}
        values.append(found[:, best])
    return Growth(tuple(start), tuple(order), np.stack(values, axis=1), first.full, first.empty)


@dataclass(frozen=True, eq=False)
class Growth(Generic[Part]):
    """A circuit as it grew: parts in the order in which they were added to `start`.

    values: metric after each addition, float64 [pair, 1 + additions], `start` alone first; full,
    empty: those of the full and the empty circuit, [pair].
    """

    start: tuple[Part, ...]
    order: tuple[Part, ...]
    values: np.ndarray
    full: np.ndarray
    empty: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """What each addition changed, [pair, addition]."""
        return np.diff(self.values, axis=1)
