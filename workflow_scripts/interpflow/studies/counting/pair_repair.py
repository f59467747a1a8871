"""Pairs made to line up in a tokenizer: a word of another width gives way to one that fits."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from interpflow.config.identity import content_hash
from interpflow.studies.counting.word_widths import WordWidths
from interpflow.tasks.counting.check import check_pair
from interpflow.tasks.counting.lexicon import Lexicon

OTHER_LISTS = ("corrupted", "clean_control", "corrupted_control")
UNKNOWN_WORD = "a word is not in the word lists, or has several senses"
NO_MEMBER = "no unused member takes as many tokens as the clean list's word"
NO_NON_MEMBER = "no unused non-member takes as many tokens as the clean list's word"


def repair_pair(
    row: Mapping[str, Any], lexicon: Lexicon, widths: WordWidths
) -> tuple[dict[str, Any] | None, str]:
    """The pair with every word of another width than the clean list's word there replaced.

    The replacement is an unused unambiguous word of the same membership and of the clean word's
    width; one of the same frequency band and spelling length comes first. Which of several is
    decided by the pair's id alone. The clean list, the family and all shared words stay; the
    pair's id is new, from the four lists. Returns (row, "") or (None, reason).
    """
    clean, length = list(row["clean_words"]), len(row["clean_words"])
    lists = {name: list(row[f"{name}_words"]) for name in OTHER_LISTS}
    everything = [word for words in (clean, *lists.values()) for word in words]
    if any(widths.of(word, 0, length) is None for word in everything):
        return None, UNKNOWN_WORD
    misfits = [
        (name, slot)
        for name, words in lists.items()
        for slot, word in enumerate(words)
        if widths.of(word, slot, length) != widths.of(clean[slot], slot, length)
    ]
    reason = _replace(row, clean, lists, misfits, lexicon, widths)
    if reason:
        return None, reason
    repaired = {**row, **{f"{name}_words": words for name, words in lists.items()}}
    contents = [row[key] for key in ("kind", "category", "template_id")]
    repaired["pair_id"] = content_hash([*contents, clean, *lists.values()])
    reason = check_pair(repaired, lexicon)
    return (None, reason) if reason else (repaired, "")


def _replace(
    row: Mapping[str, Any],
    clean: list[str],
    lists: dict[str, list[str]],
    misfits: list[tuple[str, int]],
    lexicon: Lexicon,
    widths: WordWidths,
) -> str:
    """Replace the misfits (list, slot) in `lists`; the reason if one cannot be replaced."""
    rng = random.Random(row["pair_id"])

    def is_member(word: str) -> bool:
        return row["category"] in lexicon.categories_of(word)

    fitting = {
        (name, slot): [
            word
            for word in widths.words_like(clean[slot], slot, len(clean))
            if is_member(word) == is_member(lists[name][slot])
        ]
        for name, slot in misfits
    }
    # A word that gives way is free again for another slot.
    used = set(clean) | {
        word
        for name, words in lists.items()
        for slot, word in enumerate(words)
        if (name, slot) not in fitting
    }
    # The slots with the fewest words to choose from choose first.
    for (name, slot), words in sorted(fitting.items(), key=lambda item: len(item[1])):
        free = [word for word in words if word not in used]
        if not free:
            return NO_MEMBER if is_member(lists[name][slot]) else NO_NON_MEMBER
        lists[name][slot] = _closest(free, clean[slot], lexicon, rng)
        used.add(lists[name][slot])
    return ""


def _closest(free: list[str], model: str, lexicon: Lexicon, rng: random.Random) -> str:
    """A free word like the model: first in band and spelling length (±1), then in band."""
    band = lexicon.frequency_band(model)
    in_band = [word for word in free if lexicon.frequency_band(word) == band]
    alike = [word for word in in_band if abs(len(word) - len(model)) <= 1]
    return rng.choice(alike or in_band or free)
