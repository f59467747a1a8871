"""What stories are made of: people, places, things, animals, weathers, problems and endings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR

STORIES_PATH = RESOURCES_DIR / "tasks" / "stories.yaml"


@dataclass(frozen=True)
class Place:
    """A place: its name, where one is, where one goes, and what can be seen there."""

    name: str
    at: str
    to: str
    seen: tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """A thing, what one wants it for, what one did with it, and where it is kept."""

    name: str
    use: str
    using: str
    kept: str


@dataclass(frozen=True)
class Animal:
    """An animal, the sound that it made and what it likes to eat."""

    name: str
    sound: str
    food: str


@dataclass(frozen=True)
class Problem:
    """Something that happens to the thing and what is done about it; the mood of the end.

    not_for: things to which it cannot happen.
    """

    id: str
    mood: str
    told: tuple[str, ...]
    remedy: tuple[str, ...]
    not_for: frozenset[str]


@dataclass(frozen=True)
class StoryMaterial:
    """names: (name, "she" or "he"); weathers: (weather, what one wears); endings: by mood."""

    names: tuple[tuple[str, str], ...]
    colors: tuple[str, ...]
    places: tuple[Place, ...]
    things: tuple[Thing, ...]
    animals: tuple[Animal, ...]
    weathers: tuple[tuple[str, str], ...]
    beginnings: tuple[str, ...]
    problems: tuple[Problem, ...]
    endings: Mapping[str, tuple[str, ...]]


@cache
def load_material(path: Path = STORIES_PATH) -> StoryMaterial:
    """Read the pieces; raises UserError naming the file when one is missing."""
    try:
        # Text alone: "no" and "on" must stay words.
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        return StoryMaterial(
            names=tuple(raw["names"].items()),
            colors=tuple(raw["colors"]),
            places=tuple(Place(**{**each, "seen": tuple(each["seen"])}) for each in raw["places"]),
            things=tuple(Thing(**each) for each in raw["things"]),
            animals=tuple(Animal(**each) for each in raw["animals"]),
            weathers=tuple(raw["weathers"].items()),
            beginnings=tuple(raw["beginnings"]),
            problems=tuple(
                Problem(
                    each["id"], each["mood"], tuple(each["told"]), tuple(each["remedy"]),
                    frozenset(each["not_for"]),
                )
                for each in raw["problems"]
            ),
            endings={mood: tuple(texts) for mood, texts in raw["endings"].items()},
        )  # fmt: skip
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"story material cannot be read: {error!r}", where=str(path)) from error
