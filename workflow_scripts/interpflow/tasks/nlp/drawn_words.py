"""The words that drawn items are made of, from resources/tasks/words.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR

WORDS_PATH = RESOURCES_DIR / "tasks" / "words.yaml"


@dataclass(frozen=True)
class DrawnWords:
    """nouns: for lists and patterns. keys and values: of JSON objects; a key without values has
    whole numbers. lists, scalars, modules, functions: names in lines of Python."""

    nouns: tuple[str, ...]
    keys: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    lists: tuple[str, ...]
    scalars: tuple[str, ...]
    modules: tuple[str, ...]
    functions: tuple[str, ...]


@cache
def load_words(path: Path = WORDS_PATH) -> DrawnWords:
    """Read the words; raises UserError naming the file when some are missing."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        values = {key: tuple(words) for key, words in raw.pop("values").items()}
        return DrawnWords(values=values, **{name: tuple(words) for name, words in raw.items()})
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"task words cannot be read: {error!r}", where=str(path)) from error
