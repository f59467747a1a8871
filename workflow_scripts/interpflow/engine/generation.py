"""Text continued while interventions are in force.

Positions are absolute: what an intervention says of a prompt's positions acts while the prompt is
read, what it says of later ones ("all", "generated", or their numbers) acts on each new token as it
is read in its turn. With a cache this gives what running everything anew at every step would give:
interventions on keys and values of earlier positions are made again at each step, because a cache
holds them unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.interventions import Intervention
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model, full_precision
from interpflow.engine.passes.changes import changes
from interpflow.engine.passes.forward import KeysValues, Resume, run_forward
from interpflow.engine.prompts import Prompts
from interpflow.errors import UserError


def generate_with(
    model: Model,
    prompts: Prompts,
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop_ids: Sequence[int] = (),
    cache: bool = True,
    keep_logits: bool = False,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> list[Continuation]:
    """Continue each prompt by up to `max_new_tokens` tokens, one `Continuation` each.

    temperature 0 takes the likeliest token; above 0, tokens are drawn, by the seed, the prompt's
    number and the step alone. A token of `stop_ids` ends a row and is not part of it.
    cache=False runs every prompt anew for every token: slow, for checking, and what is done for
    models that cannot be continued from keys and values exactly.
    Raises UserError for positions that no row can come to have, and for what `Model.run` refuses.
    """
    if max_new_tokens < 1 or temperature < 0:
        raise UserError(
            f"cannot generate {max_new_tokens} tokens at temperature {temperature}",
            where="generate_with",
            remedy="ask for at least one token, at a temperature of 0 or more",
        )
    batch = model.batch(prompts)
    lengths = batch.lengths.tolist()
    if model.max_length is not None and max(lengths) + max_new_tokens - 1 > model.max_length:
        raise UserError(
            f"{max(lengths)} tokens and {max_new_tokens} new ones, the model has "
            f"{model.max_length} positions",
            where="generate_with",
            remedy="shorten the prompts, or ask for fewer tokens",
        )
    setting = _Setting(
        model,
        model.prepared(interventions, lengths),
        lengths,
        max_new_tokens,
        temperature,
        seed,
        frozenset(stop_ids),
        cache and model.cache_is_exact,
        keep_logits,
    )
    found: dict[int, Continuation] = {}
    for length in sorted(set(lengths)):
        rows = [row for row, n in enumerate(lengths) if n == length]
        step = max(1, batch_tokens // (length + max_new_tokens))
        for start in range(0, len(rows), step):
            chosen = rows[start : start + step]
            made = _continue(setting, chosen, batch.input_ids[chosen, :length])
            found.update(zip(chosen, made))
    return [found[row] for row in range(len(lengths))]


def _continue(setting: _Setting, rows: Sequence[int], prompt: Tensor) -> list[Continuation]:
    """Continuations of prompts [row, position] of one length."""
    ids, kept = prompt, []
    keys_values: KeysValues | None = None
    done = torch.zeros(len(rows), dtype=torch.bool)
    for _ in range(setting.max_new_tokens):
        first = ids.shape[1] - 1 if keys_values is not None else 0
        logits, keys_values = _step(setting, rows, ids, first, keys_values)
        if setting.keep_logits:
            kept.append(logits)
        new = _chosen(setting, rows, logits, ids.shape[1])
        ids = torch.cat([ids, new[:, None]], dim=1)
        done |= torch.tensor([token in setting.stop_ids for token in new.tolist()])
        if bool(done.all()):
            break
    made = []
    for row, tokens in enumerate(ids[:, prompt.shape[1] :].tolist()):
        stops = [place for place, token in enumerate(tokens) if token in setting.stop_ids]
        n = stops[0] if stops else len(tokens)
        # The logits that a stop was chosen by are kept, too.
        seen = torch.stack([part[row] for part in kept[: n + 1]]) if kept else None
        made.append(Continuation(tuple(tokens[:n]), bool(stops), seen))
    return made


def _step(
    setting: _Setting,
    rows: Sequence[int],
    ids: Tensor,
    first: int,
    keys_values: KeysValues | None,
) -> tuple[Tensor, KeysValues | None]:
    """Logits [row, vocab] after the last of `ids`, of which those from `first` on are run."""
    architecture = setting.model.architecture
    result = run_forward(
        setting.model.module,
        architecture,
        ids[:, first:],
        edits=changes(
            architecture,
            setting.interventions,
            setting.lengths,
            rows=rows,
            first=first,
            stop=ids.shape[1],
            limit=max(setting.lengths) + setting.max_new_tokens,
            device=ids.device,
        ),
        logits_at=torch.full((len(rows),), ids.shape[1] - first - 1, device=ids.device),
        resume=None if keys_values is None else Resume(0, None, first, keys_values),
        keep_keys_values=setting.cache,
    )
    if setting.cache and result.keys_values is None:
        raise RuntimeError("the model did not keep its keys and values")
    logits = full_precision(result.logits[:, 0])
    if not bool(logits.isfinite().all()):
        row = rows[int((~logits.isfinite()).any(dim=1).nonzero()[0, 0])]
        raise UserError(
            "the logits are not finite",
            where=f"prompt {row}, position {ids.shape[1] - 1}",
            remedy="load the model with a wider dtype (float32, bfloat16), or change less",
        )
    return logits, result.keys_values


def _chosen(setting: _Setting, rows: Sequence[int], logits: Tensor, position: int) -> Tensor:
    """The next token of each row, int64 [row]."""
    if setting.temperature == 0:
        return logits.argmax(dim=-1)
    shares = (logits.double() / setting.temperature).softmax(dim=-1).cumsum(dim=-1)
    drawn = [
        np.random.default_rng([setting.seed, row, position - setting.lengths[row]]).random()
        for row in rows
    ]
    points = torch.tensor(drawn, dtype=torch.float64, device=logits.device)[:, None]
    # The sum of all shares misses 1 by rounding.
    found = torch.searchsorted(shares / shares[:, -1:], points, right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1)


@dataclass(frozen=True)
class _Setting:
    """What stays the same for all prompts; `lengths` are those of all of them."""

    model: Model
    interventions: Sequence[Intervention]
    lengths: Sequence[int]
    max_new_tokens: int
    temperature: float
    seed: int
    stop_ids: frozenset[int]
    cache: bool
    keep_logits: bool


@dataclass(frozen=True, eq=False)
class Continuation:
    """New token ids of one prompt, whether a stop token ended them, and, if kept, the logits that
    each was chosen by (the stop's included), [token, vocab]."""

    ids: tuple[int, ...]
    stopped: bool
    logits: Tensor | None
