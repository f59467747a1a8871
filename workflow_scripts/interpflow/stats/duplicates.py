"""Near-duplicates: Jaccard similarity, the components they form, exact or by MinHash candidates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpflow.errors import UserError

LIST_THRESHOLD = 0.8
TEXT_THRESHOLD = 0.7
SHINGLE_SIZE = 5
# Up to this many items every pair that shares an element is compared exactly.
MAX_EXACT_ITEMS = 5000
MINHASH_PERMUTATIONS = 256


@dataclass(frozen=True)
class Duplicates:
    """Components of the duplicate graph.

    `component` [items] holds the smallest item index of each item's component: keep components
    whole when splitting. `pairs` lists (i, j, similarity) with i < j. `n_empty` items had an empty
    set; two empty sets are equal by definition (J = 1).
    """

    component: NDArray[np.intp]
    pairs: tuple[tuple[int, int, float], ...]
    share_in_duplicates: float
    largest_component: int
    n_components: int
    n_empty: int
    exact: bool


def jaccard(first: Collection[Hashable], second: Collection[Hashable]) -> float:
    """|A ∩ B| / |A ∪ B| of two sets; 1 for two empty sets."""
    a, b = set(first), set(second)
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def shingles(tokens: Sequence[str], size: int = SHINGLE_SIZE) -> frozenset[tuple[str, ...]]:
    """Distinct runs of `size` tokens; the whole text when it is shorter."""
    if len(tokens) <= size:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def minhash_error(similarity: float, permutations: int = MINHASH_PERMUTATIONS) -> float:
    """Standard error √(J(1 − J)/k) of a MinHash estimate (Broder 1997)."""
    return (similarity * (1 - similarity) / permutations) ** 0.5


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """Chance that banding proposes a pair of this similarity: 1 − (1 − s^r)^b."""
    return 1 - (1 - similarity**rows) ** bands


def banding_threshold(bands: int, rows: int) -> float:
    """Similarity around which banding starts to propose pairs: (1/b)^(1/r)."""
    return (1 / bands) ** (1 / rows)


def _exact_pairs(
    sets: Sequence[frozenset[Any]], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Pairs at or above the threshold, counted through an inverted index."""
    holders: dict[Any, list[int]] = defaultdict(list)
    for j, items in enumerate(sets):
        shared: Counter[int] = Counter()
        for item in items:
            shared.update(holders[item])
            holders[item].append(j)
        for i, common in shared.items():
            similarity = common / (len(items) + len(sets[i]) - common)
            if similarity >= threshold:
                yield i, j, similarity


def _minhash_pairs(
    sets: Sequence[frozenset[Any]], threshold: float, seed: int
) -> Iterator[tuple[int, int, float]]:
    """Pairs proposed by banded MinHash and verified exactly."""
    from datasketch import MinHash, MinHashLSH

    # A missed duplicate is worse than a wasted comparison, so recall weighs more.
    index = MinHashLSH(threshold=threshold, num_perm=MINHASH_PERMUTATIONS, weights=(0.1, 0.9))
    for j, items in enumerate(sets):
        if not items:
            continue
        sketch = MinHash(num_perm=MINHASH_PERMUTATIONS, seed=seed % 2**32)
        sketch.update_batch([repr(item).encode() for item in sorted(items, key=repr)])
        for key in index.query(sketch):
            i = int(str(key))
            similarity = jaccard(sets[i], items)
            if similarity >= threshold:
                yield i, j, similarity
        index.insert(str(j), sketch)


def find_duplicates(
    items: Iterable[Iterable[Hashable]],
    *,
    threshold: float = LIST_THRESHOLD,
    seed: int = 1,
    max_exact: int = MAX_EXACT_ITEMS,
) -> Duplicates:
    """Components of items whose sets have Jaccard similarity ≥ `threshold`.

    `items`: the words of each list, or the `shingles` of each text. Exact up to `max_exact` items,
    beyond that MinHash candidates verified exactly. Raises UserError unless 0 < threshold ≤ 1.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"a similarity threshold must lie in (0, 1], got {threshold}")
    sets = [frozenset(item) for item in items]
    exact = len(sets) <= max_exact
    found = _exact_pairs(sets, threshold) if exact else _minhash_pairs(sets, threshold, seed)
    empty = [i for i, item in enumerate(sets) if not item]
    pairs = sorted([*found, *((empty[0], j, 1.0) for j in empty[1:])])
    parent = list(range(len(sets)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j, _ in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    component = np.array([root(i) for i in range(len(sets))], dtype=np.intp)
    sizes = np.bincount(component, minlength=len(sets)) if len(sets) else np.zeros(0, int)
    return Duplicates(
        component=component,
        pairs=tuple(pairs),
        share_in_duplicates=float(np.mean(sizes[component] >= 2)) if len(sets) else float("nan"),
        largest_component=int(sizes.max()) if len(sets) else 0,
        n_components=int(np.sum(sizes > 0)),
        n_empty=len(empty),
        exact=exact,
    )
