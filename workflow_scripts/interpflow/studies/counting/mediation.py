"""The interventions of the counting study: every pair patched at every place, behind the gates.

Only raw values per pair are written here; their statistics are a stage of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.config.counting import CountingPairs
from interpflow.config.model import ModelSettings
from interpflow.engine import (
    Audit,
    Model,
    Site,
    SweepResult,
    all_sites,
    answer_contrast_metric,
    combine_metrics,
    kl_metric,
    load,
    run_gates,
    sweep_sites,
)
from interpflow.engine.metrics import Metric
from interpflow.models.named import load_named
from interpflow.studies.counting.pair_selection import select_pairs
from interpflow.studies.counting.prepared_pairs import (
    AnswerTokens,
    PreparedPair,
    minimal_slots,
    prefix_slots,
    random_slots,
    read_wording,
)
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tables.schemas import table_schema
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates

logger = logging.getLogger("counting.mediation")

METRICS = ("logit_difference", "expected_count", "kl", "argmax_candidate")
# Of all sites, how many are run again by whole passes of the model's own code.
AUDITED_SHARE = 0.05
# Parts other than the residual are patched where the tested families look, not at every token.
COMPONENT_SLOTS = ("item", "later_items", "answer")
RANDOM_COMPONENT_SLOTS = ("words", "answer")

Places = list[dict[str, list[int] | None]]


@dataclass(frozen=True)
class Sweeping:
    """What all sweeps of one model and wording share."""

    model: Model
    answers: AnswerTokens
    n_tail: int
    tokens_per_batch: int
    seed: int
    audits: list[Audit] = field(default_factory=list)


@dataclass(frozen=True)
class Measures:
    """What is read from patched runs of some pairs, in both directions: the donors differ."""

    denoise: Metric
    noise: Metric

    @classmethod
    def of(cls, context: Sweeping, pairs: Sequence[PreparedPair]) -> Measures:
        """Measures of these pairs; runs their prompts."""
        return cls(
            _metric(context, pairs, clean_is_donor=True),
            _metric(context, pairs, clean_is_donor=False),
        )


def run_mediation(
    name: str,
    model_settings: ModelSettings,
    made_path: Path | str,
    benchmark_path: Path | str,
    settings: CountingPairs,
    *,
    components: Sequence[str],
    heads: bool,
    window: int,
    seed: int,
    lexicon_path: str | None,
    templates_path: str | None,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    pairs_path: Path | str,
    effects_path: Path | str,
    gates_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `counting_pairs` and `pair_effects` and the document `counting_gates`.

    made_path: the pairs as made; pairs_path: those used, with the words that the model's
    tokenizer made necessary.
    A model whose benchmark does not show that its answers depend on the input is refused: the
    tables are empty and the document says why. A gate that fails raises RuntimeError.
    """
    refusal = read_document(benchmark_path, "counting_benchmark")["mediation_refused"]
    if refusal:
        logger.info("not run: %s", refusal)
        write_table(pairs_path, "counting_pairs", [], provenance)
        write_table(effects_path, "pair_effects", [], provenance)
        write_document(gates_path, "counting_gates", _refused(name, refusal), provenance)
        return
    module, tokenizer = load_named(name, model_settings, device=device)
    model = load(module, device=device, dtype=model_settings.dtype, tokenizer=tokenizer)
    lexicon = load_lexicon(Path(lexicon_path) if lexicon_path else None)
    templates = {t.id: t for t in load_templates(Path(templates_path) if templates_path else None)}
    rows = read_rows(made_path, "counting_pairs")
    tables: list[pa.Table] = []
    used: list[Mapping[str, Any]] = []
    gates: dict[str, Any] = {"model": name, "status": "run", "reason": "", "templates": {}}
    for template_id in settings.templates:
        wording = read_wording(
            tokenizer, lexicon, templates[template_id], model_settings.chat_template,
            settings.lengths.max,
        )  # fmt: skip
        mine = [row for row in rows if row["template_id"] == template_id]
        chosen = select_pairs(mine, wording, settings)
        context = Sweeping(model, wording.answers, chosen.n_tail, tokens_per_batch, seed)
        pairs = chosen.pairs
        measures = Measures.of(context, pairs["minimal"])
        proven = prove(context, pairs["minimal"], measures)
        gates["templates"][template_id] = {**chosen.report, "gates": proven}
        tables += sweep_minimal(context, pairs["minimal"], measures, components, heads)
        tables += sweep_random(context, pairs["random"], components)
        tables += sweep_prefix(context, pairs["prefix"], window)
        gates["templates"][template_id]["audit"] = _summary(context.audits)
        used += chosen.rows()
    write_table(pairs_path, "counting_pairs", used, provenance)
    write_table(effects_path, "pair_effects", pa.concat_tables(tables), provenance)
    write_document(gates_path, "counting_gates", gates, provenance)


