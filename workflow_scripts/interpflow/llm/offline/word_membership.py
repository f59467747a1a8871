"""The validator of memberships: what the lexicon says of a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interpflow.llm.offline.items import field, lexicon_of
from interpflow.tasks.counting.labelled_lists import normal_form
from interpflow.tasks.counting.membership import Membership, lexicon_verdict


def word_membership(item: Mapping[str, Any], sample: int) -> Membership:
    """Is item["word"] in item["category"]? Unclear where the lexicon does not know either."""
    lexicon, category = lexicon_of(item), str(field(item, "category"))
    if category not in lexicon.categories:
        return "unclear"
    word = lexicon.spelling_of(normal_form(str(field(item, "word"))))
    return lexicon_verdict(word, category, lexicon) or "unclear"
