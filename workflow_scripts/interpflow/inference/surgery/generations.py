"""Text that a model writes after a prompt under layer plans, and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interpflow.engine.layers.execute import TOKENS_PER_PASS
from interpflow.engine.layers.generate import generate_with_plan
from interpflow.engine.model import Model
from interpflow.inference.batching import Progress
from interpflow.inference.generation import end_tokens
from interpflow.inference.surgery.plan_batches import NOTHING, Surroundings
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.plans.layer_plan import LayerPlan
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.scorers import is_correct
from interpflow.tasks.nlp.text_quality import format_score, repetition

Row = dict[str, Any]


def measure_generations(
    model: Model,
    plans: Sequence[LayerPlan],
    rows: Sequence[ScoredRow],
    items: Mapping[str, TaskItem],
    surroundings: Surroundings = NOTHING,
    *,
    max_new_tokens: int,
    tokens_per_batch: int = TOKENS_PER_PASS,
    progress: Progress | None = None,
) -> list[list[Row]]:
    """Of each plan, a row of the table `surgery_generations` for each item (without the columns
    `plan` and `run`): the greedy text of at most `max_new_tokens` tokens, which an end token ends.

    rows: the items' rows, whose answers are left out. correct: by the item's scorer, null where a
    judge decides; format_score: 1 where the text begins with something of the answer's form;
    repetition: share of repeated runs of four words.
    """
    prompts = [row.tokens[: row.prompt] for row in rows]
    donors = [surroundings.donors.get(row.item_id, ()) for row in rows]
    ends = end_tokens(model.module, model.tokenizer)
    found = []
    for plan in plans:
        written = generate_with_plan(
            model, plan, prompts, max_new_tokens=max_new_tokens, ends=ends,
            neutral=surroundings.neutral, donors=donors if any(map(len, donors)) else None,
            seed=surroundings.seed, tokens_per_pass=tokens_per_batch,
        )  # fmt: skip
        found.append(
            [
                _row(items[row.item_id], model.tokenizer.decode(tokens), len(tokens))
                for row, tokens in zip(rows, written)
            ]
        )
        if progress is not None:
            progress.advance(len(rows), sum(map(len, written)))
    return found


def intact_texts(
    model: Model,
    rows: Sequence[ScoredRow],
    max_new_tokens: Sequence[int],
    *,
    tokens_per_batch: int = TOKENS_PER_PASS,
) -> list[str]:
    """The greedy text of the intact model after each item's prompt, of at most `max_new_tokens[i]`
    tokens, of fewer where the context ends; an end token ends it."""
    plan = LayerPlan.of(range(model.n_layers))
    ends = end_tokens(model.module, model.tokenizer)
    found: dict[int, str] = {}
    by_length: dict[int, list[int]] = {}
    for number, (row, wanted) in enumerate(zip(rows, max_new_tokens, strict=True)):
        room = model.max_length - row.prompt + 1 if model.max_length else wanted
        by_length.setdefault(min(wanted, room), []).append(number)
    for length, numbers in sorted(by_length.items()):
        prompts = [rows[number].tokens[: rows[number].prompt] for number in numbers]
        written = generate_with_plan(
            model, plan, prompts, max_new_tokens=length, ends=ends, tokens_per_pass=tokens_per_batch
        )
        found.update(zip(numbers, map(model.tokenizer.decode, written)))
    return [found[number] for number in range(len(rows))]


def fits(model: Model, row: ScoredRow, max_new_tokens: int) -> bool:
    """Whether a generation of so many tokens fits into the model's context."""
    return not model.max_length or row.prompt + max_new_tokens - 1 <= model.max_length


def _row(item: TaskItem, text: str, n_tokens: int) -> Row:
    return {
        "example_id": item.example_id,
        "text": text,
        "n_tokens": n_tokens,
        "correct": is_correct(item, text),
        "format_score": format_score(item, text),
        "repetition": repetition(text),
    }
