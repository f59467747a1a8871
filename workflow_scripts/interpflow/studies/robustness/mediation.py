"""The interventions of the robustness study: clean states into damaged prompts, and back.

Only raw values per pair are written here; their statistics are a stage of their own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessMediation, RobustnessSettings
from interpflow.engine import (
    Audit,
    GateRow,
    Model,
    Site,
    SweepResult,
    all_sites,
    combine_metrics,
    kl_metric,
    load,
    run_gates,
    sweep_sites,
)
from interpflow.engine.metrics import logit_diff_metric
from interpflow.engine.sweeps.audit import tolerance_of
from interpflow.models.named import load_named
from interpflow.studies.robustness.pairs import EXACT, SLOTS, DamagedPair, damaged_pairs
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tables.schemas import table_schema

logger = logging.getLogger("robustness.mediation")

METRICS = ("logit_difference", "kl")
AUDITED_SHARE = 0.05  # of all sites, how many are run again by whole passes
MIN_PAIRS = 8  # fewer independent pairs support no interval
# The residual stream at every place; its parts where they can write what the answer is read from.
COMPONENT_SLOTS = ("edited", "later", "answer")
HEAD_SLOTS = ("later", "answer")
SHOWN_PAIRS = 3  # patched at each token alone, to be looked at
RANDOM = "random"  # the control donor: as far, in a random direction


@dataclass(frozen=True)
class Patching:
    """What all sweeps of one model share."""

    model: Model
    pairs: Sequence[DamagedPair]
    tokens_per_batch: int
    seed: int
    audits: list[Audit] = field(default_factory=list)
    gates: list[GateRow] = field(default_factory=list)


def run_mediation(
    name: str,
    model_settings: ModelSettings,
    settings: RobustnessSettings,
    seed: int,
    *,
    examples_path: Path | str,
    answers_path: Path | str,
    benchmark_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    pairs_path: Path | str,
    effects_path: Path | str,
    tokens_path: Path | str,
    gates_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `robustness_pairs`, `robustness_pair_effects` and
    `robustness_token_effects` and the document `robustness_gates`.

    A model whose benchmark shows no damage to be carried, or with fewer than MIN_PAIRS damaged
    prompts, is refused: the tables are empty and the document says why. A gate that fails raises
    RuntimeError.
    """
    refusal = read_document(benchmark_path, "robustness_benchmark")["mediation_refused"]
    pairs: list[DamagedPair] = []
    left_out: dict[str, int] = {}
    model = None
    if not refusal:
        module, tokenizer = load_named(name, model_settings, device=device)
        model = load(module, device=device, dtype=model_settings.dtype, tokenizer=tokenizer)
        examples = {
            row["example_id"]: row for row in read_rows(examples_path, "robustness_examples")
        }
        pairs, left_out = damaged_pairs(
            examples, read_rows(answers_path, "robustness_answers"), tokenizer,
            model_settings.chat_template, settings.mediation.n_pairs,
        )  # fmt: skip
        if len({pair.row["family_id"] for pair in pairs}) < MIN_PAIRS:
            refusal = (
                f"{len(pairs)} prompts are answered right as they are and wrong when perturbed; "
                f"{MIN_PAIRS} independent ones are needed"
            )
    if refusal or model is None:
        logger.info("not run: %s", refusal)
        write_table(pairs_path, "robustness_pairs", [], provenance)
        write_table(effects_path, "robustness_pair_effects", [], provenance)
        write_table(tokens_path, "robustness_token_effects", [], provenance)
        document = {"model": name, "status": "refused", "reason": refusal, "left_out": left_out}
        write_document(gates_path, "robustness_gates", document, provenance)
        return
    patching = Patching(model, pairs, tokens_per_batch, seed)
    tables = patch_pairs(patching, settings.mediation)
    write_table(pairs_path, "robustness_pairs", [pair.to_row() for pair in pairs], provenance)
    write_table(effects_path, "robustness_pair_effects", pa.concat_tables(tables), provenance)
    write_table(tokens_path, "robustness_token_effects", token_rows(patching), provenance)
    worst = max(patching.audits, key=lambda audit: audit.relative)
    document = {
        "model": name,
        "status": "run",
        "reason": "",
        "n_pairs": len(pairs),
        "n_exact": sum(pair.alignment == EXACT for pair in pairs),
        "operators": dict(Counter(pair.row["operator"] for pair in pairs)),
        "left_out": left_out,
        "gates": {"rows": [vars(row) for row in patching.gates]},
        "audit": {**worst.to_dict(), "n_cells": sum(audit.n_cells for audit in patching.audits)},
    }
    write_document(gates_path, "robustness_gates", document, provenance)


