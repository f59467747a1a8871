"""What a counting reference model can do and how: accuracy, causal slope, decodability."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats as scipy_stats
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from interpflow.models.reference.architecture import embed, logits_at, run_blocks, unembed
from interpflow.models.reference.counting_corpus import CountingCorpus
from interpflow.models.reference.interchange import (
    PairBatch,
    encode_pairs,
    rows_right,
    swapped_streams,
)
from interpflow.models.reference.rows import Row, encode_rows
from interpflow.tasks.counting.prompts import CountingTemplate, answer_text

EVALUATION_SEED = 20_000
BATCH_ROWS = 64
RIDGE_PENALTY = 1.0
PROBE_FOLDS = 5


@dataclass(frozen=True)
class Slope:
    """Slope through the origin of the answer's shift on the running-count shift, 95 % interval."""

    estimate: float
    ci_low: float
    ci_high: float
    n_pairs: int
    shifted_accuracy: float


def accuracy_table(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CountingCorpus,
    n_lists: int,
    seed: int = EVALUATION_SEED,
) -> dict[str, float]:
    """Exact-match accuracy (count, terminator, end) on held-out lists: overall and by wording.

    Every list is asked in every wording with its full instruction; also by count and length.
    """
    rng = random.Random(seed)
    lists = [corpus.draw_list(rng, held_out=True) for _ in range(n_lists)]
    groups: dict[str, list[bool]] = defaultdict(list)
    for template in corpus.templates:
        rows = [corpus.row(drawn, template, shortened=False) for drawn in lists]
        for drawn, right in zip(lists, exact_matches(model, tokenizer, rows), strict=True):
            for key in (
                "overall",
                f"template/{template.id}",
                f"count/{drawn.count}",
                f"length/{len(drawn.words)}",
                f"category/{drawn.category}",
            ):
                groups[key].append(right)
    return {key: float(np.mean(values)) for key, values in groups.items()}


