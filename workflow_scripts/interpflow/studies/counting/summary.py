"""The counting study in one document: headline numbers, gates, verdicts, n in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows
from interpflow.tables.provenance import Provenance


def summarise(
    models: Sequence[str],
    inputs: Mapping[str, Any],
    path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the document `counting_summary`.

    `inputs`: files by name; those of a model stand in lists in the order of `models`. `written`,
    how good lists of language models are, only where there are any.
    """
    validation = read_document(inputs["validation"], "counting_validation")
    per_model = {
        name: {
            "manifest": read_document(inputs["manifests"][i], "model_manifest"),
            "benchmark": read_document(inputs["benchmarks"][i], "counting_benchmark"),
            "estimates": _overall(inputs["estimates"][i]),
            "gates": read_document(inputs["gates"][i], "counting_gates"),
            "mediation": read_rows(inputs["effects"][i], "estimates"),
            "running_count": read_document(inputs["verdicts"][i], "counting_verdict"),
        }
        for i, name in enumerate(models)
    }
    write_document(
        path,
        "counting_summary",
        {
            "study": "counting",
            "data": {
                key: validation[key]
                for key in ("n_prompts", "n_lists", "n_pairs", "invalid", "gates", "diversity",
                            "duplicates", "flatness", "association_with_count")
            },
            "written": (
                read_document(inputs["written"], "counting_written_quality")
                if inputs.get("written")
                else None
            ),
            "models": per_model,
            "comparison": read_rows(inputs["comparison"], "estimates"),
            "verdicts": {
                name: found["running_count"]["sentence"] for name, found in per_model.items()
            },
        },
        provenance,
    )  # fmt: skip
    for found in per_model.values():
        print(found["benchmark"]["sentence"])
        print(found["running_count"]["sentence"])


def _overall(path: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(path, "estimates") if row["factor"] == "all"]