def patch_pairs(patching: Patching, settings: RobustnessMediation) -> list[pa.Table]:
    """Rows of `robustness_pair_effects`: both directions, real and random donors, every site.

    The gates run first; RuntimeError when one fails.
    """
    _prove(patching)
    model = patching.model
    plans: list[tuple[tuple[Site, ...], Sequence[str]]] = []
    if "resid_post" in settings.components:
        plans.append((all_sites(model, ("embed", "resid_post")), SLOTS))
    parts = [part for part in settings.components if part != "resid_post"]
    if parts:
        plans.append((all_sites(model, parts), COMPONENT_SLOTS))
    if settings.heads:
        plans.append((all_sites(model, ("head_out",)), HEAD_SLOTS))
    tables = []
    for clean in (False, True):
        for donor in ("real", RANDOM):
            for sites, slots in plans:
                places = _places(patching.pairs, slots, clean)
                result = _sweep(patching, patching.pairs, sites, places, clean, donor)
                if donor == "real" and "resid_post" in {site.component for site in sites}:
                    _check_identities(patching, result, slots, clean)
                tables.append(_effect_table(result, patching.pairs, slots, clean, donor))
    return [*tables, *_pattern_tables(patching, settings)]


def _pattern_tables(patching: Patching, settings: RobustnessMediation) -> list[pa.Table]:
    """Attention patterns of the answer's query, of pairs whose positions are the same ones."""
    exact = [pair for pair in patching.pairs if pair.alignment == EXACT]
    if not settings.patterns or "pattern" not in patching.model.available_components:
        return []
    if len(exact) < MIN_PAIRS:
        logger.info("attention patterns: %d pairs of equal length, not patched", len(exact))
        return []
    sites = all_sites(patching.model, ("pattern",))
    tables = []
    for clean in (False, True):
        places = _places(exact, ("answer",), clean)
        result = _sweep(patching, exact, sites, places, clean, "real", aligned=False)
        tables.append(_effect_table(result, exact, ("answer",), clean, "real"))
    return tables


def token_rows(patching: Patching) -> list[dict[str, Any]]:
    """Rows of `robustness_token_effects`: a few pairs, the residual stream at each token alone."""
    pairs = patching.pairs[:SHOWN_PAIRS]
    sites = all_sites(patching.model, ("embed", "resid_post"))
    longest = max(len(pair.perturbed.ids) for pair in pairs)
    places = [
        [[p] if p < len(table) and table[p] >= 0 else None for p in range(longest)]
        for table in (pair.donor_table(clean=False) for pair in pairs)
    ]
    result = _sweep(patching, pairs, sites, places, False, "real")
    found = []
    for i, pair in enumerate(pairs):
        for position, token in enumerate(pair.perturbed.ids):
            for s, site in enumerate(sites):
                value = result.values["logit_difference"][i, s, position]
                found.append(
                    {
                        "pair_id": pair.pair_id,
                        "operator": pair.row["operator"],
                        "layer": -1 if site.component == "embed" else site.layer,
                        "position": position,
                        "token": patching.model.tokenizer.decode([token]),
                        "role": pair.role_of(position),
                        "base_logit_difference": float(result.base["logit_difference"][i]),
                        "donor_logit_difference": float(result.donor["logit_difference"][i]),
                        "logit_difference": float(value) if np.isfinite(value) else None,
                    }
                )
    return found


def _prove(patching: Patching) -> None:
    """The engine's gates. They compare runs position by position, so of pairs that differ in
    length they are given the last tokens of both: real prompts, if not whole ones."""
    base, donor = [], []
    for pair in patching.pairs:
        length = min(len(pair.perturbed.ids), len(pair.clean.ids))
        base.append(list(pair.perturbed.ids[-length:]))
        donor.append(list(pair.clean.ids[-length:]))
    metric = logit_diff_metric(
        [pair.clean_token for pair in patching.pairs],
        [pair.perturbed_token for pair in patching.pairs],
        "logit_difference",
    )
    report = run_gates(patching.model, base, donor, metric, seed=patching.seed)
    report.require()
    patching.gates.extend(report.rows)


def _check_identities(
    patching: Patching, result: SweepResult, slots: Sequence[str], clean: bool
) -> None:
    """What must hold of aligned patches whatever the model: the donor's last state at the answer
    gives the donor's logits, and a state that nothing reads any more changes nothing."""
    where = "noise" if clean else "denoise"
    last = len(result.sites) - 1
    metric = "logit_difference"
    scale = float(np.abs(np.stack([result.base[metric], result.donor[metric]])).max())
    limit = max(tolerance_of(patching.model.dtype), 1e-6)
    swapped = np.abs(result.values[metric][:, last, slots.index("answer")] - result.donor[metric])
    rows = [_identity(f"answer_swap[{where}]", swapped, scale, limit,
                      "the donor's last state at the answer gives the donor's logits")]  # fmt: skip
    edited = result.effect(metric)[:, last, slots.index("edited")]
    rows.append(_identity(f"unread_state[{where}]", np.abs(edited), scale, 0.0,
                          "edited words patched after the last layer change nothing"))  # fmt: skip
    exact = np.array([pair.alignment == EXACT for pair in patching.pairs])
    if exact.any():
        whole = np.abs(result.values[metric][:, 0, slots.index("all")] - result.donor[metric])
        rows.append(_identity(f"embedding_swap[{where}]", whole[exact], scale, limit,
                              "all embeddings of a pair of equal length swapped"))  # fmt: skip
    patching.gates.extend(rows)
    failed = [row for row in rows if not row.passed]
    if failed:
        lines = [f"{row.name}: {row.value:.3g} ({row.detail})" for row in failed]
        raise RuntimeError("interventions are not proven to work:\n  " + "\n  ".join(lines))


