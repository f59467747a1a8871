"""Search minimal sets of blocks on discover and develop items, confirm them on confirm items."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.errors import UserError
from interpflow.plans.requests import NamedPlan
from interpflow.stats.record import Estimate
from interpflow.studies.layer_surgery.effects.minimal_blocks import (
    Answers,
    ConfirmedSet,
    SearchedTask,
    find_sets,
)
from interpflow.studies.layer_surgery.effects.outcomes import SPLIT
from interpflow.studies.layer_surgery.estimate_rows import Analyst, Row
from interpflow.studies.layer_surgery.sweep.gate_document import analysed_tasks, read_gates
from interpflow.studies.layer_surgery.sweep.laboratory import ModelLaboratory, open_laboratory
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

LOG = logging.getLogger(__name__)

ANALYSIS = "minimal sets"


def search_sets(
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
    sets_path: Path | str,
    estimates_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `surgery_sets` and `estimates` of one model.

    Only items that the intact model answers are run: a set is judged by the share of them that
    stay answered. Raises UserError for a task named in the settings that does not exist.
    """
    items = read_rows(items_path, "surgery_items")
    analysed = analysed_tasks(read_gates(gates_path))
    tasks = searched_tasks(
        items, read_rows(intact_path, "surgery_intact"), analysed, settings.search.tasks
    )
    laboratory = open_laboratory(
        name, model_settings, settings, seed, items=items,
        texts=read_rows(texts_path, "surgery_texts"), store_path=store_path, device=device,
        tokens_per_batch=tokens_per_batch,
    )  # fmt: skip
    LOG.info("%s: minimal sets of %d tasks", name, len(tasks))
    found = find_sets(
        tasks, laboratory.n_layers, settings.search, answers_of(laboratory),
        level=settings.analysis.level,
    )  # fmt: skip
    analyst = Analyst(name, settings.analysis, seed)
    write_table(sets_path, "surgery_sets", map(set_row, found), provenance)
    rows = [row for one in found for row in set_estimates(analyst, one)]
    write_table(estimates_path, "estimates", rows, provenance)


def searched_tasks(
    items: Sequence[Row], intact: Sequence[Row], analysed: Sequence[str], chosen: list[str] | None
) -> list[SearchedTask]:
    """The analysed tasks that are searched, with the items that the intact model answers. A task
    without such items in both parts is left out. Raises UserError for a task without any items."""
    known = sorted({row["task"] for row in items})
    missing = [task for task in chosen or [] if task not in known]
    if missing:
        raise UserError(
            f"there is no task {missing[0]!r}", where="layer_surgery.search.tasks",
            remedy=f"use one of {', '.join(known)}",
        )  # fmt: skip
    answered = {row["example_id"] for row in intact if row["answered"]}
    found = []
    for task in analysed if chosen is None else [one for one in chosen if one in analysed]:
        rows = [row for row in items if row["task"] == task and row["example_id"] in answered]
        confirm = tuple(row["example_id"] for row in rows if row["split"] == SPLIT)
        search = tuple(row["example_id"] for row in rows if row["split"] != SPLIT)
        if confirm and search:
            families = {row["example_id"]: row["family_id"] for row in rows}
            found.append(SearchedTask(task, search, confirm, families))
        else:
            LOG.warning("%s: no items to search or to confirm a minimal set on", task)
    return found


def answers_of(laboratory: ModelLaboratory) -> Answers:
    """Whether items are answered under plans, measured in a laboratory."""

    def answers(
        plans: Sequence[NamedPlan], item_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, bool | None]]:
        measured = laboratory.measure(plans, "answers", item_ids, progress="minimal sets")
        return {
            plan: {row["example_id"]: row["answered"] for row in found.rows}
            for plan, found in measured.items()
        }

    return answers


def set_row(one: ConfirmedSet) -> dict[str, Any]:
    """A row of the table `surgery_sets`."""
    return {
        "task": one.task,
        "kind": one.kind,
        "blocks": " ".join(map(str, one.blocks)),
        "plan": str(one.plan.plan),
        "n_blocks": len(one.blocks),
        "n_tried": one.found.n_tried,
        "found_share": one.found_share,
        "bound_share": one.threshold,
        "is_minimal": one.found.is_minimal,
        "confirmed_share": one.kept.to_row()["estimate"],
        "n_breaking": one.breaks,
        "verdict": one.verdict,
    }


def set_estimates(analyst: Analyst, one: ConfirmedSet) -> list[Row]:
    """What a set is worth on confirm items, and what is left of it without each of its blocks."""
    rows = [analyst.row(ANALYSIS, one.task, one.kind, one.kept)]
    for block, kept in one.one_fewer.items():
        fewer: Estimate = kept.renamed(f"kept without block {block} in the set")
        rows.append(analyst.row(ANALYSIS, one.task, one.kind, fewer))
    return rows
