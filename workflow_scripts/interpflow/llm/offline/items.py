"""Fields of the items that the algorithms read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from interpflow.errors import UserError
from interpflow.tasks.counting.lexicon import Lexicon, load_lexicon

# (item, sample) -> answer: text, or what a schema asks for. The same for the same two.
Algorithm = Callable[[Mapping[str, Any], int], Any]


def field(item: Mapping[str, Any], name: str) -> Any:
    """A field that the task needs; raises UserError where the item lacks it."""
    if name not in item:
        raise UserError(
            f"the item of the task {item.get('task')!r} has no {name!r}", where="Ask.item"
        )
    return item[name]


def lexicon_of(item: Mapping[str, Any]) -> Lexicon:
    """The word lists that the item names by directory ("lexicon"), else the project's own."""
    return _lexicon(item.get("lexicon"))


@cache
def _lexicon(directory: str | None) -> Lexicon:
    return load_lexicon(Path(directory) if directory else None)
