"""What the model of small tasks can do, and what each of its blocks is worth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from interpflow.models.reference.architecture import embed, logits_at, run_blocks, unembed
from interpflow.models.reference.evaluate import BATCH_ROWS
from interpflow.models.reference.interchange import rows_right
from interpflow.models.reference.rows import Batch, Row, encode_rows
from interpflow.models.reference.small_tasks_corpus import SmallTasksMaterial, answer_rows
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items, end_of
from interpflow.tasks.nlp.held_out import GENERATED_TASKS
from interpflow.tasks.nlp.items import TaskItem

HIT = 0.1  # nats: a token whose loss rises by more has felt that a block is missing


def small_tasks_metrics(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    material: SmallTasksMaterial,
    n_items: int,
    n_stories: int,
    seed: int,
) -> dict[str, Any]:
    """Accuracy by task, loss on new stories, and what it costs to skip each block.

    Accuracy: an accepted answer and what ends it, greedy; `n_items` held-out items of a generated
    task, all items of a listed one. Losses in nats per token; `skip_cost`: by how much the loss on
    stories rises, on which share of their tokens it rises by more than `HIT`, and by how much that
    of the answers rises, in the mean of all tasks; by number of block.
    """
    items = {task: _items(task, n_items, seed) for task in BUILTIN_TASKS}
    right = {
        f"task/{task}": items_right(model, tokenizer, chosen) for task, chosen in items.items()
    }
    right["overall"] = [found for values in right.values() for found in values]
    rng = random.Random(seed)
    told = encode_rows([material.story_row(rng) for _ in range(n_stories)], tokenizer)
    asked = [_asked(chosen, tokenizer) for chosen in items.values()]
    blocks = range(model.config.num_hidden_layers)
    story_losses = token_losses(model, told, blocks)
    answer_loss = _mean([mean_loss(model, batch, blocks) for batch in asked])
    skip_cost = {}
    for block in blocks:
        left = [other for other in blocks if other != block]
        rise = token_losses(model, told, left) - story_losses
        skip_cost[str(block)] = {
            "stories": float(rise.mean()),
            "hit_tokens": float((rise > HIT).float().mean()),
            "answers": _mean([mean_loss(model, batch, left) for batch in asked]) - answer_loss,
        }
    return {
        "accuracy": {key: _mean(values) for key, values in right.items()},
        "n_items": n_items,
        "n_stories": n_stories,
        "story_loss": float(story_losses.mean()),
        "answer_loss": answer_loss,
        "skip_cost": skip_cost,
    }


def _items(task: str, n_items: int, seed: int) -> list[TaskItem]:
    return builtin_items(task, n_items if task in GENERATED_TASKS else None, seed)


@torch.no_grad()
def items_right(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, items: Sequence[TaskItem]
) -> list[bool]:
    """Whether greedy decoding gives an accepted answer of each item and what ends it."""
    rows = [(index, row) for index, item in enumerate(items) for row in answer_rows(item)]
    right = [False] * len(items)
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        batch = without_end_of_text(encode_rows([row for _, row in part], tokenizer))
        logits = logits_at(model, batch.ids, batch.row, batch.position)
        found = rows_right(logits, batch.target, batch.row, len(part)).tolist()
        for (index, _), is_right in zip(part, found, strict=True):
            right[index] = right[index] or is_right
    return right


def without_end_of_text(batch: Batch) -> Batch:
    """The batch without its rows' last predictions: an item is followed by the end or the next."""
    last = batch.row.diff(append=torch.tensor([-1])) != 0
    return replace(
        batch,
        row=batch.row[~last],
        position=batch.position[~last],
        target=batch.target[~last],
    )


def _asked(items: Sequence[TaskItem], tokenizer: PreTrainedTokenizerFast) -> Batch:
    rows = [Row.answering(item.prompt, item.answer + end_of(item.task)) for item in items]
    return without_end_of_text(encode_rows(rows, tokenizer))


@torch.no_grad()
def token_losses(model: LlamaForCausalLM, batch: Batch, blocks: Sequence[int]) -> torch.Tensor:
    """Nats of each scored token, [scored], when the given blocks run, one after the other."""
    hidden = embed(model, batch.ids)
    for block in blocks:
        hidden = run_blocks(model, hidden, block, block + 1)
    logits = unembed(model, hidden[batch.row, batch.position])
    return cross_entropy(logits, batch.target, reduction="none")


def mean_loss(model: LlamaForCausalLM, batch: Batch, blocks: Sequence[int]) -> float:
    """Nats per scored token when the given blocks run, one after the other."""
    return float(token_losses(model, batch, blocks).mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
