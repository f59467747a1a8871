"""The report: one self-contained HTML page, readable offline, with every number's record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

import interpflow
from interpflow.report.drawn_figures import shown_figures
from interpflow.report.layer_surgery_section import layer_surgery_section
from interpflow.report.robustness_section import robustness_section
from interpflow.tables.atomic import atomic_path
from interpflow.tables.documents import read_document
from interpflow.tables.provenance import Provenance

METHODS = {
    "wilson": "Wilson",
    "wilson_on_clusters": "Wilson, words as clusters",
    "rogan_gladen": "Rogan–Gladen",
    "mover": "sum of the parts (MOVER)",
    "kappa_none_atanh": "Fisher z",
}
HEADLINES = (
    "accuracy",
    "accuracy above the best constant",
    "mean absolute error",
    "bias",
    "within one",
    "log loss",
    "expected calibration error",
)


def write_report(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Any],
    path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the page from the studies' summaries and figures."""
    models = list(spec["models"])
    counting = None
    if models:
        summary = read_document(inputs["summary"], "counting_summary")
        counting = counting_section(summary, models, list(inputs["figures"]))
    robustness = None
    if spec["robustness_models"]:
        robustness = robustness_section(
            read_document(inputs["robustness"], "robustness_summary"),
            list(spec["robustness_models"]),
            list(inputs["robustness_figures"]),
        )
    surgery = None
    if spec["layer_surgery_models"]:
        surgery = layer_surgery_section(
            read_document(inputs["layer_surgery"], "layer_surgery_summary"),
            list(spec["layer_surgery_models"]),
            list(inputs["layer_surgery_figures"]),
        )
    environment = Environment(
        loader=PackageLoader("interpflow.report"), autoescape=select_autoescape(default=True)
    )
    environment.filters |= {"number": _number, "share": _share, "p": _p, "method": _method}
    page = environment.get_template("report.html.jinja").render(
        version=interpflow.__version__,
        counting=counting,
        robustness=robustness,
        surgery=surgery,
        provenance=(provenance or Provenance()).to_dict(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def counting_section(
    summary: Mapping[str, Any], models: list[str], figures: list[str]
) -> dict[str, Any]:
    """What the template shows of the counting study."""
    drawn = {name: [path for path in figures if f"/{name}/" in path] for name in models}
    return {
        "data": summary["data"],
        "written": _written(summary.get("written")),
        "comparison": [row for row in summary["comparison"] if row["analysis"] == "scored"],
        "models": [_model(name, summary["models"][name], drawn[name]) for name in models],
    }


def _written(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How good lists of language models are, for the page; null where none were written."""
    if not found:
        return None
    keys = ("rounds", "labels", "used_labels", "validators", "lists_right_by")
    agreement = [{**row, "by": {e["quantity"]: e for e in row["estimates"]}}
                 for row in found["agreement"]]  # fmt: skip
    return {**{key: found[key] for key in keys}, "agreement": agreement}


def _model(name: str, found: Mapping[str, Any], figures: list[str]) -> dict[str, Any]:
    scored = {row["quantity"]: row for row in found["estimates"] if row["analysis"] == "scored"}
    return {
        "name": name,
        "manifest": found["manifest"],
        "benchmark": found["benchmark"],
        "verdict": found["running_count"],
        "gates": found["gates"],
        "headlines": [scored[quantity] for quantity in HEADLINES if quantity in scored],
        "mediation": [
            row
            for row in found["mediation"]
            if row["analysis"].startswith("mediation (minimal") and row["factor"] == "all"
        ],
        "layers": _layer_table(found["mediation"]),
        "figures": shown_figures(figures),
    }


def _layer_table(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per mediator and layer with the decomposition's estimates by name."""
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["analysis"].startswith("mediation (minimal") and row["factor"] != "all":
            line = table.setdefault(
                (row["factor"], row["level"]), {"place": row["factor"], "layer": row["level"]}
            )
            line[row["quantity"]] = row
    return list(table.values())


def _method(test: str) -> str:
    return METHODS.get(test, test)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
