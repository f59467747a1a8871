"""The robustness study in one document: headline numbers, gates, verdicts, n in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows
from interpflow.tables.provenance import Provenance

# Of the many estimates, those that the report shows as tables; the rest are in the files.
SHOWN_FACTORS = ("operator", "worst case")
SHOWN_ANALYSES = ("accuracy strict", "equivalence", "flips", "ceiling", "floor")


def summarise(
    models: Sequence[str],
    inputs: Mapping[str, Any],
    path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the document `robustness_summary`.

    `inputs`: files by name; those of a model stand in lists in the order of `models`.
    """
    per_model = {
        name: {
            "manifest": read_document(inputs["manifests"][i], "model_manifest"),
            "benchmark": read_document(inputs["benchmarks"][i], "robustness_benchmark"),
            "estimates": _shown(inputs["estimates"][i]),
            "rewards": read_document(inputs["rewards"][i], "robustness_rewards"),
            "inside": _chosen(inputs["internals"][i]),
            "gates": read_document(inputs["gates"][i], "robustness_gates"),
            "mediation": read_document(inputs["effects"][i], "robustness_effects"),
        }
        for i, name in enumerate(models)
    }
    write_document(
        path,
        "robustness_summary",
        {
            "study": "robustness",
            "data": read_document(inputs["validation"], "robustness_validation"),
            "models": per_model,
            "verdicts": {
                name: [found["benchmark"]["sentence"], found["mediation"]["sentence"]]
                for name, found in per_model.items()
            },
        },
        provenance,
    )
    for found in per_model.values():
        print(found["benchmark"]["sentence"])
        print(found["mediation"]["sentence"])


def _shown(path: str) -> list[dict[str, Any]]:
    return [
        row
        for row in read_rows(path, "estimates")
        if row["factor"] in SHOWN_FACTORS
        and (row["analysis"] in SHOWN_ANALYSES or row["analysis"].startswith("reward"))
    ]


def _chosen(path: str) -> list[dict[str, Any]]:
    """Places chosen on the exploration splits, as measured on the confirmation split."""
    return [row for row in read_rows(path, "estimates") if row["analysis"].startswith("chosen on")]
