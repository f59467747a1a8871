"""What a counting reference model can do and how: accuracy, causal slope, decodability."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import torch
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
from interpflow.stats.partial_probe import partial_probe
from interpflow.stats.slope import shifted_accuracy, slope_through_origin
from interpflow.tasks.counting.prompts import CountingTemplate, answer_text

EVALUATION_SEED = 20_000
BATCH_ROWS = 64
PROBE_STREAM = 1  # added to the seed: the probe's lists are not those of the accuracy


def accuracy_table(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CountingCorpus,
    n_lists: int,
    seed: int = EVALUATION_SEED,
) -> dict[str, float]:
    """Exact-match accuracy (count, terminator, end) on held-out lists: overall and by wording.

    Every list is asked in every wording with its full instruction. Each length with each count
    comes in turn, in random order. Also by count, length and category.
    """
    rng = random.Random(seed)
    shapes = [
        (length, count)
        for length in range(corpus.config.min_length, corpus.config.max_length + 1)
        for count in range(length + 1)
    ]
    rng.shuffle(shapes)
    lists = [
        corpus.draw_list(rng, held_out=True, shape=shapes[index % len(shapes)])
        for index in range(n_lists)
    ]
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
    seed: int = EVALUATION_SEED,
) -> dict[str, float]:
    """How much of the running count passes through the list positions after a prefix.

    Held-out pairs share the words after the prefix and differ in the count before it. The residual
    stream leaving `after_layer` blocks, from the first shared word to the list's last word, is
    taken from the donor. Slope of the change of the expected count on the running-count difference
    with its 95 % interval, and the share of answers shifted by exactly that difference. All
    wordings in turn, with their instruction.
    """
    rng = random.Random(seed)
    shifts, changes, answers, base_answers = [], [], [], []
    for index, start in enumerate(range(0, n_pairs, BATCH_ROWS)):
        wording = corpus.templates[index % len(corpus.templates)]
        n = min(BATCH_ROWS, n_pairs - start)
        drawn = [corpus.draw_pair(rng, held_out=True) for _ in range(n)]
        pairs = encode_pairs(drawn, [wording] * n, [False] * n, corpus, tokenizer)
        candidates = count_token_ids(tokenizer, wording, corpus.config.max_length)
        plain, patched, _ = swapped_streams(model, pairs, after_layer)
        rows, at = torch.arange(n), answer_positions(pairs)
        before = unembed(model, plain[rows, at])[:, candidates]
        after = unembed(model, patched[rows, at])[:, candidates]
        shifts.append(pairs.shift.numpy())
        changes.append((expected_count(after) - expected_count(before)).numpy())
        answers.append(after.argmax(-1).numpy())
        base_answers.append(before.argmax(-1).numpy())
    shift = np.concatenate(shifts)
    slope = slope_through_origin(shift, np.concatenate(changes))
    shifted = shifted_accuracy(np.concatenate(answers), np.concatenate(base_answers), shift)
    return {
        "estimate": slope.estimate,
        "ci_low": slope.ci_low,
        "ci_high": slope.ci_high,
        "shifted_accuracy": shifted.estimate,
    }


def answer_positions(pairs: PairBatch) -> torch.Tensor:
    """Position, per base row, that predicts the count: the first scored one; int64 [n]."""
    first = torch.full((pairs.n,), pairs.rows.ids.shape[1])
    of_base = pairs.rows.row < pairs.n
    return first.scatter_reduce(
        0, pairs.rows.row[of_base], pairs.rows.position[of_base], reduce="amin"
    )


def expected_count(logits: torch.Tensor) -> torch.Tensor:
    """Mean count under the probabilities of the candidates 0 … n−1; logits [row, candidate]."""
    return logits.double().softmax(-1) @ torch.arange(logits.shape[-1], dtype=torch.float64)


@torch.no_grad()
def running_count_probe(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CountingCorpus,
    after_layer: int,
    n_lists: int,
    seed: int = EVALUATION_SEED,
) -> dict[str, float]:
    """Ridge probe of the running count at the list words, folds by list, all wordings in turn.

    `r2_place`: what the word's place in the list predicts, since the running count grows with it;
    `r2`: place and residual stream; `partial_r2`: the share of the rest that the stream explains.
    """
    rng = random.Random(seed + PROBE_STREAM)
    states, counts, places, groups = [], [], [], []
    for index, start in enumerate(range(0, n_lists, BATCH_ROWS)):
        n = min(BATCH_ROWS, n_lists - start)
        lists = [corpus.draw_list(rng, held_out=True) for _ in range(n)]
        wording = corpus.templates[index % len(corpus.templates)]
        batch = encode_rows([corpus.row(x, wording, False) for x in lists], tokenizer)
        hidden = run_blocks(model, embed(model, batch.ids), 0, after_layer)
        states.append(hidden[batch.word_places[:, 0], batch.word_places[:, 1]].numpy())
        counts.append(batch.word_labels[:, 1].numpy())
        places += [place for drawn in lists for place in range(len(drawn.words))]
        groups.append(batch.word_places[:, 0].numpy() + start)
    found = partial_probe(
        np.concatenate(states), np.concatenate(counts), places, np.concatenate(groups), seed=seed
    )
    return {
        "r2": found.r2_full,
        "r2_place": found.r2_position,
        "partial_r2": found.partial_r2.estimate,
        "partial_ci_low": found.partial_r2.ci_low,
        "partial_ci_high": found.partial_r2.ci_high,
    }
