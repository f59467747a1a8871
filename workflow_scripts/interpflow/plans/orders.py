"""Orders of a model's blocks: how far from their own places they are, and draws by distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, permutations
from math import factorial, log

import numpy as np

from interpflow.errors import UserError
from interpflow.plans.layer_plan import LayerPlan

# Distances are drawn evenly over this many bins.
N_BINS = 10
# Orders of so few blocks are listed rather than drawn: 7! = 5040.
MAX_LISTED = 7
# Draws from a bin that give an order already known, before the bin counts as used up.
_MAX_MISSES = 400


@dataclass(frozen=True)
class OrderFacts:
    """distance: pairs of blocks in the wrong order (Kendall). displacement: places that the block
    that moved furthest moved by. moves_first, moves_last: whether the first, the last block is not
    at its own place."""

    distance: int
    displacement: int
    moves_first: bool
    moves_last: bool


def inversions(order: Sequence[int]) -> int:
    """Pairs of an order in which the larger one comes first: Kendall's distance to the identity."""
    values = np.asarray(order, dtype=np.int64)
    return int(np.triu(values[:, None] > values[None, :], k=1).sum())


def order_facts(plan: LayerPlan, n_layers: int) -> OrderFacts | None:
    """How far a plan's blocks are from their places; None unless it is an order of all blocks."""
    order = plan.blocks
    plain = all(step.is_plain for step in plan.steps)
    if not plain or not order or sorted(order) != list(range(n_layers)):
        return None
    return OrderFacts(
        distance=inversions(order),
        displacement=max(abs(place - block) for place, block in enumerate(order)),
        moves_first=order[0] != 0,
        moves_last=order[-1] != n_layers - 1,
    )


def mallows_mean_distance(n: int, phi: float) -> float:
    """Expected Kendall distance of an order of `n` items from Mallows' law with dispersion phi."""
    return sum(float(np.arange(size) @ _weights(size, phi)) for size in range(1, n + 1))


def mallows_order(n: int, phi: float, rng: np.random.Generator) -> tuple[int, ...]:
    """An order of 0…n−1 drawn with probability ∝ phi^distance, by repeated insertion (Doignon et
    al. 2004): item i is put j places before the end with probability ∝ phi^j.

    phi 0 is the identity, 1 the uniform law, above 1 nearer to the reverse. Raises UserError for a
    negative phi.
    """
    if phi < 0:
        raise UserError(f"the dispersion of Mallows' law is negative: {phi}", where="phi")
    order: list[int] = []
    draws = rng.random(n)
    for item, below in enumerate(_cumulative(n, phi)):
        back = min(int(np.searchsorted(below, draws[item], side="right")), item)
        order.insert(item - back, item)
    return tuple(order)


def orders_by_distance(
    n: int, count: int, rng: np.random.Generator, known: Iterable[Sequence[int]] = ()
) -> list[tuple[int, ...]]:
    """At most `count` distinct orders of 0…n−1, spread evenly over bins of Kendall's distance.

    Uniform orders gather around n(n−1)/4 and hardly ever come near the identity or the reverse, so
    each bin is filled by itself. Neither the identity nor an order in `known` is among them; fewer
    than `count` when there are no more. In the order of their bins.
    """
    largest = n * (n - 1) // 2
    n_bins = min(N_BINS, largest)
    if n < 2 or count < 1:
        return []
    edges = np.linspace(0.5, largest + 0.5, n_bins + 1)
    seen = {tuple(order) for order in known} | {tuple(range(n))}
    room = min(count, factorial(n) - sum(len(order) == n for order in seen))
    bins: list[list[tuple[int, ...]]] = [[] for _ in range(n_bins)]
    draw = _listed(n, edges, seen, rng) if n <= MAX_LISTED else _drawn(n, edges, seen, rng)
    used_up = [False] * n_bins
    while sum(map(len, bins)) < room and not all(used_up):
        for place in range(n_bins):
            if used_up[place] or sum(map(len, bins)) == room:
                continue
            order = draw(place)
            if order is None:
                used_up[place] = True
            else:
                bins[place].append(order)
    return [order for members in bins for order in members]


def _weights(size: int, phi: float) -> np.ndarray:
    """Probabilities [size] ∝ phi^j, without overflow for phi above 1."""
    if phi == 0:
        return np.eye(1, size)[0]
    powers = np.arange(size) * log(phi)
    weights = np.exp(powers - powers.max())
    return weights / weights.sum()


@lru_cache(maxsize=64)
def _cumulative(n: int, phi: float) -> tuple[np.ndarray, ...]:
    """For each item, the chances of being put at most j places before the end."""
    return tuple(np.cumsum(_weights(item + 1, phi)) for item in range(n))


def _listed(n: int, edges: np.ndarray, seen: set[tuple[int, ...]], rng: np.random.Generator):
    """Draws without replacement from the list of all orders, by bin."""
    bins: list[list[tuple[int, ...]]] = [[] for _ in range(len(edges) - 1)]
    for order in permutations(range(n)):
        if order not in seen:
            bins[int(np.searchsorted(edges, inversions(order))) - 1].append(order)
    for members in bins:
        rng.shuffle(members)

    def draw(place: int) -> tuple[int, ...] | None:
        return tuple(bins[place].pop()) if bins[place] else None

    return draw


def _drawn(n: int, edges: np.ndarray, seen: set[tuple[int, ...]], rng: np.random.Generator):
    """Draws from Mallows' law with its mean in the middle of the bin, until one falls into it."""
    phis = [_phi_for(n, (low + high) / 2) for low, high in pairwise(edges)]

    def draw(place: int) -> tuple[int, ...] | None:
        for _ in range(_MAX_MISSES):
            order = mallows_order(n, phis[place], rng)
            if order not in seen and edges[place] < inversions(order) <= edges[place + 1]:
                seen.add(order)
                return order
        return None

    return draw


def _phi_for(n: int, distance: float) -> float:
    """The dispersion whose mean distance is `distance`, by bisection on its logarithm."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        if mallows_mean_distance(n, float(np.exp(middle))) < distance:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))
