"""Log-probabilities of one continuation per prompt, token by token, and the prompt's next tokens.

`score_answers` scores the same answers after every prompt. Here each prompt has a continuation of
its own (a chain of reasoning, say): prompt and continuation are run as one row, and the vocabulary
is projected only where a token is scored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpflow.engine.model import rotates_by_length
from interpflow.engine.passes.attention import StopForward
from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.passes.freed_pages import freed_pages_kept
from interpflow.errors import UserError
from interpflow.inference.batching import Progress, pad_right, plan_batches
from interpflow.inference.exact_ways import known_ways
from interpflow.inference.forward import logits_at
from interpflow.inference.joined_tokens import (
    JoinedTokens,
    Unscored,
    context_length,
    joined_tokens,
)
from interpflow.inference.readout import LOGIT_BYTES, Readout
from interpflow.inference.scoring import CPU_PASS_TOKENS, DEFAULT_TOKEN_BUDGET


@dataclass(frozen=True, eq=False)
class ContinuationScore:
    """A continuation's token ids and their log-probabilities, float64 [token] in nats.

    unscored: why there are none: none was given; the prompt has no token; the continuation is not
    one in tokens (it is empty, or its beginning merges with the prompt's end); both together are
    longer than the model's context. prompt_ids: the tokens of the prompt, special ones included.
    top_logits float32 [k], top_ids int64 [k]: the largest logits after the prompt, falling; empty
    where the prompt could not be run. margins: float32 [token], each token's logit less the largest
    other; end_margin: the same of the end tokens after all of them, NaN where none were named.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    unscored: Unscored
    log_probs: NDArray[np.float64]
    margins: NDArray[np.float32]
    end_margin: float
    top_logits: NDArray[np.float32]
    top_ids: NDArray[np.int64]

    @property
    def total(self) -> float | None:
        """Log-probability of the whole continuation; None without a score."""
        return None if self.unscored else float(self.log_probs.sum())

    def is_greedy(self, tolerance: float) -> bool:
        """Whether the model would say exactly this and end: each token, and then an end token,
        leads all others by more than the tolerance (logits)."""
        leads = not self.unscored and bool((self.margins > tolerance).all())
        return leads and self.end_margin > tolerance


def continuation_log_probs(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    continuations: Sequence[str | None],
    *,
    top_k: int = 0,
    ends: Sequence[int] = (),
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    progress: logging.Logger | None = None,
) -> list[ContinuationScore]:
    """Score continuations[i] after prompts[i] in one pass per distinct pair.

    Tokens are proven: those of the prompt and of the continuation together are those of the joined
    text; where they are not, the score says so. top_k: also the k largest logits after the prompt,
    of prompts without a continuation as well. ends: tokens that end a text. `token_budget` bounds
    rows × positions of a pass. Raises UserError in training mode, for NaN, for more logits than the
    model has, and when memory runs out.
    """
    if model.training:
        raise UserError("the model is in training mode", remedy="call model.eval() first")
    if not 0 <= top_k <= model.config.get_text_config().vocab_size:
        raise UserError(f"there are no {top_k} largest logits", where="top_k")
    pairs = list(dict.fromkeys(zip(prompts, continuations, strict=True)))
    rows = joined_tokens(tokenizer, pairs, context_length(model))
    found: dict[int, _Result] = {}
    run = _Run(model, top_k, ends, token_budget)
    report = Progress(len(rows), "continuations", progress)
    wanted = [i for i, row in enumerate(rows) if row.is_run and (row.continuation or top_k)]
    lengths = [len(rows[i].prompt) + len(rows[i].continuation) for i in wanted]
    with torch.inference_mode(), fast_modules(model), freed_pages_kept():
        for batch in run.batches(lengths):
            chosen = [wanted[place] for place in batch]
            found.update(zip(chosen, run.results([rows[i] for i in chosen])))
            report.advance(len(chosen), sum(lengths[place] for place in batch))
    scores = {
        pair: ContinuationScore(
            row.prompt, row.continuation, row.unscored, **vars(found.get(i, _NOTHING))
        )
        for i, (pair, row) in enumerate(zip(pairs, rows))
    }
    _check_finite(scores.values())
    return [scores[pair] for pair in zip(prompts, continuations)]


@dataclass(frozen=True, eq=False)
class _Result:
    """What a score takes from the pass."""

    log_probs: NDArray[np.float64]
    margins: NDArray[np.float32]
    end_margin: float
    top_logits: NDArray[np.float32]
    top_ids: NDArray[np.int64]


_NOTHING = _Result(
    np.zeros(0), np.zeros(0, np.float32), float("nan"), np.zeros(0, np.float32), np.zeros(0, int)
)


class _Run:
    """The passes of one call, and the way in which the vocabulary is read."""

    def __init__(self, model: Any, top_k: int, ends: Sequence[int], token_budget: int) -> None:
        self.model, self.top_k, self.ends = model, top_k, list(ends)
        self.device = model.get_input_embeddings().weight.device
        self.token_budget = token_budget
        on_cpu = self.device.type == "cpu"
        self.pass_tokens = min(token_budget, CPU_PASS_TOKENS) if on_cpu else token_budget
        self.readout, self.by_states = _readout(model)
        self.by_length = rotates_by_length(model)

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of rows that are run together; of one length where longer ones would change the
        rotation of shorter ones."""
        most = None
        if not self.by_states:
            longest = max(lengths, default=1)
            most = max(1, LOGIT_BYTES // (longest * self.readout.vocabulary * 4))
        for batch in plan_batches(lengths, self.pass_tokens, most):
            if not self.by_length:
                yield batch
                continue
            for length in dict.fromkeys(lengths[place] for place in batch):
                yield [place for place in batch if lengths[place] == length]

    def results(self, rows: Sequence[JoinedTokens]) -> Iterator[_Result]:
        """What is read of each row: at the end of its prompt and after each token that follows."""
        ids = pad_right([[*row.prompt, *row.continuation] for row in rows], 0, self.device)
        counts = torch.tensor([len(row.continuation) + 1 for row in rows])
        steps = torch.arange(int(counts.max()))
        lasts = torch.tensor([len(row.prompt) - 1 for row in rows])
        places = (lasts[:, None] + steps).clamp(max=ids.shape[1] - 1).to(self.device)
        real = (steps < counts[:, None]).to(self.device)
        # Nothing follows the last place: any token does there.
        tokens = [token for row in rows for token in (*row.continuation, 0)]
        try:
            logits = self._logits(ids, places, real)
            log_probs, margins, end_margins, best = self._read(logits, torch.tensor(tokens), counts)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory with {len(rows)} prompts of up to {ids.shape[1]} tokens",
                remedy=f"set a token budget below {self.token_budget}",
            ) from error
        stop = 0
        for count, (top_logits, top_ids) in zip(counts.tolist(), best):
            start, stop = stop, stop + count
            scored = slice(start, stop - 1)
            yield _Result(
                log_probs[scored], margins[scored], float(end_margins[stop - 1]),
                top_logits, top_ids,
            )  # fmt: skip

    def _logits(self, ids: Tensor, places: Tensor, real: Tensor) -> Iterator[Tensor]:
        """Logits [place, vocabulary] float32 of the real places, some at a time."""
        if self.by_states:
            return self.readout.whole(_states(self.model, ids, places)[real])
        logits, _ = logits_at(self.model, places, input_ids=ids, use_cache=False)
        return iter([logits[real]])

    def _read(
        self, logits: Iterator[Tensor], tokens: Tensor, counts: Tensor
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[tuple[NDArray[Any], NDArray[Any]]]]:
        """Of every place the log-probability of its token, its margin and that of the ends; of
        every row the largest logits at its first place."""
        firsts = set((counts.cumsum(0) - counts).tolist())
        own, margins, end_margins, best, start = [], [], [], [], 0
        for part in logits:
            here = tokens[start : start + len(part)].to(part.device)[:, None]
            picked = part.gather(1, here)
            own.append((picked[:, 0] - part.logsumexp(dim=-1)).double().cpu().numpy())
            chosen = [at for at in range(len(part)) if start + at in firsts]
            top = part[chosen].topk(self.top_k, dim=-1)
            best += zip(top.values.cpu().numpy(), top.indices.cpu().numpy())
            margins.append(_lead(part, here).cpu().numpy())
            ends = torch.tensor(self.ends, device=part.device).expand(len(part), -1)
            none = np.full(len(part), np.nan, dtype=np.float32)
            end_margins.append(_lead(part, ends).cpu().numpy() if self.ends else none)
            start += len(part)
        return np.concatenate(own), np.concatenate(margins), np.concatenate(end_margins), best


def _lead(logits: Tensor, tokens: Tensor) -> Tensor:
    """Largest logit [row] of the tokens [row, n] less the largest of all others."""
    inside = logits.gather(1, tokens).amax(dim=-1)
    others = logits.scatter(1, tokens, float("-inf")).amax(dim=-1)
    return inside - others


def _readout(model: Any) -> tuple[Readout, bool]:
    readout, by_states, _ = known_ways(model).find(model)
    return readout, by_states


def _states(model: Any, ids: Tensor, places: Tensor) -> Tensor:
    """What the vocabulary head is given at `places` [row, n]: [row, n, d]. The head is not run."""
    given: list[Tensor] = []
    rows = torch.arange(len(ids), device=ids.device)[:, None]

    def stop(_module: Any, args: tuple) -> None:
        given.append(args[0][rows.to(args[0].device), places.to(args[0].device)])
        raise StopForward

    handle = model.get_output_embeddings().register_forward_pre_hook(stop)
    try:
        with suppress(StopForward):
            model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return given[0]


def _check_finite(scores: Any) -> None:
    bad = sum(bool(np.isnan(score.log_probs).any()) for score in scores)
    if bad:
        raise UserError(
            f"the model returns NaN for {bad} continuations",
            remedy="load it in float32 or bfloat16: float16 overflows in some models",
        )
