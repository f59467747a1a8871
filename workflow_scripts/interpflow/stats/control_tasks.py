"""Control tasks for a probe: random values by word type, running counts of random word sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError

# Random sets against which the real category is ranked: the smallest p is 1/21.
DEFAULT_CONTROL_SETS = 20


def word_type_controls(
    word_types: Sequence[Hashable],
    target: ArrayLike,
    *,
    n_sets: int = DEFAULT_CONTROL_SETS,
    seed: int,
) -> NDArray[Any]:
    """Targets of control tasks [rows, sets]: a random value for every word type, always the same.

    Can be learned from the identity of the word alone (Hewitt & Liang 2019). In each set the types
    are laid end to end in random order, each as long as its number of rows, and take the value of
    the sorted `target` [rows] at their middle: drawn freely, a few frequent types would give a
    control other shares of the labels than the task's, and a majority easier to guess.
    `word_types` [rows]. For targets that grow along a list `draw_half_sets` is the fairer control.
    Raises UserError for misfitting lengths.
    """
    values = np.sort(np.asarray(target), kind="stable")
    if len(word_types) != len(values):
        raise UserError(f"{len(word_types)} word types for {len(values)} targets")
    names = np.asarray([str(word) for word in word_types])
    _, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = np.empty((len(counts), n_sets), dtype=values.dtype)
    for index in range(n_sets):
        order = rng.permutation(len(counts))
        ends = np.cumsum(counts[order])
        drawn[order, index] = values[ends - (counts[order] + 1) // 2]
    return drawn[codes.reshape(-1)]


def draw_control_sets(
    categories: Mapping[str, Collection[str]],
    bands: Mapping[str, str],
    *,
    n_sets: int = DEFAULT_CONTROL_SETS,
    seed: int,
) -> tuple[dict[str, frozenset[str]], ...]:
    """For each category, `n_sets` random word sets of its size and frequency profile.

    `categories` maps a category to its words, `bands` every word that may be drawn to its
    frequency band. The running count of such a set keeps the growth and autocorrelation of the
    real one, and means nothing (Hewitt & Liang 2019). Raises UserError for a word without a band.
    """
    vocabulary: dict[str, list[str]] = defaultdict(list)
    for word in sorted(bands):
        vocabulary[bands[word]].append(word)
    rng = np.random.default_rng(seed)
    sets: list[dict[str, frozenset[str]]] = [{} for _ in range(n_sets)]
    for category in sorted(categories):
        profile: dict[str, int] = defaultdict(int)
        for word in categories[category]:
            if word not in bands:
                raise UserError(
                    f"{word!r} of category {category!r} has no frequency band", where="bands"
                )
            profile[bands[word]] += 1
        for chosen in sets:
            drawn: list[str] = []
            for band, size in sorted(profile.items()):
                picks = rng.choice(len(vocabulary[band]), size=size, replace=False)
                drawn.extend(vocabulary[band][int(pick)] for pick in picks)
            chosen[category] = frozenset(drawn)
    return tuple(sets)


def draw_half_sets(
    members: Mapping[str, Collection[str]],
    others: Mapping[str, Collection[str]],
    *,
    n_sets: int = DEFAULT_CONTROL_SETS,
    seed: int,
) -> tuple[dict[str, frozenset[str]], ...]:
    """For each category, `n_sets` sets of half of its members and half of the other words.

    On lists with as many members as others, such a set occurs as often as the category and its
    running count grows alike, but given the position it is uncorrelated with the real one: a
    control task of equal profile (Hewitt & Liang 2019) where sets drawn from the whole vocabulary
    would hardly occur. `members`, `others`: category → words of its lists.
    """
    rng = np.random.default_rng(seed)
    sets: list[dict[str, frozenset[str]]] = [{} for _ in range(n_sets)]
    for category in sorted(members):
        halves = [sorted(members[category]), sorted(others[category])]
        for chosen in sets:
            drawn: list[str] = []
            for words in halves:
                picks = rng.choice(len(words), size=len(words) // 2, replace=False)
                drawn.extend(words[int(pick)] for pick in picks)
            chosen[category] = frozenset(drawn)
    return tuple(sets)


def running_counts(
    words: Sequence[str],
    categories: Sequence[str],
    list_ids: Sequence[object],
    positions: Sequence[int],
    word_sets: Sequence[Mapping[str, Collection[str]]],
) -> NDArray[np.float64]:
    """Running count at each row, for each assignment of words to categories: [rows, sets].

    A row is one word of one list: `words`, the `categories` its list asks for, `list_ids`, and its
    `positions` in the list. All words of a list must be among the rows.
    Raises UserError when the positions of a list are not consecutive.
    """
    ids = np.unique(np.asarray([str(i) for i in list_ids]), return_inverse=True)[1]
    place = np.asarray(positions)
    order = np.lexsort((place, ids))
    starts = np.flatnonzero(np.r_[True, np.diff(ids[order]) != 0])
    steps = np.diff(place[order])
    inside = np.diff(ids[order]) == 0
    if np.any(steps[inside] != 1):
        raise UserError("positions inside a list are not consecutive", where="positions")
    member = np.array(
        [
            [word in chosen[category] for chosen in word_sets]
            for word, category in zip(words, categories, strict=True)
        ],
        dtype=np.float64,
    )[order]
    total = np.cumsum(member, axis=0)
    before = np.vstack([np.zeros((1, len(word_sets))), total])[starts]
    lengths = np.diff(np.r_[starts, len(order)])
    counts = np.empty_like(total)
    counts[order] = total - np.repeat(before, lengths, axis=0)
    return counts
