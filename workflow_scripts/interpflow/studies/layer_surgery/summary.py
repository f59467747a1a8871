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
        "lenses": document("lenses", "surgery_lenses"),
        "sets": read_rows(inputs["sets"][number], "surgery_sets"),
        "free": document("free", "layer_surgery_free_answers"),
        "effects": document("effects", "layer_surgery_effects"),
        "agent": document("agents", "agent_report"),
        "judging": document("judging", "agent_judging"),
    }


def _sentences(name: str, found: Mapping[str, Any]) -> list[str]:
    effects = found["effects"]
    sentences = [_damage(name, effects), _claims(name, effects), _lenses(name, found["lenses"])]
    if found["agent"]:
        sentences.append(_agent(name, found["agent"]))
    if found["judging"]:
        sentences.append(f"Agents on altered copies of {name}: {found['judging']['sentence']}")
    return sentences


def _damage(name: str, effects: Mapping[str, Any]) -> str:
    """The endpoints in words; loss in nats per token of neutral text."""
    told = {
        ("P1 loss change", "skip_each"): "skipping a block costs {} nats per token on average",
        ("P1 loss change", "repeat"): "repeating one {}",
        ("P1 loss change", "swap"): "swapping neighbours {}",
        ("P2 order distance", "given moved ends"): "the further a random order, the worse: ρ {}",
        ("P3 exit depth", "arithmetic − formatting"): "sums are decided {} blocks later than forms",
    }
    parts = [
        told[row["factor"], row["level"]].format(
            f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
        )
        + f" (Holm p {_p(row['p_adjusted'])})"
        for row in effects["endpoints"]
        if (row["factor"], row["level"]) in told and row["estimate"] is not None
    ]
    return f"{name}: {'; '.join(parts) or 'no endpoint is defined'}."


def _p(value: float | None) -> str:
    if value is None:
        return "undefined"
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def _claims(name: str, effects: Mapping[str, Any]) -> str:
    counts = effects["claim_verdicts"]
    n = sum(counts.values())
    told = ", ".join(f"{counts.get(verdict, 0)} {verdict}"
                     for verdict in ("supported", "refuted", "inconclusive"))  # fmt: skip
    return f"{name}: of {n} claims named beforehand {told}."


def _lenses(name: str, lenses: Mapping[str, Any]) -> str:
    kl, half = lenses["kl"], lenses["n_layers"] // 2
    worse = lenses["depths_where_not"]
    where = f"but at depth {', '.join(map(str, worse))}" if worse else "at every depth but the last"
    return (
        f"{name}: the tuned lens is nearer to the model than the logit lens {where}; after {half} "
        f"of {lenses['n_layers']} blocks KL {kl['tuned'][half]:.2f} against "
        f"{kl['logit'][half]:.2f} nats per token on {lenses['n_documents']['held_out']} held-out "
        "documents."
    )


def _agent(name: str, report: Mapping[str, Any]) -> str:
    """The funnel of the agent's tests; its claims stand in its report."""
    funnel, forecasts = report["ledger"], report["forecasts"]
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in funnel["verdicts"].items())
    told = (
        f"{name}, the agent ({report['policy']}): {funnel['proposed']} hypotheses, "
        f"{funnel['registered']} registered tests ({funnel['placebos']} of them placebos), "
        f"verdicts: {verdicts or 'none'}; {len(report['claims'])} claims in its report."
    )
    if forecasts["brier"] is None:
        return told
    return (
        f"{told} Brier score of its forecasts {forecasts['brier']:.3f}; of the base rate, known "
        f"in hindsight only, {forecasts['base_rate_brier']:.3f}."
    )
