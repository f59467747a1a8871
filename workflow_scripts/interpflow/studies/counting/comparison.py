"""Models of the study against each other on the same prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.errors import UserError
from interpflow.stats.paired import cochran_q, pairwise_differences
from interpflow.stats.record import CONTAMINATED, Estimate, flagged_row
from interpflow.studies.counting.benchmark import read_answers
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance


def compare(
    answers: Mapping[str, Path | str],
    estimates_path: Path | str,
    provenance: Provenance | None = None,
    *,
    contaminated: Collection[str] = (),
) -> None:
    """Write the table `estimates`: Cochran's Q over all models, then every pair, Holm-adjusted.

    With one model the table is empty. When some of the data was made or validated by one of the
    models (`contaminated`), every comparison carries the flag. Raises UserError when models
    answered different prompts.
    """
    tables = {name: read_rows(path, "counting_answers") for name, path in answers.items()}
    rows = [] if len(tables) < 2 else _comparison_rows(tables)
    if contaminated:
        rows = [flagged_row(row, CONTAMINATED) for row in rows]
    write_table(estimates_path, "estimates", rows, provenance)


def _comparison_rows(tables: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    ids = [[row["example_id"] for row in rows] for rows in tables.values()]
    if any(found != ids[0] for found in ids):
        raise UserError(
            "the models answered different prompts",
            where="results/counting",
            remedy="delete the answers.parquet files and run again",
        )
    first = next(iter(tables.values()))
    truth = np.array([row["count"] for row in first])
    families = np.array([row["family_id"] for row in first])
    clusters = families if len(set(families)) < len(families) else None
    out = []
    for position, readout in enumerate(("scored", "generated")):
        correct = np.column_stack(
            [read_answers(rows)[position].answers == truth for rows in tables.values()]
        )
        estimates: list[Estimate] = [
            cochran_q(correct),
            *pairwise_differences(correct, list(tables), clusters=clusters),
        ]
        out += [
            {
                "study": "counting",
                "model": "all" if estimate.quantity == "Cochran Q" else estimate.quantity,
                "analysis": readout,
                "factor": "all",
                "level": "all",
                **estimate.to_row(),
            }
            for estimate in estimates
        ]
    return out
