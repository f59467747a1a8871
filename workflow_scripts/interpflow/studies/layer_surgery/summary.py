"""The layer surgery study in one document: headline numbers, gates, claims, n in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.studies.layer_surgery.sweep.gate_document import read_gates
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows
from interpflow.tables.provenance import Provenance


def summarise(
    models: Sequence[str],
    inputs: Mapping[str, Any],
    path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the document `layer_surgery_summary`.

    `inputs`: files by name; those of a model stand in lists in the order of `models`.
    """
    per_model = {name: _model(inputs, number) for number, name in enumerate(models)}
    write_document(
        path,
        "layer_surgery_summary",
        {
            "study": "layer_surgery",
            "data": read_document(inputs["data"], "surgery_data"),
            "models": per_model,
            "verdicts": {name: _sentences(name, found) for name, found in per_model.items()},
        },
        provenance,
    )
    for name, found in per_model.items():
        for sentence in _sentences(name, found):
            print(sentence)


def _model(inputs: Mapping[str, Any], number: int) -> dict[str, Any]:
    def document(key: str, kind: str) -> dict[str, Any] | None:
        return read_document(inputs[key][number], kind) if inputs.get(key) else None

    return {
        "manifest": document("manifests", "model_manifest"),
        "gates": read_gates(inputs["gates"][number]),
        "sweep": document("sweeps", "layer_surgery_sweep"),
        "lenses": document("lenses", "layer_surgery_lenses"),
        "sets": read_rows(inputs["sets"][number], "surgery_sets"),
        "effects": document("effects", "layer_surgery_effects"),
        "agent": document("agents", "agent_report"),
        "judging": document("judging", "agent_judging"),
    }


def _sentences(name: str, found: Mapping[str, Any]) -> list[str]:
    sentences = [_damage(name, found["effects"]), _claims(name, found["effects"]),
                 f"{name}: {found['lenses']['sentence']}"]  # fmt: skip
    if found["agent"]:
        sentences.append(_agent(name, found["agent"]))
    if found["judging"]:
        sentences.append(f"Agents on altered copies of {name}: {found['judging']['sentence']}")
    return sentences


def _damage(name: str, effects: Mapping[str, Any]) -> str:
    parts = []
    for row in effects["endpoints"]:
        if row["analysis"] == "endpoints" and row["estimate"] is not None:
            what = f"{row['factor'][3:]} ({row['level'].replace('_', ' ')})"
            parts.append(
                f"{what} {row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}], "
                f"Holm p = {row['p_adjusted']:.2g}"
            )
    return f"{name}: {'; '.join(parts) or 'no endpoint is defined'}."


def _claims(name: str, effects: Mapping[str, Any]) -> str:
    counts = effects["claim_verdicts"]
    n = sum(counts.values())
    told = ", ".join(f"{counts.get(verdict, 0)} {verdict}"
                     for verdict in ("supported", "refuted", "inconclusive"))  # fmt: skip
    return f"{name}: of {n} claims named beforehand {told}."


def _agent(name: str, report: Mapping[str, Any]) -> str:
    funnel = report["ledger"]
    claims = [claim["text"] for claim in report["claims"]]
    said = " ".join(claims) if claims else "It claims nothing."
    return (
        f"{name}, the agent ({report['policy']}): {funnel['proposed']} hypotheses, "
        f"{funnel['registered']} registered tests, {funnel['verdicts'].get('CONFIRMED', 0)} "
        f"confirmed. {said}"
    )