def _summary(audits: Sequence[Audit]) -> dict[str, Any]:
    """The audits of all sweeps together: how many cells were run again, and the worst of them."""
    worst = max(audits, key=lambda audit: audit.relative)
    return {**worst.to_dict(), "n_cells": sum(audit.n_cells for audit in audits)}


def _refused(name: str, reason: str) -> dict[str, Any]:
    return {"model": name, "status": "refused", "reason": reason, "templates": {}}


def prove(context: Sweeping, pairs: Sequence[PreparedPair], measures: Measures) -> dict[str, Any]:
    """Run the engine's gates on real pairs; RuntimeError when one fails."""
    report = run_gates(
        context.model,
        [pair.corrupted.ids for pair in pairs],
        [pair.clean.ids for pair in pairs],
        measures.denoise,
        seed=context.seed,
    )
    report.require()
    return {"rows": report.to_rows(), "noise_floor": dict(report.noise_floor)}


def sweep_minimal(
    context: Sweeping,
    pairs: Sequence[PreparedPair],
    measures: Measures,
    components: Sequence[str],
    heads: bool,
) -> list[pa.Table]:
    """Denoising and noising of minimal pairs, with control donors."""
    slots = [minimal_slots(pair, context.n_tail) for pair in pairs]
    chosen = _chosen(context, slots, COMPONENT_SLOTS, components)
    if heads:
        chosen.update(dict.fromkeys(all_sites(context.model, ("head_out",)), ("answer",)))
    return _sweep_both(context, pairs, slots, chosen, measures, ("real", "control"))


def sweep_random(
    context: Sweeping, pairs: Sequence[PreparedPair], components: Sequence[str]
) -> list[pa.Table]:
    """Denoising and noising of random pairs, which have no control donors."""
    if not pairs:
        return []
    slots = [random_slots(pair, context.n_tail) for pair in pairs]
    chosen = _chosen(context, slots, RANDOM_COMPONENT_SLOTS, components)
    return _sweep_both(context, pairs, slots, chosen, Measures.of(context, pairs), ("real",))


def _chosen(
    context: Sweeping, slots: Places, few: Sequence[str], components: Sequence[str]
) -> dict[Site, tuple[str, ...]]:
    """At which places each site is patched: the residual at all, the other parts at `few`."""
    chosen: dict[Site, tuple[str, ...]] = {}
    if "resid_post" in components:
        sites = all_sites(context.model, ("embed", "resid_post"))
        chosen.update(dict.fromkeys(sites, tuple(slots[0])))
    parts = [part for part in components if part != "resid_post"]
    chosen.update(dict.fromkeys(all_sites(context.model, parts), tuple(few)))
    return chosen


def sweep_prefix(context: Sweeping, pairs: Sequence[PreparedPair], window: int) -> list[pa.Table]:
    """Both directions of prefix pairs; donors with another running count, with the same one, and
    random directions of the same length."""
    slots = [prefix_slots(pair, window) for pair in pairs]
    chosen = _chosen(context, slots, (), ("resid_post",))
    measures = Measures.of(context, pairs)
    return _sweep_both(context, pairs, slots, chosen, measures, ("real", "control", "random"))


def _metric(context: Sweeping, pairs: Sequence[PreparedPair], *, clean_is_donor: bool) -> Metric:
    ids = context.answers.token_ids
    # The sign never turns with the direction: a large value is always the clean list's answer.
    contrast = answer_contrast_metric(
        [ids[pair.row["clean_count"]] for pair in pairs],
        [ids[pair.row["corrupted_count"]] for pair in pairs],
        ids,
        context.answers.counts,
    )
    donors = [(pair.clean if clean_is_donor else pair.corrupted).ids for pair in pairs]
    logits = context.model.last_logits(donors, batch_tokens=context.tokens_per_batch)
    return combine_metrics(contrast, kl_metric(logits.log_softmax(dim=-1)))


