"""Counting prompts as a model's tokens, each list word with the positions it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interpflow.models.tokens import TemplatePolicy, apply_template, encode, span_tokens


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as given to the model.

    `word_positions[k]` are the token positions of list word k; the answer is read at the last
    position. `texts` are the tokens' own texts, for figures.
    """

    text: str
    ids: tuple[int, ...]
    word_positions: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]

    @property
    def answer_position(self) -> int:
        return len(self.ids) - 1


def tokenize_prompt(
    tokenizer: Any, text: str, word_spans: Sequence[tuple[int, int]], chat_template: TemplatePolicy
) -> PromptTokens:
    """Tokenize a prompt (in the chat template when asked and there is one: one BOS exactly)."""
    templated = apply_template(tokenizer, text, chat_template)
    encoded = encode(tokenizer, templated.text)
    spans = [(start + templated.start, end + templated.start) for start, end in word_spans]
    return PromptTokens(
        text=templated.text,
        ids=tuple(encoded.ids),
        word_positions=tuple(tuple(found) for found in span_tokens(encoded, spans)),
        texts=tuple(encoded.text[start:end] for start, end in encoded.offsets),
    )
