"""Log-probabilities of fixed answers after prompts: exact, and with the least computation.

Equal prompts are run once, shared beginnings of answers are run once, and the vocabulary is
projected only where a next token is scored.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from interpflow.errors import UserError
from interpflow.inference.answer_trie import AnswerTrie, build_trie
from interpflow.inference.batching import Progress, plan_batches
from interpflow.inference.forward import (
    attention_window,
    check_fits,
    row_logits,
    tree_is_exact,
    tree_logits,
)
from interpflow.models.tokens import encode_all, joined_answers_all

DEFAULT_TOKEN_BUDGET = 8192
# Logits of one batch in float32; with their reduction about twice this is in memory.
LOGIT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class AnswerScores:
    """Scores of the same answers after each prompt, in the order the prompts were given.

    log_prob       float64 [prompt, answer]  nats, of the full answer string
    first_logit    float32 [prompt, answer]  logit of the answer's first token
    margin         float64 [prompt]          best minus second-best log_prob; NaN with one answer
    captured_mass  float64 [prompt]          probability of all answers together
    best           int64   [prompt]          index into `answers`; ties are broken by a hash of
                                             prompt and answer, so that no answer is favoured
    n_tied         int64   [prompt]          answers that share the best log_prob (1: no tie)
    top_token      int64   [prompt]          most probable first token of the whole vocabulary
    method         how answers of several tokens were run: "tree" or "rows" (see `forward`)
    n_unique       distinct prompts that were run;  n_forward_tokens: positions run, padding too
    """

    answers: tuple[str, ...]
    log_prob: np.ndarray
    first_logit: np.ndarray
    margin: np.ndarray
    captured_mass: np.ndarray
    best: np.ndarray
    n_tied: np.ndarray
    top_token: np.ndarray
    method: Literal["tree", "rows"]
    n_unique: int
    n_forward_tokens: int


def score_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    progress: logging.Logger | None = None,
) -> AnswerScores:
    """Score every answer (a full string, terminator included) as the continuation of each prompt.

    `token_budget` bounds rows × positions of a forward. Raises UserError when answers repeat,
    begin one another, or cannot be joined to a prompt; when a text is longer than the model's
    context; when the model is in training mode or returns NaN; when memory runs out.
    """
    _check_answers(model, answers)
    unique = list(dict.fromkeys(prompts))
    sequences = [list(item.ids) for item in encode_all(tokenizer, unique)]
    if any(not sequence for sequence in sequences):
        raise UserError("an empty prompt has no token to continue", remedy="give it some text")
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for index, ids in enumerate(joined_answers_all(tokenizer, unique, answers)):
        groups.setdefault(tuple(map(tuple, ids)), []).append(index)
    log_prob = np.full((len(unique), len(answers)), np.nan)
    first_logit = np.full((len(unique), len(answers)), np.nan, dtype=np.float32)
    top_token = np.full(len(unique), -1, dtype=np.int64)
    run = _Run(model, token_budget, Progress(len(unique), "prompts scored", progress))
    for continuations, members in groups.items():
        trie = build_trie(continuations, answers)
        firsts = [ids[0] for ids in continuations]
        for rows, result in run.batches([sequences[index] for index in members], trie, firsts):
            at = [members[row] for row in rows]
            log_prob[at], first_logit[at], top_token[at] = result
    _check_finite(log_prob)
    back = {prompt: index for index, prompt in enumerate(unique)}
    order = np.array([back[prompt] for prompt in prompts], dtype=np.int64)
    best, n_tied, margin = _choice(log_prob, unique, answers)
    return AnswerScores(
        answers=tuple(answers),
        log_prob=log_prob[order],
        first_logit=first_logit[order],
        margin=margin[order],
        captured_mass=np.exp(log_prob).sum(axis=1)[order],
        best=best[order],
        n_tied=n_tied[order],
        top_token=top_token[order],
        method="tree" if run.tree else "rows",
        n_unique=len(unique),
        n_forward_tokens=run.tokens,
    )


class _Run:
    """The forwards of one call: the way they are done, and what they cost."""

    def __init__(self, model: Any, token_budget: int, progress: Progress) -> None:
        self.model, self.token_budget, self.progress = model, token_budget, progress
        self.window = attention_window(model)
        with torch.inference_mode():
            self.tree = tree_is_exact(model)
        self.tokens = 0

    def batches(self, sequences: list[list[int]], trie: AnswerTrie, firsts: list[int]):
        """Yield (rows of `sequences`, (log_prob, first_logit, top_token)) batch by batch."""
        longest = max(map(len, sequences)) + max(trie.depths)
        check_fits(self.model, longest)
        if self.window and longest + trie.n_inner > self.window:
            # The nodes of a tree lie further apart in the cache than in the text.
            self.tree = False
        nodes, tips = len(trie.tokens), len(trie.tips())
        if self.tree:
            lengths, kept = [len(ids) + trie.n_inner for ids in sequences], nodes
        else:
            depth = max(trie.depths)
            lengths, kept = [(len(ids) + depth) * tips for ids in sequences], tips * (depth + 1)
        vocabulary = self.model.config.get_text_config().vocab_size
        max_rows = max(1, LOGIT_BYTES // (kept * vocabulary * 4))
        forward = tree_logits if self.tree else row_logits
        for rows in plan_batches(lengths, self.token_budget, max_rows):
            chosen = [sequences[row] for row in rows]
            try:
                with torch.inference_mode():
                    logits, n_tokens = forward(self.model, chosen, trie)
                    result = _read(logits, trie, firsts)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"out of memory with {len(rows)} prompts of {max(map(len, chosen))} tokens",
                    remedy=f"set a token budget below {self.token_budget}",
                ) from error
            self.tokens += n_tokens
            self.progress.advance(len(rows), n_tokens)
            yield rows, result


def _read(
    logits: torch.Tensor, trie: AnswerTrie, firsts: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log_prob [prompt, answer], first_logit [prompt, answer], top_token [prompt])."""
    normaliser = logits.logsumexp(dim=-1)
    nodes = [node for node, _ in trie.edges]
    tokens = [token for _, token in trie.edges]
    edges = (logits[:, nodes, tokens] - normaliser[:, nodes]).double().cpu().numpy()
    log_prob = np.stack([edges[:, list(path)].sum(axis=1) for path in trie.paths], axis=1)
    root = logits[:, 0]
    return log_prob, root[:, firsts].cpu().numpy(), root.argmax(dim=-1).cpu().numpy()


