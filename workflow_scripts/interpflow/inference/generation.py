"""Greedy or drawn text, batched: the same tokens whatever stands beside a prompt in its batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.errors import UserError
from interpflow.inference.batching import Progress, pad_left, plan_batches
from interpflow.inference.forward import check_fits
from interpflow.models.tokens import encode_all

DEFAULT_TOKEN_BUDGET = 8192
# A stop string of n bytes lies within the last n tokens, and the token that ends it may go on;
# a few more keep a character's bytes together when the tail is decoded.
TAIL_TOKENS = 4


@dataclass(frozen=True)
class Generation:
    """The new tokens of one prompt. `text` ends with the stop string when one ended it; the end
    token is in neither `text` nor `token_ids`."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["eos", "stop_string", "length"]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop_strings: Sequence[str] = (),
    seeds: Sequence[int | None] | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    progress: logging.Logger | None = None,
) -> list[Generation]:
    """Continue each prompt until an end token, a stop string or the token limit.

    Greedily; or where `seeds` (one per prompt) holds a seed, drawn from the model's distribution
    with it. A draw depends on the prompt, its seed and the kind of device, and on nothing else in
    the batch. Equal prompts with equal seeds are run once; `token_budget` bounds rows × (prompt +
    new tokens). The model's stored generation settings (sampling, penalties) are not used. Raises
    UserError for an empty prompt, a text beyond the model's context, training mode, and when memory
    runs out.
    """
    if max_new_tokens < 1 or any(not stop for stop in stop_strings):
        raise UserError("max_new_tokens must be positive and stop strings not empty")
    if model.training:
        raise UserError("the model is in training mode", remedy="call model.eval() first")
    wanted = list(zip(prompts, seeds or [None] * len(prompts), strict=True))
    unique = list(dict.fromkeys(wanted))
    sequences = [list(item.ids) for item in encode_all(tokenizer, [text for text, _ in unique])]
    if any(not sequence for sequence in sequences):
        raise UserError("an empty prompt has no token to continue", remedy="give it some text")
    lengths = [len(sequence) + max_new_tokens for sequence in sequences]
    check_fits(model, max(lengths, default=0))
    ends = end_tokens(model, tokenizer)
    lines = Progress(len(unique), "prompts continued", progress)
    found: dict[tuple[str, int | None], Generation] = {}
    for rows in plan_batches(lengths, token_budget):
        chosen = [sequences[row] for row in rows]
        drawn = [unique[row][1] for row in rows]
        new_ids = _continue(
            model, tokenizer, chosen, max_new_tokens, list(stop_strings), ends, drawn
        )
        for row, ids in zip(rows, new_ids):
            found[unique[row]] = _finish(tokenizer, ids, list(stop_strings), ends)
        lines.advance(len(rows), sum(map(len, chosen)) + sum(map(len, new_ids)))
    return [found[each] for each in wanted]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a text: the model's own list (chat models have several) and the tokenizer's."""
    stored = getattr(model.generation_config, "eos_token_id", None)
    ids = set(stored if isinstance(stored, list) else [stored]) | {tokenizer.eos_token_id}
    return sorted(token for token in ids if token is not None)


class _StopStrings(StoppingCriteria):
    """Ends a row once its new text contains one of the strings."""

    def __init__(self, tokenizer: Any, stops: list[str], prompt_width: int) -> None:
        self.tokenizer, self.stops, self.width = tokenizer, stops, prompt_width
        self.tail = max(len(stop.encode()) for stop in stops) + TAIL_TOKENS

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        start = max(self.width, input_ids.shape[1] - self.tail)
        texts = self.tokenizer.batch_decode(
            input_ids[:, start:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)


class _SeededNoise(LogitsProcessor):
    """Makes the largest logit of a seeded row a draw from its distribution.

    Gumbel noise on logits turns their maximum into a sample of their softmax (the Gumbel-max
    trick); each row has a generator of its own.
    """

    def __init__(self, seeds: Sequence[int | None], device: torch.device) -> None:
        self.generators = {
            row: torch.Generator(device).manual_seed(seed)
            for row, seed in enumerate(seeds)
            if seed is not None
        }

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.float()
        for row, generator in self.generators.items():
            uniform = torch.rand(scores.shape[1], generator=generator, device=scores.device)
            # The smallest positive number keeps log(0) out.
            scores[row] -= (-uniform.clamp_min(torch.finfo(torch.float32).tiny).log()).log()
        return scores


@contextmanager
def _without_stored_settings(model: Any) -> Iterator[None]:
    # `generate` fills every setting that a call leaves open from the model's stored ones.
    stored = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = stored


def _continue(
    model: Any,
    tokenizer: Any,
    sequences: list[list[int]],
    max_new_tokens: int,
    stops: list[str],
    ends: list[int],
    seeds: list[int | None],
) -> list[list[int]]:
    """New token ids of each row, whatever follows an end included."""
    fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    ids, mask = pad_left(sequences, fill, model.get_input_embeddings().weight.device)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=ends or None,
        pad_token_id=fill,
    )
    noise = _SeededNoise(seeds, ids.device)
    processors = LogitsProcessorList([noise] if noise.generators else [])
    criteria = StoppingCriteriaList([_StopStrings(tokenizer, stops, ids.shape[1])] if stops else [])
    try:
        with torch.inference_mode(), fast_modules(model), _without_stored_settings(model):
            whole = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                logits_processor=processors,
                stopping_criteria=criteria,
            )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory with {len(sequences)} prompts", remedy="set a lower token budget"
        ) from error
    return whole[:, ids.shape[1] :].tolist()


def _finish(tokenizer: Any, ids: list[int], stops: list[str], ends: list[int]) -> Generation:
    """Cut a row of new ids at its end; padding follows the end of a row that stopped early."""
    stop_at = _first_stop(tokenizer, ids, stops)
    end_at = next((place for place, token in enumerate(ids) if token in ends), None)
    if stop_at is not None and (end_at is None or stop_at <= end_at):
        kept = ids[:stop_at]
        text = decode_new(tokenizer, kept)
        cut = min(text.index(stop) + len(stop) for stop in stops if stop in text)
        return Generation(text[:cut], tuple(kept), "stop_string")
    reason: Literal["eos", "length"] = "length" if end_at is None else "eos"
    kept = ids if end_at is None else ids[:end_at]
    return Generation(decode_new(tokenizer, kept), tuple(kept), reason)


def decode_new(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of new tokens, as `generate` gives it."""
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _first_stop(tokenizer: Any, ids: list[int], stops: list[str]) -> int | None:
    """The least number of tokens whose text contains a stop string."""
    if not any(stop in decode_new(tokenizer, ids) for stop in stops):
        return None
    for count in range(1, len(ids) + 1):
        text = decode_new(tokenizer, ids[:count])
        if any(stop in text for stop in stops):
            return count
    return None
