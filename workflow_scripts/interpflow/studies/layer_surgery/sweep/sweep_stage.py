"""A model under every plan of the sweep: answers, loss on neutral text, generations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.experiments.spec import TABLES, Measure
from interpflow.inference.surgery.generations import fits
from interpflow.plans.families import INTACT, SweepPlan, generating_plans, sweep_plans
from interpflow.studies.layer_surgery.sweep.gate_document import analysed_tasks, read_gates
from interpflow.studies.layer_surgery.sweep.laboratory import ModelLaboratory, open_laboratory
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tables.schemas import table_schema

Row = dict[str, Any]
SWEEP_DOCUMENT = "layer_surgery_sweep"
STRUCTURED = "structured"

logger = logging.getLogger("layer_surgery.sweep")


def run_sweep(
    name: str,
    model_settings: ModelSettings,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    items_path: Path | str,
    texts_path: Path | str,
    intact_path: Path | str,
    gates_path: Path | str,
    store_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    plans_path: Path | str,
    answers_path: Path | str,
    losses_path: Path | str,
    generations_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Run what the store does not have and merge the tables `surgery_plans`, `surgery_answers`,
    `surgery_text_losses` and `surgery_generations` of one model.

    Structured plans: answers of the analysed tasks, and all documents to be measured. Random
    orders and controls: the first `null_documents` documents of the confirm split. Generations:
    under the plans that the settings choose, of some confirm items of each task.
    """
    items = read_rows(items_path, "surgery_items")
    texts = read_rows(texts_path, "surgery_texts")
    tasks = set(analysed_tasks(read_gates(gates_path)))
    intact = read_rows(intact_path, "surgery_intact")
    laboratory = open_laboratory(
        name, model_settings, settings, seed, items=items, texts=texts, store_path=store_path,
        device=device, tokens_per_batch=tokens_per_batch,
    )  # fmt: skip
    plans = sweep_plans(
        settings.plans, laboratory.n_layers, laboratory.n_heads,
        derived_seed(seed, "layer_surgery", "plans"),
    )  # fmt: skip
    structured = [plan for plan in plans if plan.role == STRUCTURED]
    others = [plan for plan in plans if plan.role != STRUCTURED]
    scored = [row for row in intact if not row["unscored"] and row["task"] in tasks]
    answers = [row["example_id"] for row in scored]
    documents = measured_documents(laboratory)
    null = measured_documents(laboratory, "confirm")[: settings.plans.null_documents]
    chosen = generating_plans(structured, settings.measures.generate)
    prompts = generated_items(laboratory, scored)
    runs: list[tuple[Measure, Sequence[SweepPlan], list[str], str]] = [
        ("answers", structured, answers, "answers under plans"),
        ("text", structured, documents, "documents under plans"),
        ("text", others, null, "documents under random orders and controls"),
        ("generation", chosen, prompts, "prompts continued under plans"),
    ]
    tables: dict[Measure, list[pa.Table]] = {measure: [] for measure in TABLES}
    counts: list[Row] = []
    for measure, some, ids, progress in runs:
        table, n_new = _merged(laboratory, some, measure, ids, progress)
        tables[measure].append(table)
        counts.append(
            {
                "measure": measure, "what": progress, "n_plans": len(some), "n_items": len(ids),
                "n_rows": table.num_rows, "n_new": n_new,
            }
        )  # fmt: skip
    rows = [plan.to_row(laboratory.n_layers) for plan in plans]
    write_table(plans_path, "surgery_plans", rows, provenance)
    paths: dict[Measure, Path | str] = {
        "answers": answers_path, "text": losses_path, "generation": generations_path
    }  # fmt: skip
    for measure, path in paths.items():
        joined = pa.concat_tables(tables[measure]).unify_dictionaries()
        write_table(path, TABLES[measure][0], joined, provenance)
    _write_document(document_path, name, laboratory, plans, tasks, counts, provenance)


def measured_documents(laboratory: ModelLaboratory, split: str | None = None) -> list[str]:
    """Documents whose loss is measured (of a split), by id."""
    return sorted(
        name
        for name, text in laboratory.texts.items()
        if text["use"] == "measure"
        and split in (None, text["split"])
        and name in laboratory.text_rows.rows
    )


def generated_items(laboratory: ModelLaboratory, scored: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each task the first confirm items by id, one of each family, that leave room in the
    context. scored: rows of `surgery_intact`."""
    measures = laboratory.settings.measures
    found: dict[str, list[str]] = {}
    families: set[str] = set()
    for row in sorted(scored, key=lambda row: row["example_id"]):
        place = laboratory.answer_rows.rows[row["example_id"]]
        if row["split"] != "confirm" or row["family_id"] in families:
            continue
        of_task = found.setdefault(row["task"], [])
        has_room = fits(laboratory.model, place, measures.max_new_tokens)
        if has_room and len(of_task) < measures.n_generated:
            families.add(row["family_id"])
            of_task.append(row["example_id"])
    return [name for task in sorted(found) for name in found[task]]


def _merged(
    laboratory: ModelLaboratory,
    plans: Sequence[SweepPlan],
    measure: Measure,
    ids: Sequence[str],
    progress: str,
) -> tuple[pa.Table, int]:
    """Rows of the plans as one table, and how many of them were newly run."""
    if not plans or not ids:
        return table_schema(TABLES[measure][0]).empty_table(), 0
    named = [plan.named for plan in plans]
    specs, n_new = laboratory.run_missing(named, measure, ids, progress=progress)
    return laboratory.store.merged(specs), sum(n_new.values())


def _write_document(
    path: Path | str,
    name: str,
    laboratory: ModelLaboratory,
    plans: Sequence[SweepPlan],
    tasks: set[str],
    counts: list[Row],
    provenance: Provenance | None,
) -> None:
    """How much was measured. What was found in the store is left out: the document of a model does
    not depend on what was run before."""
    n_new = sum(count.pop("n_new") for count in counts)
    logger.info(
        "%s: %d plans, %d of %d rows newly run, %d tokens", name, len(plans), n_new,
        sum(count["n_rows"] for count in counts), laboratory.forward_tokens,
    )  # fmt: skip
    roles = [plan.role for plan in plans]
    content = {
        "model": name,
        "n_layers": laboratory.n_layers,
        "plans": {role: roles.count(role) for role in sorted(set(roles))},
        "families": {
            family: sum(family in plan.families for plan in plans)
            for family in dict.fromkeys(each for plan in plans for each in plan.families)
        },
        "intact": next(str(plan.plan) for plan in plans if INTACT in plan.families),
        "tasks": sorted(tasks),
        "measures": counts,
    }
    write_document(path, SWEEP_DOCUMENT, content, provenance)
