"""What the counting study asks of language models: lists of labelled words, and memberships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interpflow.llm.answers import Answer
from interpflow.llm.asks import Ask, Turn
from interpflow.tasks.counting.labelled_lists import LISTS_SCHEMA, Shape, lists_question
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.membership import MEMBERSHIPS, Membership, membership_question

# Tokens of one labelled word as JSON, generously, and of what surrounds a list.
TOKENS_PER_WORD, TOKENS_PER_LIST = 40, 40
MEMBERSHIP_TOKENS = 64
JUDGE_SYSTEM = (
    "You judge whether words belong to categories, strictly by their everyday meaning. "
    "A word that merely relates to a category does not belong to it."
)


def answer_tokens(shapes: Sequence[Shape]) -> int:
    """Tokens that an answer with these lists may take."""
    words = sum(length for length, _ in shapes)
    return 256 + TOKENS_PER_LIST * len(shapes) + TOKENS_PER_WORD * words


def lists_ask(
    category: str,
    shapes: Sequence[Shape],
    lexicon: Lexicon,
    *,
    avoid: Sequence[str],
    sample: int,
    ask_id: str,
    seed: int,
    lexicon_path: str | None = None,
) -> Ask:
    """Ask for one list per shape. `sample` tells rounds apart, so that equal asks are new draws."""
    return Ask(
        id=ask_id,
        turns=(Turn("user", lists_question(category, lexicon.plural(category), shapes, avoid)),),
        schema=LISTS_SCHEMA,
        max_tokens=answer_tokens(shapes),
        sample=sample,
        item={
            "task": "counting_lists",
            "category": category,
            "lists": [{"length": length, "count": count} for length, count in shapes],
            "seed": seed,
            "avoid": list(avoid),
            "lexicon": lexicon_path,
        },
    )


def membership_ask(
    word: str, category: str, lexicon: Lexicon, lexicon_path: str | None = None
) -> Ask:
    """Ask whether a word belongs to a category; its id is "category: word"."""
    return Ask(
        id=f"{category}: {word}",
        system=JUDGE_SYSTEM,
        turns=(Turn("user", membership_question(word, category, lexicon.plural(category))),),
        choices=MEMBERSHIPS,
        max_tokens=MEMBERSHIP_TOKENS,
        item={
            "task": "membership",
            "word": word,
            "category": category,
            "lexicon": lexicon_path,
        },
    )


def lists_of(answer: Answer) -> Mapping[str, Any] | None:
    """The written lists; null for a refusal and for an answer cut off."""
    return answer.data if answer.outcome == "ok" else None


def membership_of(answer: Answer) -> Membership:
    """The verdict; a refusal or an answer cut off is no verdict, so unclear."""
    return answer.data if answer.outcome == "ok" else "unclear"
