"""Test what each plan costs one model, and decide the claims named beforehand."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.studies.layer_surgery.effects.answer_effects import answer_rows, generation_rows
from interpflow.studies.layer_surgery.effects.claim_list import CLAIMS_FILE, read_claims
from interpflow.studies.layer_surgery.effects.claims import claim_rows, decide_claims
from interpflow.studies.layer_surgery.effects.endpoints import ENDPOINTS, endpoint_rows
from interpflow.studies.layer_surgery.effects.outcomes import (
    FREE_DOCUMENT,
    Outcomes,
    read_outcomes,
)
from interpflow.studies.layer_surgery.effects.text_effects import (
    band_rows,
    control_rows,
    influence_rows,
    order_rows,
    text_rows,
)
from interpflow.studies.layer_surgery.estimate_rows import Analyst, Row
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

LOG = logging.getLogger(__name__)

DOCUMENT = "layer_surgery_effects"


def estimate_effects(
    name: str,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    items_path: Path | str,
    texts_path: Path | str,
    plans_path: Path | str,
    intact_path: Path | str,
    answers_path: Path | str,
    losses_path: Path | str,
    generations_path: Path | str,
    exits_path: Path | str,
    lens_estimates_path: Path | str,
    estimates_path: Path | str,
    document_path: Path | str,
    free_path: Path | str | None = None,
    free_document_path: Path | str | None = None,
    claims_path: Path | str = CLAIMS_FILE,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `estimates` and the document of one model, from the confirm split alone.

    free_path, free_document_path: what judges made of free answers, and of the tasks whose
    difficulty they decide; a task below the floor is left out.
    Raises UserError for claims that cannot be read and tables that are missing or damaged.
    """
    claims = read_claims(claims_path)
    left_out = _left_out(free_document_path)
    outcomes = read_outcomes(
        items_path=items_path, texts_path=texts_path, plans_path=plans_path,
        intact_path=intact_path, answers_path=answers_path, losses_path=losses_path,
        generations_path=generations_path, free_path=free_path, left_out=left_out,
    )  # fmt: skip
    exits = read_rows(exits_path, "surgery_exits")
    analyst = Analyst(name, settings.analysis, seed)
    LOG.info(
        "%s: %d plans, %d documents, %d tasks", name, len(outcomes.plans.rows),
        len(outcomes.losses.documents), len(outcomes.tasks),
    )  # fmt: skip
    endpoints = endpoint_rows(analyst, outcomes, exits)
    decided = decide_claims(analyst, outcomes, claims)
    influence = influence_rows(analyst, outcomes, read_rows(lens_estimates_path, "estimates"))
    rows: list[Row] = [
        *endpoints,
        *text_rows(analyst, outcomes),
        *band_rows(analyst, outcomes),
        *control_rows(analyst, outcomes),
        *order_rows(analyst, outcomes),
        *influence,
        *answer_rows(analyst, outcomes),
        *generation_rows(analyst, outcomes),
        *claim_rows(analyst, decided),
    ]
    write_table(estimates_path, "estimates", rows, provenance)
    document = {
        "model": name,
        "n": _counts(outcomes),
        "left_out": left_out,
        "smallest_effect": settings.analysis.smallest_effect,
        ENDPOINTS: endpoints,
        "influence": influence,
        "claims": [one.to_document() for one in decided],
        "claim_verdicts": dict(Counter(one.verdict for one in decided)),
    }
    write_document(document_path, DOCUMENT, document, provenance)


def _left_out(path: Path | str | None) -> dict[str, str]:
    """Tasks that judges found the intact model not to solve, and why."""
    if path is None:
        return {}
    tasks = read_document(path, FREE_DOCUMENT)["tasks"]
    return {task: found["reason"] for task, found in tasks.items() if not found["analysed"]}


def _counts(outcomes: Outcomes) -> dict[str, Any]:
    return {
        "layers": outcomes.plans.n_layers,
        "plans": dict(Counter(row["role"] for row in outcomes.plans.rows)),
        "documents": len(outcomes.losses.documents),
        "items": {task: len(answers.items) for task, answers in outcomes.tasks.items()},
        "item_families": {
            task: len(set(answers.families.tolist())) for task, answers in outcomes.tasks.items()
        },
        "generations": len(outcomes.generations),
    }
