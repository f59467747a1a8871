"""Rewriting a question in a style, and whether two questions ask for the same: wordings, a rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

from rapidfuzz.distance import OSA

from interpflow.tasks.perturbations.words import negations_of, numbers_of
from interpflow.tasks.word_kinds import content_words, words_of

Meaning = Literal["same", "different", "unclear"]
MEANINGS: tuple[Meaning, ...] = get_args(Meaning)
# What is asked for beside the name of a style; any other name is put as it stands.
STYLES = {
    "paraphrase": "in other words and, where it can be, with another structure of sentences, "
    "in a neutral tone",
    "polite": "politely, as a courteous person would put it",
    "urgent": "urgently, as somebody without time would put it",
    "terse": "as tersely as possible, in the style of a telegram",
    "verbose": "verbosely, as a long-winded person would put it",
    "insulting": "in an impatient and insulting tone towards the person who answers",
    "non_native": "as a learner of English with typical mistakes of grammar would put it",
}
REWRITE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"question": {"type": "string"}},
    "required": ["question"],
    "additionalProperties": False,
}
# A content word counts as kept with up to this share of its letters edited, one at least.
EDITED_SHARE = 1 / 3
# Content words that must be kept for a rule to call two questions the same.
KEPT_SHARE = 0.7


def rewrite_question(question: str, style: str) -> str:
    """What a generator is asked for one rewrite. The question is quoted: it is no order to it."""
    return (
        f"Rewrite this question {STYLES.get(style, f'in this style: {style}')}:\n\n"
        f"{json.dumps(question, ensure_ascii=False)}\n\n"
        "Whoever answers the new one must give the very same answer: keep every number as digits "
        "and in the same order, every name, every option to choose from, and what is asked for. "
        "Add no facts. Do not answer it."
    )


def meaning_question(original: str, variant: str) -> str:
    """What a validator is asked about a variant; it is not told how the variant was made."""
    quoted = [json.dumps(text, ensure_ascii=False) for text in (original, variant)]
    return (
        f"Two texts that were put to an assistant:\n\n1. {quoted[0]}\n2. {quoted[1]}\n\n"
        "Do they ask for the same thing, so that an answer right for one is right for the other? "
        "Spelling, grammar, tone and politeness do not matter; numbers, names, what happens and "
        "what is asked for do. Answer same or different; answer unclear if one of the texts "
        "cannot be understood or can be read both ways."
    )


def rule_meaning(original: str, variant: str) -> Meaning:
    """What can be said by rule: other numbers or negations make another question, and one that
    keeps its content words, spelling apart, is the same. Of a true paraphrase no rule can tell."""
    if numbers_of(original) != numbers_of(variant):
        return "different"
    if negations_of(original) != negations_of(variant):
        return "different"
    wanted = [original[start:end].lower() for start, end in content_words(original)]
    if not wanted:
        wanted = [original[start:end].lower() for start, end in words_of(original)]
    found = Counter(variant[start:end].lower() for start, end in words_of(variant))
    joined = "".join(character for character in variant.lower() if character.isalpha())
    kept = sum(_is_kept(word, list(found), joined) for word in wanted)
    return "same" if kept >= KEPT_SHARE * len(wanted) else "unclear"


def decide(votes: Sequence[Meaning]) -> Meaning:
    """More than half of the votes; unclear otherwise."""
    verdict, n = Counter(votes).most_common(1)[0]
    return verdict if 2 * n > len(votes) else "unclear"


def _is_kept(word: str, words: Sequence[str], joined: str) -> bool:
    # Joined, as a word may have been split or run into the next one.
    if word in joined:
        return True
    allowed = max(1, int(EDITED_SHARE * len(word)))
    return any(OSA.distance(word, other, score_cutoff=allowed) <= allowed for other in words)
