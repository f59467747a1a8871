"""Which variants keep the meaning of their prompt: every text accepted, or rejected by a reason."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interpflow.config.robustness import RobustnessSettings
from interpflow.errors import UserError
from interpflow.studies.robustness.data.meaning_checks import Checked, check_meanings
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

LOGGER = logging.getLogger(__name__)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# A share of fewer texts says nothing of an operator: its gate is shown and does not stop a run.
MIN_TEXTS = 10
KEPT_COLUMNS = (
    "example_id", "base_id", "family", "operator", "placement", "n_edits", "rate", "strength",
    "variant",
)  # fmt: skip

Row = Mapping[str, Any]


def validate(
    settings: RobustnessSettings,
    *,
    examples_path: Path | str,
    made_path: Path | str,
    meanings_path: Path | str | None = None,
    table_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table and the document `robustness_validation`.

    settings: its `semantics` and `perturbations.edit_protected`. made_path: what could not be made,
    as generation left it; these rows come last. meanings_path: verdicts of the role validator on
    what the other checks let pass; only "same" is accepted then.

    Rejected texts are run like the others; analyses report all of them and the accepted alone. But
    where most of an operator's texts lose the meaning, it is no test of robustness: raises
    UserError naming every operator whose rejected share exceeds `semantics.max_rejected_share`.
    """
    checked = check_meanings(settings, examples_path)
    not_made = read_rows(made_path, "robustness_validation")
    meanings: dict[str, Row] | None = None
    if meanings_path is not None:
        meanings = {row["example_id"]: row for row in read_rows(meanings_path,
                                                                "robustness_meanings")}  # fmt: skip
    rows = [_row(each, meanings) for each in checked]
    document = assess(rows, not_made, settings)
    failed = [gate for gate in document["gates"] if not gate["passed"]]
    if failed:
        raise UserError(
            "most variants of some operators do not keep the meaning:\n"
            + "\n".join(_failure(gate, rows) for gate in failed),
            where="robustness.semantics.max_rejected_share",
            remedy="leave the operators out of robustness.perturbations.operators, ask for fewer "
            "edits, lower robustness.semantics.min_similarity, or allow a larger share",
        )
    write_table(table_path, "robustness_validation", [*rows, *not_made], provenance)
    write_document(document_path, "robustness_validation", document, provenance)
    LOGGER.info(
        "%d of %d texts accepted; %d could not be made",
        document["n_accepted"], document["n_texts"], len(not_made),
    )  # fmt: skip


def assess(
    rows: Sequence[Row], not_made: Sequence[Row], settings: RobustnessSettings
) -> dict[str, Any]:
    """Counts by operator and reason, similarities, and the gates on them."""
    by_operator: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_operator[row["operator"]].append(row)
    missing: dict[str, Counter[str]] = defaultdict(Counter)
    for row in not_made:
        missing[row["operator"]][row["reason"]] += 1
    limit = settings.semantics.max_rejected_share
    operators = {
        name: {
            "family": found[0]["family"],
            "n_texts": len(found),
            "n_accepted": sum(row["accepted"] for row in found),
            "rejected": dict(Counter(row["reason"] for row in found if not row["accepted"])),
            "n_not_made": sum(missing[name].values()),
            "not_made": dict(missing[name]),
            "similarity": _quantiles(found),
            "by_dose": _by_dose(found),
        }
        for name, found in by_operator.items()
    }
    return {
        "n_items": len(by_operator["clean"]),
        "n_rejected_items": sum(missing["clean"].values()),
        "n_texts": len(rows),
        "n_accepted": sum(row["accepted"] for row in rows),
        "n_not_made": len(not_made),
        "embedding": settings.semantics.embedding,
        "min_similarity": settings.semantics.min_similarity,
        "by_validator": settings.semantics.validator,
        "operators": operators,
        # What no prompt gave a text of: there is nothing to accept.
        "only_not_made": {
            name: dict(reasons) for name, reasons in missing.items() if name not in by_operator
        },
        "gates": [
            _gate(name, found, limit)
            for name, found in by_operator.items()
            if found[0]["family"] != "clean"
        ],
    }


def _row(checked: Checked, meanings: Mapping[str, Row] | None) -> dict[str, Any]:
    reason, verdict = checked.reason, None
    judges: list[str] = []
    votes: list[str] = []
    said = (meanings or {}).get(checked.row["example_id"])
    if said is not None:
        verdict, judges, votes = said["verdict"], said["judges"], said["votes"]
        if not reason and verdict != "same":
            reason = f"validator: {verdict}"
    return {
        **{name: checked.row[name] for name in KEPT_COLUMNS},
        "accepted": not reason,
        "reason": reason,
        "similarity": checked.similarity,
        "verdict": verdict,
        "judges": judges,
        "votes": votes,
    }


def _quantiles(rows: Sequence[Row]) -> dict[str, float] | None:
    measured = [row["similarity"] for row in rows if row["similarity"] is not None]
    if not measured:
        return None
    return {
        str(share): float(value)
        for share, value in zip(QUANTILES, np.quantile(measured, QUANTILES), strict=True)
    }


def _by_dose(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Acceptance by placement and dose: where it falls, the accepted differ between doses."""
    cells: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        cells[row["placement"], row["n_edits"], row["rate"], row["strength"]].append(row)
    return [
        {
            "placement": placement,
            "n_edits": n_edits,
            "rate": rate,
            "strength": strength,
            "n_texts": len(found),
            "n_accepted": sum(row["accepted"] for row in found),
        }
        for (placement, n_edits, rate, strength), found in cells.items()
    ]


def _gate(name: str, rows: Sequence[Row], limit: float) -> dict[str, Any]:
    share = sum(not row["accepted"] for row in rows) / len(rows)
    return {
        "name": f"rejected: {name}",
        "operator": name,
        "value": share,
        "threshold": limit,
        "n_texts": len(rows),
        "passed": share <= limit or len(rows) < MIN_TEXTS,
    }


def _failure(gate: Mapping[str, Any], rows: Sequence[Row]) -> str:
    name = gate["operator"]
    reasons = Counter(row["reason"] for row in rows if row["operator"] == name and row["reason"])
    told = ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common())
    return f"  {name}: {gate['value']:.0%} of {gate['n_texts']} rejected, allowed " \
           f"{gate['threshold']:.0%} ({told})"  # fmt: skip
