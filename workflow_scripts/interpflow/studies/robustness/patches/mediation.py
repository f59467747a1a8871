"""The interventions of the robustness study: clean states into damaged prompts, and back.

Only raw values per pair are written here; their statistics are a stage of their own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessMediation, RobustnessSettings
from interpflow.engine import Model, Site, all_sites, load
from interpflow.inference.generation import end_tokens
from interpflow.models.named import load_named
from interpflow.studies.robustness.patches.pairs import EXACT, SLOTS, DamagedPair, damaged_pairs
from interpflow.studies.robustness.patches.patch_identities import (
    check_identities,
    prove_interventions,
)
from interpflow.studies.robustness.patches.patching import (
    RANDOM,
    Patching,
    effect_table,
    places_of,
    sweep,
)
from interpflow.studies.robustness.patches.patterns import check_own_patterns, pattern_table
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

logger = logging.getLogger("robustness.mediation")

MIN_PAIRS = 8  # fewer independent pairs support no interval
# The residual stream is patched at every place; its parts and heads where they can write what the
# answer is read from.
PART_SLOTS = ("edited", "later", "answer")
SHOWN_PAIRS = 3  # patched at each token alone, to be looked at


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
        families = {"clean", *settings.mediation.families}
        answers = [
            row
            for row in read_rows(answers_path, "robustness_answers")
            if row["family"] in families
        ]
        pairs, left_out = damaged_pairs(
            examples, answers, tokenizer, model_settings.chat_template, settings.mediation.n_pairs
        )
        confirmed = confirmed_pairs(model, pairs, end_tokens(module, tokenizer), tokens_per_batch)
        if len(confirmed) < len(pairs):
            left_out["answered otherwise when run again"] = len(pairs) - len(confirmed)
        pairs = confirmed
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
    prove_interventions(patching)
    sites, asked = _asked(patching.model, settings)
    tables = []
    for clean in (False, True):
        places = places_of(patching.pairs, SLOTS, clean)
        for donor in ("real", RANDOM):
            result = sweep(patching, patching.pairs, sites, places, clean, donor, asked=asked)
            if donor == "real" and "resid_post" in settings.components:
                check_identities(patching, result, SLOTS, clean)
            tables.append(effect_table(result, patching.pairs, SLOTS, clean, donor))
    return [*tables, *_pattern_tables(patching, settings)]


def _asked(model: Model, settings: RobustnessMediation) -> tuple[tuple[Site, ...], np.ndarray]:
    """The sites of one sweep, and which are patched at which slots, bool [site, slot]."""
    slots_of: dict[str, Sequence[str]] = {}
    for part in settings.components:
        slots_of[part] = SLOTS if part == "resid_post" else PART_SLOTS
    if "resid_post" in slots_of:
        slots_of["embed"] = SLOTS
    if settings.heads:
        slots_of["head_out"] = PART_SLOTS
    sites = tuple(all_sites(model, tuple(slots_of)))
    asked = [[slot in slots_of[site.component] for slot in SLOTS] for site in sites]
    return sites, np.array(asked)


def confirmed_pairs(
    model: Model, pairs: Sequence[DamagedPair], ends: Sequence[int], tokens_per_batch: int
) -> list[DamagedPair]:
    """The pairs whose two runs go on as their stored answers did.

    Which of several end tokens (`ends`) ended an answer is not stored: the one that its run would
    choose. In narrow number types a near tie may fall otherwise than in the pass that answered.
    """
    if not pairs:
        return []
    found = [
        model.last_logits(prompts, batch_tokens=tokens_per_batch).argmax(dim=-1).tolist()
        for prompts in (
            [list(pair.clean.ids) for pair in pairs],
            [list(pair.perturbed.ids) for pair in pairs],
        )
    ]
    kept = []
    for pair, clean, perturbed in zip(pairs, *found):
        both = ((clean, pair.clean_token), (perturbed, pair.perturbed_token))
        if clean != perturbed and all(a == b or (a in ends and b in ends) for a, b in both):
            kept.append(replace(pair, clean_token=clean, perturbed_token=perturbed))
    return kept


def _pattern_tables(patching: Patching, settings: RobustnessMediation) -> list[pa.Table]:
    """Attention patterns of the answer's query: of all heads of a layer, key by aligned key; and
    head by head, of pairs whose positions are the same ones."""
    if not settings.patterns or "pattern" not in patching.model.available_components:
        return []
    check_own_patterns(patching)
    tables = [pattern_table(patching, clean) for clean in (False, True)]
    exact = [pair for pair in patching.pairs if pair.alignment == EXACT]
    if len(exact) < MIN_PAIRS:
        logger.info("patterns head by head: %d pairs of equal length, not patched", len(exact))
        return tables
    sites = all_sites(patching.model, ("pattern",))
    for clean in (False, True):
        places = places_of(exact, ("answer",), clean)
        result = sweep(patching, exact, sites, places, clean, "real", aligned=False)
        tables.append(effect_table(result, exact, ("answer",), clean, "real"))
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
    result = sweep(patching, pairs, sites, places, False, "real")
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
