"""Pairs as a model sees them: aligned tokens, answer tokens, and the places that can be patched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.models.tokens import TemplatePolicy, joined_answers
from interpflow.studies.counting.tokens import PromptTokens, tokenize_prompt
from interpflow.tasks.counting.lexicon import Lexicon
from interpflow.tasks.counting.prompts import CountingTemplate, answer_text, render

NEXT_WORDS = 5  # words after the swapped one that get a slot of their own in the map


@dataclass(frozen=True)
class PreparedPair:
    """A pair whose four lists take the same token positions in one model's tokenizer."""

    row: Mapping[str, Any]
    clean: PromptTokens
    corrupted: PromptTokens
    clean_control: PromptTokens | None
    corrupted_control: PromptTokens | None

    @property
    def position(self) -> int:
        return int(self.row["position"])


@dataclass(frozen=True)
class AnswerTokens:
    """First answer token of each count 0..max of one wording; all different from each other."""

    token_ids: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(range(len(self.token_ids)))


def answer_tokens(
    tokenizer: Any, prompt: str, template: CountingTemplate, max_count: int
) -> AnswerTokens:
    """Counts from 0 up that their first token tells apart.

    Where 10 begins with the token of 1, the counts end at 9: pairs beyond are left out.
    """
    ids = joined_answers(
        tokenizer, prompt, [answer_text(template, n) for n in range(max_count + 1)]
    )
    first = [continuation[0] for continuation in ids]
    n_distinct = next((n for n in range(len(first)) if first[n] in first[:n]), len(first))
    return AnswerTokens(tuple(first[:n_distinct]))


def prepare_pairs(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    lexicon: Lexicon,
    template: CountingTemplate,
    answers: AnswerTokens,
    chat_template: TemplatePolicy,
    n_wanted: int,
) -> tuple[list[PreparedPair], Counter[str]]:
    """The first `n_wanted` pairs whose tokens line up, and how many were refused for what."""
    prepared: list[PreparedPair] = []
    refused: Counter[str] = Counter()

    def tokens(category: str, words: Sequence[str]) -> PromptTokens | None:
        if not words:
            return None
        prompt = render(template, lexicon, category, tuple(words))
        return tokenize_prompt(tokenizer, prompt.text, prompt.word_spans, chat_template)

    for row in rows:
        if len(prepared) == n_wanted:
            break
        if max(row["clean_count"], row["corrupted_count"]) >= len(answers.token_ids):
            refused["the first answer token does not tell its count apart"] += 1
            continue
        lists = [
            tokens(row["category"], row[f"{name}_words"])
            for name in ("clean", "corrupted", "clean_control", "corrupted_control")
        ]
        clean, corrupted = lists[0], lists[1]
        assert clean is not None
        assert corrupted is not None
        if any(other is not None and not _aligned(clean, other) for other in lists[1:]):
            refused["words of the lists take different numbers of tokens"] += 1
            continue
        prepared.append(PreparedPair(row, clean, corrupted, lists[2], lists[3]))
    return prepared, refused


def _aligned(a: PromptTokens, b: PromptTokens) -> bool:
    return len(a.ids) == len(b.ids) and a.word_positions == b.word_positions


def tail_length(pair: PreparedPair) -> int:
    """Tokens after the last list word."""
    return len(pair.clean.ids) - 1 - pair.clean.word_positions[-1][-1]


def minimal_slots(pair: PreparedPair, n_tail: int) -> dict[str, list[int] | None]:
    """Named places of a minimal pair, in reading order; None where the pair has no such place.

    item: the swapped word; item+j: the j-th word after it; later_items: everything from there
    to the list's last word; tail-j: the j-th token from the end; answer: the last token.
    """
    words, p = pair.clean.word_positions, pair.position
    slots: dict[str, list[int] | None] = {"item": list(words[p])}
    for j in range(1, NEXT_WORDS + 1):
        slots[f"item+{j}"] = list(words[p + j]) if p + j < len(words) else None
    slots["later_items"] = list(range(words[p][-1] + 1, words[-1][-1] + 1)) or None
    last = pair.clean.answer_position
    for j in range(n_tail - 1, 0, -1):
        slots[f"tail-{j}"] = [last - j]
    slots["answer"] = [last]
    return slots


def prefix_slots(pair: PreparedPair, window: int) -> dict[str, list[int] | None]:
    """Named places of a prefix pair, k being the first word that both lists share.

    site: word k alone; window: words k to k+window−1; suffix: words k to the last, all that lies
    between them included; prefix: the words before k.
    """
    words, k = pair.clean.word_positions, pair.position
    end = min(k + window, len(words)) - 1
    return {
        "prefix": list(range(words[0][0], words[k - 1][-1] + 1)),
        "site": list(words[k]),
        "window": list(range(words[k][0], words[end][-1] + 1)),
        "suffix": list(range(words[k][0], words[-1][-1] + 1)),
    }