def _sweep_both(
    context: Sweeping,
    pairs: Sequence[PreparedPair],
    slots: Places,
    chosen: Mapping[Site, Sequence[str]],
    measures: Measures,
    donors: Sequence[str],
) -> list[pa.Table]:
    """Both directions with each kind of donor; nothing where no site is chosen."""
    return [
        _sweep(context, pairs, slots, chosen, measures, direction, donor)
        for direction in ("denoise", "noise")
        for donor in donors
        if chosen
    ]


def _sweep(
    context: Sweeping,
    pairs: Sequence[PreparedPair],
    slots: Places,
    chosen: Mapping[Site, Sequence[str]],
    measures: Measures,
    direction: str,
    donor: str,
) -> pa.Table:
    """One sweep as rows of `pair_effects`."""
    clean_is_donor = direction == "denoise"
    bases = [pair.corrupted if clean_is_donor else pair.clean for pair in pairs]
    donors = [pair.clean if clean_is_donor else pair.corrupted for pair in pairs]
    if donor == "control":
        controls = [
            pair.corrupted_control if clean_is_donor else pair.clean_control for pair in pairs
        ]
        donors = [control for control in controls if control is not None]
    result = sweep_sites(
        context.model,
        [base.ids for base in bases],
        [found.ids for found in donors],
        list(chosen),
        [list(found.values()) for found in slots],
        measures.denoise if clean_is_donor else measures.noise,
        batch_tokens=context.tokens_per_batch,
        donor="random_norm_matched" if donor == "random" else "activation",
        seed=context.seed,
        asked=np.array([[name in names for name in slots[0]] for names in chosen.values()]),
        audit=AUDITED_SHARE,
    )
    if result.audit is not None:
        context.audits.append(result.audit)
    logger.info(
        "%s %s pairs, %s, %s donor: %d sites, %d places of them, %d patched rows",
        len(pairs), pairs[0].row["kind"], direction, donor, len(chosen), int(result.asked.sum()),
        result.n_rows_run,
    )  # fmt: skip
    return _effect_table(result, pairs, list(slots[0]), direction, donor)


def _effect_table(
    result: SweepResult,
    pairs: Sequence[PreparedPair],
    slot_names: Sequence[str],
    direction: str,
    donor: str,
) -> pa.Table:
    """Long rows [pair × site × slot]; places that a pair does not have, or that are not patched at
    a site, left out."""
    n_pairs, n_sites, n_slots = result.ran.shape
    pair, site, slot = (
        index.ravel() for index in np.indices((n_pairs, n_sites, n_slots)).astype(np.int32)
    )
    kept = (~result.empty[:, None, :] & result.asked).ravel()
    pair, site, slot = pair[kept], site[kept], slot[kept]
    sign = 1 if direction == "denoise" else -1

    def of_pair(key: str) -> np.ndarray:
        return np.array([found.row[key] for found in pairs])[pair]

    embedded = [found.component == "embed" for found in result.sites]
    columns: dict[str, Any] = {
        **{key: of_pair(key) for key in ("pair_id", "family_id", "split", "kind")},
        "direction": np.full(len(pair), direction),
        "donor": np.full(len(pair), donor),
        "component": np.array([found.component for found in result.sites])[site],
        "layer": np.array([-1 if e else s.layer for e, s in zip(embedded, result.sites)])[site],
        "head": np.array([-1 if s.head is None else s.head for s in result.sites])[site],
        "slot": np.array(list(slot_names))[slot],
        "delta": sign * of_pair("delta"),
        "clean_count": of_pair("clean_count"),
        "corrupted_count": of_pair("corrupted_count"),
        "ran": result.ran.ravel()[kept],
    }
    for metric in METRICS:
        columns[metric] = result.values[metric].ravel()[kept]
        columns[f"base_{metric}"] = result.base[metric][pair]
        columns[f"donor_{metric}"] = result.donor[metric][pair]
    schema = table_schema("pair_effects")
    return pa.table(
        {field.name: pa.array(columns[field.name], type=field.type) for field in schema}
    )