def _identity(name: str, gaps: np.ndarray, scale: float, limit: float, detail: str) -> GateRow:
    found = gaps[np.isfinite(gaps)]
    value = float(found.max()) / max(scale, 1e-30) if len(found) else 0.0
    return GateRow(name, value <= limit, value, limit, detail)


def _places(
    pairs: Sequence[DamagedPair], slots: Sequence[str], clean: bool
) -> list[list[list[int] | None]]:
    """Per pair and slot the positions of the patched run that are replaced together."""
    return [[found[slot] for slot in slots] for found in (p.slots(clean=clean) for p in pairs)]


def _sweep(
    patching: Patching,
    pairs: Sequence[DamagedPair],
    sites: Sequence[Site],
    places: Sequence[Sequence[list[int] | None]],
    clean: bool,
    donor: str,
    *,
    aligned: bool = True,
) -> SweepResult:
    """Patch the clean run (noising) or the perturbed run (denoising) of every pair."""
    model = patching.model
    bases = [list((pair.clean if clean else pair.perturbed).ids) for pair in pairs]
    donors = [list((pair.perturbed if clean else pair.clean).ids) for pair in pairs]
    # A large value is always the clean run's answer, whichever run is patched.
    contrast = logit_diff_metric(
        [pair.clean_token for pair in pairs],
        [pair.perturbed_token for pair in pairs],
        "logit_difference",
    )
    logits = model.last_logits(donors, batch_tokens=patching.tokens_per_batch)
    result = sweep_sites(
        model,
        bases,
        donors,
        sites,
        places,
        combine_metrics(contrast, kl_metric(logits.log_softmax(dim=-1))),
        batch_tokens=patching.tokens_per_batch,
        donor="activation" if donor == "real" else "random_norm_matched",
        seed=patching.seed,
        donor_positions=[pair.donor_table(clean=clean) for pair in pairs] if aligned else None,
        audit=AUDITED_SHARE,
    )
    if result.audit is not None:
        patching.audits.append(result.audit)
    logger.info(
        "%d pairs, %s, %s donor: %d sites x %d places, %d patched rows",
        len(pairs), "noise" if clean else "denoise", donor, len(sites), len(places[0]),
        result.n_rows_run,
    )  # fmt: skip
    return result


def _effect_table(
    result: SweepResult,
    pairs: Sequence[DamagedPair],
    slots: Sequence[str],
    clean: bool,
    donor: str,
) -> pa.Table:
    """Long rows [pair × site × slot], places that a pair does not have left out."""
    shape = result.ran.shape
    pair, site, slot = (index.ravel() for index in np.indices(shape).astype(np.int32))
    kept = ~np.broadcast_to(result.empty[:, None, :], shape).ravel()
    pair, site, slot = pair[kept], site[kept], slot[kept]

    def of_pair(values: Sequence[Any]) -> np.ndarray:
        return np.array(list(values))[pair]

    embedded = [found.component == "embed" for found in result.sites]
    columns: dict[str, Any] = {
        "pair_id": of_pair([found.pair_id for found in pairs]),
        **{key: of_pair([found.row[key] for found in pairs])
           for key in ("family_id", "split", "operator")},
        "alignment": of_pair([found.alignment for found in pairs]),
        "direction": np.full(len(pair), "noise" if clean else "denoise"),
        "donor": np.full(len(pair), donor),
        "component": np.array([found.component for found in result.sites])[site],
        "layer": np.array([-1 if e else s.layer for e, s in zip(embedded, result.sites)])[site],
        "head": np.array([-1 if s.head is None else s.head for s in result.sites])[site],
        "slot": np.array(list(slots))[slot],
        "ran": result.ran.ravel()[kept],
    }  # fmt: skip
    for metric in METRICS:
        columns[metric] = result.values[metric].ravel()[kept]
        columns[f"base_{metric}"] = result.base[metric][pair]
        columns[f"donor_{metric}"] = result.donor[metric][pair]
    schema = table_schema("robustness_pair_effects")
    return pa.table({each.name: pa.array(columns[each.name], type=each.type) for each in schema})
