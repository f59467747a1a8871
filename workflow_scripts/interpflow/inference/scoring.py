"""Log-probabilities of fixed answers after prompts: exact, and with the least computation.

Equal prompts are run once, shared beginnings of answers are run once, and the vocabulary is
projected only where a next token is scored.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.passes.freed_pages import freed_pages_kept
from interpflow.errors import UserError
from interpflow.inference.answer_trie import AnswerTrie, build_trie
from interpflow.inference.batching import Progress, plan_batches
from interpflow.inference.exact_ways import ExactWays, known_ways
from interpflow.inference.forward import (
    attention_window,
    check_fits,
    check_rotation,
    row_logits,
    row_states,
)
from interpflow.inference.prompt_tree import plan_prompts, plan_separately
from interpflow.inference.readout import LOGIT_BYTES, Reading, read_logits
from interpflow.inference.tree_forward import Prefix
from interpflow.models.tokens import prompts_with_answers

DEFAULT_TOKEN_BUDGET = 8192
# On a CPU a pass of this many tokens keeps linears at their full rate; larger ones only leave the
# caches.
CPU_PASS_TOKENS = 1024
# States that wait for the vocabulary head, so that it has many rows at once.
READ_STATES = 4096


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
    sequences, continuations = prompts_with_answers(tokenizer, unique, answers)
    if any(not sequence for sequence in sequences):
        raise UserError("an empty prompt has no token to continue", remedy="give it some text")
    groups = _grouped(continuations)
    log_prob = np.full((len(unique), len(answers)), np.nan)
    first_logit = np.full((len(unique), len(answers)), np.nan, dtype=np.float32)
    top_token = np.full(len(unique), -1, dtype=np.int64)
    ways = known_ways(model)
    with torch.inference_mode(), fast_modules(model), freed_pages_kept():
        run = _Run(model, ways, token_budget, Progress(len(unique), "prompts scored", progress))
        for joined, members in groups.items():
            trie = build_trie(joined, answers)
            firsts = [ids[0] for ids in joined]
            for rows, result in run.results([sequences[index] for index in members], trie, firsts):
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

    def __init__(self, model: Any, ways: ExactWays, token_budget: int, progress: Progress) -> None:
        self.model, self.token_budget, self.progress = model, token_budget, progress
        self.ways = ways
        self.device = model.get_input_embeddings().weight.device
        self.on_cpu = self.device.type == "cpu"
        self.pass_budget = min(token_budget, CPU_PASS_TOKENS) if self.on_cpu else token_budget
        self.readout, self.by_states, self.tree = ways.find(model)
        self.tokens = 0

    def results(self, prompts: list[list[int]], trie: AnswerTrie, firsts: list[int]):
        """Yield (rows of `prompts`, (log_prob, first_logit, top_token)), many rows at a time."""
        longest = max(map(len, prompts)) + max(trie.depths)
        check_fits(self.model, longest)
        window = attention_window(self.model)
        if self.tree and window and longest > window and not self.tree.windows_are_known():
            self.tree = None
        if check_rotation(self.model, prompts, trie):
            self.tree = None
        # On other devices one attention over padded rows is faster than one per length.
        self.packs = self.on_cpu and not trie.n_inner and (not window or longest <= window)
        wanted = sorted({token for _, token in trie.edges})
        tokens = torch.tensor(wanted, device=self.device)
        column = {token: index for index, token in enumerate(wanted)}
        rows: list[int] = []
        waiting: list[Tensor] = []

        def read(reading: Reading) -> tuple[list[int], tuple[np.ndarray, ...]]:
            done = (list(rows), _scores(reading, trie, firsts, column))
            rows.clear()
            waiting.clear()
            return done

        for members, found in self._passes(prompts, trie):
            rows += members
            if not self.by_states:
                yield read(read_logits(found.flatten(0, 1), tokens))
                continue
            waiting.append(found.flatten(0, 1))
            if sum(map(len, waiting)) >= READ_STATES:
                yield read(self.readout.read(torch.cat(waiting), tokens))
        if waiting:
            yield read(self.readout.read(torch.cat(waiting), tokens))

    def _passes(
        self, prompts: list[list[int]], trie: AnswerTrie
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """(rows, states or logits [row, node, ...]) pass by pass."""
        passes = self._tree_passes if self.tree else self._row_passes
        try:
            for rows, found, n_tokens in passes(prompts, trie):
                self.tokens += n_tokens
                self.progress.advance(len(rows), n_tokens)
                yield rows, found
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory with prompts of up to {max(map(len, prompts))} tokens",
                remedy=f"set a token budget below {self.token_budget}",
            ) from error

    def _row_passes(self, prompts: list[list[int]], trie: AnswerTrie):
        depth, tips = max(trie.depths), len(trie.tips())
        lengths = [(len(ids) + depth) * tips for ids in prompts]
        rows_of_logits = None
        if not self.by_states:
            rows_of_logits = LOGIT_BYTES // (tips * (depth + 1) * self.readout.vocabulary * 4)
            rows_of_logits = max(1, rows_of_logits)
        for rows in plan_batches(lengths, self.pass_budget, rows_of_logits):
            chosen = [prompts[row] for row in rows]
            if self.by_states:
                found, n_tokens = row_states(self.model, chosen, trie)
            else:
                found, _, n_tokens = row_logits(self.model, chosen, trie)
            yield rows, found, n_tokens

    def _tree_passes(self, prompts: list[list[int]], trie: AnswerTrie):
        assert self.tree is not None
        plan = plan_prompts(prompts, trie.n_inner, self.pass_budget)
        if plan.shares and not self.ways.shares():
            plan = plan_separately(prompts, trie.n_inner, self.pass_budget)
        todo = [(plan, Prefix())]
        while todo:
            branch, prefix = todo.pop()
            own = prompts[branch.prompt][branch.start : branch.stop]
            if own:
                prefix = self.tree.extended(prefix, own)
                self.tokens += len(own)
            todo += [(further, prefix) for further in reversed(branch.branches)]
            for batch in branch.batches:
                if self.packs and not prefix.n_tokens and not batch.stems and self.ways.packs():
                    yield batch.rows, *self.tree.packed_states([prompts[r] for r in batch.rows])
                    continue
                starts = batch.starts(branch.stop)
                suffixes = [prompts[row][start:] for row, start in zip(batch.rows, starts)]
                stems = [prompts[row][branch.stop : stop] for row, stop in batch.stems]
                yield batch.rows, *self.tree.states(suffixes, trie, prefix, stems, batch.stem_of)


def _grouped(
    continuations: Sequence[list[list[int]]],
) -> dict[tuple[tuple[int, ...], ...], list[int]]:
    """The prompts, by index, that the answers continue with the same tokens."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    same: dict[int, list[int]] = {}  # prompts that end in the same way share one list
    for index, ids in enumerate(continuations):
        if id(ids) not in same:
            same[id(ids)] = groups.setdefault(tuple(map(tuple, ids)), [])
        same[id(ids)].append(index)
    return groups


def _scores(
    reading: Reading, trie: AnswerTrie, firsts: list[int], column: dict[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log_prob [prompt, answer], first_logit [prompt, answer], top_token [prompt]) from readings
    of each prompt's nodes in turn; `column` says where a token was picked."""
    n_nodes = len(trie.tokens)
    picked = reading.picked.view(-1, n_nodes, reading.picked.shape[1])
    normaliser = reading.normaliser.view(-1, n_nodes)
    nodes = [node for node, _ in trie.edges]
    columns = [column[token] for _, token in trie.edges]
    edges = (picked[:, nodes, columns] - normaliser[:, nodes]).double().cpu().numpy()
    log_prob = np.stack([edges[:, list(path)].sum(axis=1) for path in trie.paths], axis=1)
    first_logit = picked[:, 0][:, [column[token] for token in firsts]].cpu().numpy()
    return log_prob, first_logit, reading.top.view(-1, n_nodes)[:, 0].cpu().numpy()


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
