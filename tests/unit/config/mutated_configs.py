"""Configs with one or two mistakes that a person could make, drawn by seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

WRONG_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3.5, -0.5, 10**9, "", "many", "parentheses", [], ["x"], [1, 2],
    [None], {}, {"min": 3}, {"min": 9, "max": 2}, {"min": -1, "max": 4}, {"x": 1}, {1: 2},
    float("nan"), float("inf"), "../..", "a\nb", [[]], [{}],
)  # fmt: skip
UNKNOWN_NAMES = ("large", "haiku", "dragon", "no/such/place")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every setting and section of a config."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (*path, index)
            yield from places(item, (*path, index))


def at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def misspelt(key: str, draw: random.Random) -> str:
    """The key with one letter left out, doubled or exchanged."""
    place = draw.randrange(len(key))
    kind = draw.randrange(3)
    if kind == 0 and len(key) > 1:
        return key[:place] + key[place + 1 :]
    return key[:place] + (key[place] * 2 if kind == 1 else "x") + key[place + 1 :]


def mutated(config: dict[str, Any], seed: int) -> tuple[Any, list[str]]:
    """A config with one or two mistakes, and what was done to it."""
    draw = random.Random(seed)
    found: Any = deepcopy(config)
    done: list[str] = []
    for _ in range(draw.choice((1, 1, 2))):
        paths = list(places(found))
        if not paths:
            break
        path = draw.choice(paths)
        holder, key = at(found, path[:-1]), path[-1]
        kind = draw.choice(("value", "value", "value", "key", "removed", "name", "extra", "list"))
        if kind == "value":
            holder[key] = draw.choice(WRONG_VALUES)
        elif kind == "key" and isinstance(key, str) and key:
            holder[misspelt(key, draw)] = holder.pop(key)
        elif kind == "removed":
            del holder[key]
        elif kind == "name":
            holder[key] = draw.choice(UNKNOWN_NAMES)
        elif kind == "list":
            holder[key] = [holder[key]]
        elif isinstance(holder, dict):
            holder["surprise"] = draw.choice(WRONG_VALUES)
        done.append(f"{kind} at {'.'.join(map(str, path))}")
    if draw.random() < 0.02:
        found = draw.choice((None, [], "config", 3))
        done.append("not a mapping")
    return found, done
