"""Token ids of prompts and of what follows them, proven to be those of the joined text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interpflow.models.tokens import encode_all

# Why a continuation has no score.
Unscored = Literal["", "none_given", "empty_prompt", "merged", "too_long"]


@dataclass(frozen=True)
class JoinedTokens:
    """Token ids of a prompt, special ones included, and of what is scored after it.

    unscored: why nothing is: see `continuations.ContinuationScore`. is_run: the prompt fits the
    model.
    """

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    unscored: Unscored
    is_run: bool = True


def context_length(model: Any) -> int | None:
    """Positions of the model, None where it names no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def joined_tokens(
    tokenizer: Any, pairs: Sequence[tuple[str, str | None]], context: int | None
) -> list[JoinedTokens]:
    """The tokens of each (prompt, continuation). context: positions of the model."""
    alone = [item.ids for item in encode_all(tokenizer, [prompt for prompt, _ in pairs])]
    both = [item.ids for item in encode_all(tokenizer, [a + (b or "") for a, b in pairs])]
    rows = []
    for (_, continuation), prompt, whole in zip(pairs, alone, both):
        rest = whole[len(prompt) :]
        if not prompt:
            rows.append(JoinedTokens((), (), "empty_prompt", is_run=False))
        elif context and len(prompt) > context:
            rows.append(JoinedTokens(prompt, (), "too_long", is_run=False))
        elif continuation is None:
            rows.append(JoinedTokens(prompt, (), "none_given"))
        elif whole[: len(prompt)] != prompt or not rest:
            rows.append(JoinedTokens(prompt, (), "merged"))
        elif context and len(whole) > context:
            rows.append(JoinedTokens(prompt, (), "too_long"))
        else:
            rows.append(JoinedTokens(prompt, rest, ""))
    return rows
