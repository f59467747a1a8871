"""The generator of labelled lists: words drawn from the lexicon, each with its own category."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from typing import Any

from interpflow.config.identity import derived_seed
from interpflow.errors import UserError
from interpflow.llm.offline.items import field, lexicon_of
from interpflow.tasks.counting.labelled_lists import normal_form
from interpflow.tasks.counting.lexicon import OUTSIDE, Lexicon

# Category of a word of which the lexicon knows only that it is no member.
OTHER = "other"


def template_lists(item: Mapping[str, Any], sample: int) -> dict[str, Any]:
    """Lists of item["lists"] (each {"length", "count"}), as `LISTS_SCHEMA` wants them.

    Words of item["avoid"] are not used where others suffice; a word comes twice in a call only when
    the lexicon has too few. Raises UserError for an unknown category, and where a list needs more
    words than it has.
    """
    lexicon, category = lexicon_of(item), str(field(item, "category"))
    if category not in lexicon.categories:
        raise UserError(
            f"the lexicon has no category {category!r}",
            where="llm.roles.generator",
            remedy="the offline generator writes lists of the lexicon's categories only",
        )
    rng = random.Random(derived_seed(int(item.get("seed", 0)), "template_lists", category, sample))
    avoided = {normal_form(word) for word in item.get("avoid", ())}
    shapes = field(item, "lists")
    most_members = max((shape["count"] for shape in shapes), default=0)
    most_others = max((shape["length"] - shape["count"] for shape in shapes), default=0)
    members = _deck(lexicon.members(category), avoided, most_members, rng)
    others = _deck(lexicon.non_members(category), avoided, most_others, rng)
    lists = []
    for shape in shapes:
        count, rest = shape["count"], shape["length"] - shape["count"]
        drawn = [(word, True) for word in members.draw(count)]
        drawn += [(word, False) for word in others.draw(rest)]
        rng.shuffle(drawn)
        lists.append({"words": [_labelled(*entry, category, lexicon) for entry in drawn]})
    return {"lists": lists}


def _deck(words: Sequence[str], avoided: Set[str], needed: int, rng: random.Random) -> _Deck:
    """A deck without the words to avoid, but for those that the longest list needs."""
    kept = [word for word in words if normal_form(word) not in avoided]
    worn = [word for word in words if normal_form(word) in avoided]
    return _Deck(kept + worn[: max(needed - len(kept), 0)], rng)


class _Deck:
    """Words in random order, all of them dealt before any comes again."""

    def __init__(self, words: Sequence[str], rng: random.Random) -> None:
        self.words, self.rng = words, rng
        self.left: list[str] = []

    def draw(self, n: int) -> list[str]:
        """`n` different words."""
        if n > len(self.words):
            raise UserError(
                f"a list needs {n} words of a kind of which the lexicon has {len(self.words)}",
                where="counting.data.lengths",
                remedy="ask for shorter lists, or give the category more words",
            )
        drawn = self.left[:n]
        self.left = self.left[n:]
        if len(drawn) < n:
            again = [word for word in self.words if word not in drawn]
            self.rng.shuffle(again)
            drawn, self.left = drawn + again[: n - len(drawn)], again[n - len(drawn) :]
        return drawn


def _labelled(word: str, is_member: bool, category: str, lexicon: Lexicon) -> dict[str, Any]:
    own = sorted(lexicon.categories_of(word) - {OUTSIDE})
    named = category if is_member else (own[0] if own else OTHER)
    return {"word": word, "category": named, "is_member": is_member}
