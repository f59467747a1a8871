"""Items of tasks that the role generator writes, and what is kept of them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interpflow.config.identity import content_hash, derived_seed
from interpflow.config.layer_surgery import WrittenTasks
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.answers import Answer
from interpflow.llm.asking import answer
from interpflow.llm.asks import Ask, Turn
from interpflow.studies.layer_surgery.data.judging import item_verdicts
from interpflow.studies.layer_surgery.data.written_filters import (
    NOT_NEEDED,
    Written,
    listed_prompts,
    same_by_embedding,
    same_by_words,
)
from interpflow.tables.parquet import write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.writing import ITEMS_SCHEMA, items_question, read_item

LOGGER = logging.getLogger(__name__)
ITEMS_PER_CALL = 12
# Written for each item that is missing, as some will not be kept.
OVERSAMPLE = 1.5
MAX_AVOIDED = 60
TOKENS_PER_ITEM, TOKENS_AROUND = 120, 256
# More calls than one round makes for one task: keeps the draws of rounds apart.
CALLS_PER_ROUND = 10_000
SYSTEM = "You write test items for language models: factually right, varied and unambiguous."


def write_items(
    config: Config, *, written_path: Path | str, provenance: Provenance | None = None
) -> None:
    """Write the table `surgery_written`: every item written, kept or not, with the reason.

    Each round asks for what is missing of each task, and filters it by form, by likeness to the
    built-in items and those kept (words, then sentence embeddings), and by the judges' verdict.
    Raises UserError where a service or the embedding cannot be used, every answer bought by then is
    kept; and where no item of a task is kept, naming the reasons.
    """
    study = config.layer_surgery
    if study is None or study.tasks.written is None:
        raise UserError("no items are to be written", where="layer_surgery.tasks.written",
                        remedy="name tasks there")  # fmt: skip
    settings = study.tasks.written
    written: list[Written] = []
    for number in range(1, settings.rounds + 1):
        missing = {task: settings.n_items - n for task, n in kept_of(written, settings).items()}
        asks = list(round_asks(settings, written, missing, number, config.seed))
        if not asks:
            break
        replies = answer(
            [ask for ask, _ in asks], config.llm.roles.generator, config.llm,
            purpose=f"items of tasks, round {number}", models=config.models,
        )  # fmt: skip
        found = [
            each
            for (_, task), reply in zip(asks, replies, strict=True)
            for each in read_reply(task, reply, number)
        ]
        written += filtered(config, settings, found, written)
        LOGGER.info("round %d: %d items written, %d kept so far", number, len(found),
                    sum(not each.reason for each in written))  # fmt: skip
    _check(written, settings)
    write_table(written_path, "surgery_written", [_row(each) for each in written], provenance)


def kept_of(written: Sequence[Written], settings: WrittenTasks) -> dict[str, int]:
    """Items kept of each task."""
    return {
        task: sum(each.item.task == task and not each.reason for each in written)
        for task in settings.tasks
    }


def round_asks(
    settings: WrittenTasks, written: Sequence[Written], missing: dict[str, int], number: int,
    seed: int,
) -> Iterator[tuple[Ask, str]]:  # fmt: skip
    """The asks of a round with their tasks, as many as the missing items need."""
    for task, description in settings.tasks.items():
        n_wanted = math.ceil(OVERSAMPLE * missing[task]) if missing[task] > 0 else 0
        avoid = [each.item.prompt for each in written if each.item.task == task and not each.reason]
        for call, first in enumerate(range(0, n_wanted, ITEMS_PER_CALL)):
            n = min(ITEMS_PER_CALL, n_wanted - first)
            ask = Ask(
                id=f"round {number}, {task}, call {call}",
                system=SYSTEM,
                turns=(Turn("user", items_question(task, description, n, avoid[-MAX_AVOIDED:])),),
                schema=ITEMS_SCHEMA,
                max_tokens=TOKENS_AROUND + TOKENS_PER_ITEM * n,
                # Every call is a draw of its own: equal asks must not share an answer.
                sample=number * CALLS_PER_ROUND + call,
                item={
                    "task": "surgery_items",
                    "name": task,
                    "n": n,
                    "seed": derived_seed(seed, "layer_surgery", "written"),
                },
            )
            yield ask, task


def read_reply(task: str, reply: Answer, number: int) -> list[Written]:
    """The items of an answer, rejected where their form is wrong; one empty, rejected item for an
    answer that did not come."""
    if reply.outcome != "ok" or not isinstance(reply.data, dict):
        nothing = TaskItem(task=task, prompt="", answer="", source="written", family=reply.id)
        return [Written(nothing, number, f"no answer: {reply.outcome}")]
    read = [read_item(task, each) for each in reply.data["items"]]
    return [Written(item, number, reason) for item, reason in read]


def filtered(
    config: Config, settings: WrittenTasks, found: Sequence[Written], before: Sequence[Written]
) -> list[Written]:
    """The items of a round in their order, those that are not kept with their reason."""
    known = [*listed_prompts(), *(each.item for each in before if not each.reason)]
    after = list(found)
    for place, each in enumerate(after):
        if not each.reason:
            same = same_by_words(each.item, known)
            if same:
                after[place] = replace(each, reason=f"duplicate of: {same}")
            else:
                known.append(each.item)
    earlier = [*listed_prompts(), *(each.item for each in before if not each.reason)]
    _reject(
        after,
        lambda items: [
            f"near duplicate of: {same}" if same else ""
            for same in same_by_embedding(items, earlier, max_similarity=settings.max_similarity)
        ],
    )
    _reject(
        after,
        lambda items: [
            "" if verdict == "correct" else f"judged {verdict}"
            for verdict in item_verdicts(config, items, settings.tasks)
        ],
    )
    kept = kept_of(before, settings)
    for place, each in enumerate(after):
        if not each.reason:
            kept[each.item.task] += 1
            if kept[each.item.task] > settings.n_items:
                after[place] = replace(each, reason=NOT_NEEDED)
    return after


def _reject(after: list[Written], check: Any) -> None:
    """Put the reasons of a check, "" for none, to the items that had none before."""
    places = [place for place, each in enumerate(after) if not each.reason]
    reasons = check([after[place].item for place in places])
    for place, reason in zip(places, reasons, strict=True):
        after[place] = replace(after[place], reason=reason)


def _check(written: Sequence[Written], settings: WrittenTasks) -> None:
    for task, n in kept_of(written, settings).items():
        if not n:
            # Of duplicates the prompt that they repeat says nothing here.
            reasons = Counter(
                each.reason.split(" of: ")[0] for each in written if each.item.task == task
            )
            shown = ", ".join(f"{reason} ({times})" for reason, times in reasons.most_common())
            raise UserError(
                f"no written item of {task!r} can be kept: {shown}",
                where=f"layer_surgery.tasks.written.tasks.{task}",
                remedy="describe the task in more detail, let other models play the roles "
                "generator and judge, or leave the task out",
            )
        if n < settings.n_items:
            LOGGER.warning("%s: %d of %d items kept", task, n, settings.n_items)


def _row(each: Written) -> dict[str, Any]:
    item = each.item
    return {
        "example_id": item.example_id if item.prompt else content_hash([item.task, item.family]),
        "task": item.task,
        "round": each.round,
        "prompt": item.prompt,
        "answer": item.answer,
        "scorer": item.scorer,
        "accepted": list(item.accepted),
        "pattern": item.pattern,
        "kept": not each.reason,
        "reason": each.reason,
    }
