"""Prompts as token ids. Ids are the contract; text is a convenience."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor

from interpflow.engine.batches import TokenBatch
from interpflow.errors import UserError
from interpflow.models.tokens import encode_all

# One prompt: a text, or the token ids that the model reads (special tokens included).
Prompt = str | Sequence[int]
# One prompt or several; a tensor holds rows [batch, position] without padding.
Prompts = Prompt | Sequence[Prompt] | Tensor | TokenBatch


def as_batch(
    prompts: Prompts,
    tokenizer: Any,
    *,
    n_tokens: int,
    max_length: int | None,
    device: torch.device | str,
) -> TokenBatch:
    """Prompts as a batch on `device`, one row each; see `as_rows` for the errors."""
    if isinstance(prompts, TokenBatch):
        _check_length(max(prompts.lengths.tolist()), max_length)
        return prompts.to(device)
    rows = as_rows(prompts, tokenizer)
    for row, ids in enumerate(rows):
        for place, token in enumerate(ids):
            if not 0 <= token < n_tokens:
                raise UserError(
                    f"there is no token {token}",
                    where=f"prompt {row}, position {place}",
                    remedy=f"this model's vocabulary has {n_tokens} tokens, counted from 0",
                )
    _check_length(max(map(len, rows), default=0), max_length)
    return TokenBatch.from_ids(rows, device=device)


def as_rows(prompts: Prompts, tokenizer: Any) -> list[list[int]]:
    """Token ids of each prompt. Text begins with the tokenizer's special tokens exactly once.

    Raises UserError for text without a tokenizer and for what is neither text nor ids.
    """
    if isinstance(prompts, TokenBatch):
        lengths = prompts.lengths.tolist()
        return [row[:length] for row, length in zip(prompts.input_ids.tolist(), lengths)]
    if isinstance(prompts, Tensor):
        if prompts.ndim not in (1, 2) or prompts.is_floating_point() or prompts.is_complex():
            raise UserError("a tensor of prompts holds integers [batch, position]", where="prompts")
        return torch.atleast_2d(prompts).tolist()
    one = isinstance(prompts, str) or (len(prompts) > 0 and _is_id(prompts[0]))
    listed = cast("Sequence[Prompt]", [prompts] if one else prompts)
    texts = [prompt for prompt in listed if isinstance(prompt, str)]
    if texts and tokenizer is None:
        raise UserError(
            "a prompt is text, and the model has no tokenizer",
            where="prompts",
            remedy="give token ids, or load the model with its tokenizer",
        )
    encoded = iter(encode_all(tokenizer, texts))
    rows = []
    for row, prompt in enumerate(listed):
        ids = next(encoded).ids if isinstance(prompt, str) else prompt
        if isinstance(ids, int) or not all(_is_id(token) for token in ids):
            raise UserError("a prompt is a text or a list of token ids", where=f"prompt {row}")
        rows.append([int(token) for token in ids])
    return rows


def _is_id(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_length(length: int, max_length: int | None) -> None:
    if max_length is not None and length > max_length:
        raise UserError(
            f"a prompt has {length} tokens, the model has {max_length} positions",
            where="prompts",
            remedy="shorten the prompts, or choose a model with a longer context",
        )