def _choice(
    log_prob: np.ndarray, prompts: Sequence[str], answers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best, n_tied, margin) of each row; ties go to the answer with the smallest digest."""
    if not len(log_prob):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    best = log_prob.argmax(axis=1)
    tied = log_prob == log_prob.max(axis=1, keepdims=True)
    n_tied = tied.sum(axis=1)
    for row in np.flatnonzero(n_tied > 1).tolist():
        digests = {
            _digest(prompts[row], answers[index]): index
            for index in np.flatnonzero(tied[row]).tolist()
        }
        best[row] = digests[min(digests)]
    margin = np.full(len(log_prob), np.nan)
    if log_prob.shape[1] > 1:
        top = np.partition(log_prob, -2, axis=1)
        margin = top[:, -1] - top[:, -2]
    return best.astype(np.int64), n_tied.astype(np.int64), margin


def _digest(prompt: str, answer: str) -> bytes:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    text = f"{len(prompt)}:{prompt}{answer}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _check_answers(model: Any, answers: Sequence[str]) -> None:
    if not answers:
        raise UserError("there are no answers to score", remedy="give at least one")
    if len(set(answers)) < len(answers):
        twice = next(answer for answer in answers if list(answers).count(answer) > 1)
        raise UserError(f"the answer {twice!r} is given twice", remedy="give each answer once")
    if model.training:
        raise UserError("the model is in training mode", remedy="call model.eval() first")


def _check_finite(log_prob: np.ndarray) -> None:
    bad = int(np.isnan(log_prob).any(axis=1).sum())
    if bad:
        raise UserError(
            f"the model returns NaN for {bad} of {len(log_prob)} prompts",
            remedy="load it in float32 or bfloat16: float16 overflows in some models",
        )
