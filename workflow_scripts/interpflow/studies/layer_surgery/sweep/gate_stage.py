"""The intact model: what it answers, which tasks are analysed, and proof that plans are run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.engine import load
from interpflow.engine.layers.plan_gates import check_plan_execution
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.inference.batching import Progress
from interpflow.inference.surgery.answers import measure_answers
from interpflow.inference.surgery.generations import intact_texts
from interpflow.inference.surgery.rows import Rows, answer_rows, text_rows
from interpflow.models.named import load_named
from interpflow.models.tokens import encode_all, special_prefix
from interpflow.plans.layer_plan import LayerPlan
from interpflow.studies.layer_surgery.sweep.gate_document import (
    ACCURACY,
    GATES_DOCUMENT,
    difficulty,
)
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.nlp.items import TaskItem, items_of_rows
from interpflow.tasks.nlp.scorers import is_correct

Row = dict[str, Any]
WRITTEN, IMPROBABLE = "written", "improbable"
# Rows and tokens of neutral text on which it is proven that plans are run.
GATE_ROWS, GATE_TOKENS = 3, 24
# Tokens written beyond the longest accepted answer of a task: they show whether the answer ends
# there. A free answer may be said in more words than the reference.
EXTRA_TOKENS, EXTRA_FREE_TOKENS = 3, 24

MEASURED = ("n_tokens", "log_prob", "rank", "answered", "generated", "correct")

logger = logging.getLogger("layer_surgery.intact")


def run_intact(
    name: str,
    model_settings: ModelSettings,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    items_path: Path | str,
    texts_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    intact_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `surgery_intact`, a row for every item, and the document
    `layer_surgery_gates`.

    An item without a score keeps its row with the reason; one that a language model wrote and whose
    answer the intact model finds too unlikely is unscored as "improbable". Raises RuntimeError when
    a gate of layer plans fails, before anything is written.
    """
    items = read_rows(items_path, "surgery_items")
    texts = read_rows(texts_path, "surgery_texts")
    module, tokenizer = load_named(name, model_settings, device=device)
    dtype = str(module.dtype).removeprefix("torch.")
    model = load(module, device=device, dtype=dtype, tokenizer=tokenizer)
    rows = answer_rows(tokenizer, items, model.max_length)
    documents = text_rows(tokenizer, texts, settings.texts.max_tokens, model.max_length)
    gates = check_plan_execution(model, _gate_rows(documents, rows))
    logger.info("%s: %d gates of layer plans", name, len(gates.rows))
    measured = measure_answers(
        model, [LayerPlan.of(range(model.n_layers))], list(rows.rows.values()),
        tokens_per_batch=tokens_per_batch, progress=Progress(len(rows.rows), "items", logger),
    )[0]  # fmt: skip
    written = settings.tasks.written
    floor = None if written is None else written.min_log_prob
    by_id = {row["example_id"]: row for row in measured}
    texts_of = _generated(model, items, rows, tokens_per_batch)
    for row in measured:
        row["generated"], row["correct"] = texts_of[row["example_id"]]
    intact = [
        _intact_row(item, by_id.get(item["example_id"]), rows.unscored, floor) for item in items
    ]
    tasks = difficulty(intact, settings.tasks.min_accuracy, settings.analysis.level)
    for task, found in tasks.items():
        if not found["analysed"]:
            logger.warning("%s: task %s is not analysed: %s", name, task, found["reason"])
    write_table(intact_path, "surgery_intact", intact, provenance)
    content = {
        "model": name,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "accuracy": ACCURACY,
        "tasks": tasks,
        "documents": _text_counts(texts, documents),
        "gates": gates.to_rows(),
    }
    write_document(document_path, GATES_DOCUMENT, content, provenance)


def _generated(
    model: Model, items: list[Row], rows: Rows, tokens_per_batch: int
) -> dict[str, tuple[str, bool | None]]:
    """By item that has a score, what the intact model writes and whether that is right."""
    named = zip((row["example_id"] for row in items), items_of_rows(items), strict=True)
    scored = {name: item for name, item in named if name in rows.rows}
    limits = _limits(model.tokenizer, list(scored.values()))
    written = intact_texts(
        model, [rows.rows[name] for name in scored],
        [limits[item.task] for item in scored.values()], tokens_per_batch=tokens_per_batch,
    )  # fmt: skip
    return {
        name: (text, is_correct(item, text))
        for (name, item), text in zip(scored.items(), written, strict=True)
    }


def _limits(tokenizer: Any, items: Sequence[TaskItem]) -> dict[str, int]:
    """Tokens to be written for each task."""
    answers = {item.task: dict[str, None]() for item in items}
    for item in items:
        answers[item.task] |= dict.fromkeys((item.answer, *(f" {each}" for each in item.accepted)))
    free = {item.task for item in items if item.scorer == "free"}
    n_special = len(special_prefix(tokenizer))
    return {
        task: max(len(each.ids) for each in encode_all(tokenizer, list(found))) - n_special
        + (EXTRA_FREE_TOKENS if task in free else EXTRA_TOKENS)
        for task, found in answers.items()
    }  # fmt: skip


def _intact_row(
    item: Mapping[str, Any],
    measured: Mapping[str, Any] | None,
    unscored: Mapping[str, str],
    min_log_prob: float | None,
) -> Row:
    row = {column: item[column] for column in ("example_id", "family_id", "split", "task", "kind")}
    if measured is None:
        return {
            **row,
            **dict.fromkeys(MEASURED),
            "generated": "",
            "unscored": unscored[item["example_id"]],
        }
    unlikely = (
        item["source"] == WRITTEN
        and min_log_prob is not None
        and measured["log_prob"] / measured["n_tokens"] < min_log_prob
    )
    kept = {column: measured[column] for column in MEASURED}
    return {**row, **kept, "unscored": IMPROBABLE if unlikely else ""}


def _text_counts(texts: list[Row], rows: Rows) -> dict[str, Any]:
    """By use: documents in, documents with a score, and why others have none."""
    found: dict[str, Any] = {}
    for use in sorted({text["use"] for text in texts}):
        ids = [text["document_id"] for text in texts if text["use"] == use]
        found[use] = {
            "n_documents": len(ids),
            "n_scored": sum(name in rows.rows for name in ids),
            "unscored": dict(Counter(rows.unscored[name] for name in ids if name in rows.unscored)),
        }
    return found


def _gate_rows(documents: Rows, items: Rows) -> list[tuple[int, ...]]:
    """Rows that plans are proven on: neutral text, or prompts where there is none."""
    longest = sorted(
        (row.tokens for row in (documents.rows or items.rows).values()), key=lambda row: -len(row)
    )
    if not longest:
        raise UserError(
            "neither a document nor an item has a token to score",
            where="layer_surgery.texts",
            remedy="use texts and tasks that this model's tokenizer knows",
        )
    return [row[:GATE_TOKENS] for row in longest[:GATE_ROWS]]