@torch.no_grad()
def exact_matches(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> list[bool]:
    """Whether greedy decoding gives every scored token of a row."""
    found: list[bool] = []
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        batch = encode_rows(part, tokenizer)
        logits = logits_at(model, batch.ids, batch.row, batch.position)
        found += rows_right(logits, batch.target, batch.row, len(part)).tolist()
    return found


def count_token_ids(
    tokenizer: PreTrainedTokenizerFast, template: CountingTemplate, max_count: int
) -> list[int]:
    """The token that begins the answer of each count 0 … max_count."""
    return [
        tokenizer(answer_text(template, count), add_special_tokens=False)["input_ids"][0]
        for count in range(max_count + 1)
    ]


@torch.no_grad()
def running_count_slope(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CountingCorpus,
    after_layer: int,
    n_pairs: int,
    template: CountingTemplate | None = None,
    seed: int = EVALUATION_SEED,
) -> Slope:
    """How much of the running count passes through the list positions after a prefix.

    Pairs share the words after the prefix and differ in the count before it. The residual stream
    leaving `after_layer` blocks, from the first shared word to the list's last word, is taken from
    the donor. Slope of the change of the expected count on the running-count difference, with an
    HC1 interval over pairs (MacKinnon and White 1985). `template` None: all wordings in turn.
    """
    rng = random.Random(seed)
    templates = (template,) if template else corpus.templates
    shifts, changes, right = [], [], []
    for index in range(0, n_pairs, BATCH_ROWS):
        wording = templates[(index // BATCH_ROWS) % len(templates)]
        n = min(BATCH_ROWS, n_pairs - index)
        pairs = encode_pairs(
            [corpus.draw_pair(rng, held_out=True) for _ in range(n)],
            [wording] * n, [False] * n, corpus, tokenizer,
        )  # fmt: skip
        candidates = count_token_ids(tokenizer, wording, corpus.config.max_length)
        plain, patched, _ = swapped_streams(model, pairs, after_layer)
        at = answer_positions(pairs)
        rows = torch.arange(n)
        before = _expected_count(model, plain[rows, at], candidates)
        after_logits = unembed(model, patched[rows, at])[:, candidates]
        after = _expected(after_logits)
        shifts.append(pairs.shift.double().numpy())
        changes.append((after - before).double().numpy())
        right.append(
            (after_logits.argmax(-1) == _counts(model, plain, pairs, candidates)).double().numpy()
        )
    return slope_through_origin(
        np.concatenate(shifts), np.concatenate(changes), float(np.concatenate(right).mean())
    )


def answer_positions(pairs: PairBatch) -> torch.Tensor:
    """Position, per base row, that predicts the count: the first scored one."""
    first = torch.full((pairs.n,), pairs.rows.ids.shape[1])
    of_base = pairs.rows.row < pairs.n
    return first.scatter_reduce(
        0, pairs.rows.row[of_base], pairs.rows.position[of_base], reduce="amin"
    )


def _counts(
    model: LlamaForCausalLM, plain: torch.Tensor, pairs: PairBatch, candidates: list[int]
) -> torch.Tensor:
    rows = pairs.rows
    of_donor = rows.row >= pairs.n
    first = torch.full((pairs.n,), rows.ids.shape[1])
    first = first.scatter_reduce(
        0, rows.row[of_donor] - pairs.n, rows.position[of_donor], reduce="amin"
    )
    targets = rows.ids[torch.arange(pairs.n) + pairs.n, first + 1]
    return (targets[:, None] == torch.tensor(candidates)).long().argmax(-1)


def _expected_count(
    model: LlamaForCausalLM, hidden: torch.Tensor, candidates: list[int]
) -> torch.Tensor:
    return _expected(unembed(model, hidden)[:, candidates])


def _expected(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(-1) @ torch.arange(logits.shape[-1], dtype=logits.dtype)


def slope_through_origin(shift: np.ndarray, change: np.ndarray, shifted_accuracy: float) -> Slope:
    """Least squares through the origin with an HC1 standard error and a t interval."""
    n = len(shift)
    scale = float(np.sum(shift**2))
    if n < 2 or scale == 0:
        return Slope(math.nan, math.nan, math.nan, n, shifted_accuracy)
    slope = float(np.sum(shift * change)) / scale
    residual = change - slope * shift
    error = math.sqrt(n / (n - 1) * float(np.sum((shift * residual) ** 2))) / scale
    half = float(scipy_stats.t.ppf(0.975, n - 1)) * error
    return Slope(slope, slope - half, slope + half, n, shifted_accuracy)


@torch.no_grad()
def running_count_probe(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CountingCorpus,
    after_layer: int,
    n_lists: int,
    seed: int = EVALUATION_SEED,
) -> dict[str, float]:
    """Ridge probe of the running count at the list words, folds by list, all wordings.

    `r2`: held-out R²; `partial_r2`: beyond what the word's place in the list predicts, since the
    running count grows with it.
    """
    rng = random.Random(seed + 1)
    states, counts, places, folds = [], [], [], []
    for index in range(0, n_lists, BATCH_ROWS):
        n = min(BATCH_ROWS, n_lists - index)
        lists = [corpus.draw_list(rng, held_out=True) for _ in range(n)]
        wording = corpus.templates[(index // BATCH_ROWS) % len(corpus.templates)]
        batch = encode_rows([corpus.row(x, wording, False) for x in lists], tokenizer)
        hidden = run_blocks(model, embed(model, batch.ids), 0, after_layer)
        for row, drawn in enumerate(lists):
            last = [end for _, end in batch.words[row]]
            states.append(hidden[row, last].double().numpy())
            counts.append(np.cumsum(drawn.matches).astype(float))
            places.append(np.arange(len(drawn.words)))
            folds.append(np.full(len(drawn.words), (index + row) % PROBE_FOLDS))
    return probe_r2(
        np.concatenate(states), np.concatenate(counts), np.concatenate(places),
        np.concatenate(folds), corpus.config.max_length,
    )  # fmt: skip


def probe_r2(
    states: np.ndarray, target: np.ndarray, places: np.ndarray, folds: np.ndarray, n_places: int
) -> dict[str, float]:
    """R² and R² beyond place of a ridge regression, pooled over held-out folds."""
    place_features = np.eye(n_places)[places]
    full = np.concatenate([states, place_features], axis=1)
    rss_place = _held_out_rss(place_features, target, folds)
    rss_states = _held_out_rss(states, target, folds)
    rss_full = _held_out_rss(full, target, folds)
    total = float(np.sum((target - target.mean()) ** 2))
    return {"r2": 1 - rss_states / total, "partial_r2": 1 - rss_full / rss_place}


def _held_out_rss(features: np.ndarray, target: np.ndarray, folds: np.ndarray) -> float:
    rss = 0.0
    for fold in range(PROBE_FOLDS):
        train, test = folds != fold, folds == fold
        mean, scale = features[train].mean(0), features[train].std(0)
        scale[scale == 0] = 1.0
        x, x_test = (features[train] - mean) / scale, (features[test] - mean) / scale
        y_mean = target[train].mean()
        gram = x.T @ x + RIDGE_PENALTY * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ (target[train] - y_mean))
        rss += float(np.sum((target[test] - y_mean - x_test @ weights) ** 2))
    return rss
