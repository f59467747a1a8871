"""Lenses of one model: trained, judged on held-out text, read at answers and over prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from interpflow.config.identity import derived_seed
from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryLenses
from interpflow.config.model import ModelSettings
from interpflow.engine import load
from interpflow.engine.lenses.lens_files import save_lens
from interpflow.engine.lenses.lens_training import LensFit, reproducible, train_tuned_lens
from interpflow.engine.lenses.logit_lens import LogitLens, lens_identity
from interpflow.engine.lenses.state_pool import StatePool
from interpflow.engine.lenses.tuned_lens import LensKind
from interpflow.engine.model import Model
from interpflow.inference.surgery.rows import ScoredRow, answer_rows
from interpflow.models.manifest import weights_revision
from interpflow.models.named import load_named, model_source
from interpflow.studies.layer_surgery.estimate_rows import Analyst
from interpflow.studies.layer_surgery.lenses.exits import exit_estimates, exit_rows
from interpflow.studies.layer_surgery.lenses.held_out_readings import (
    DocumentReadings,
    mean_distribution,
    read_documents,
)
from interpflow.studies.layer_surgery.lenses.lens_estimates import (
    BIAS,
    LOGIT,
    TUNED,
    block_rows,
    gap_rows,
    lens_rows,
    verdict,
)
from interpflow.studies.layer_surgery.lenses.lens_texts import LensTexts, lens_texts
from interpflow.studies.layer_surgery.lenses.trajectories import shown_prompts, trajectory_rows
from interpflow.studies.layer_surgery.sweep.gate_document import analysed_tasks, read_gates
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance

LOG = logging.getLogger(__name__)

DOCUMENT = "surgery_lenses"
KINDS: dict[str, LensKind] = {TUNED: "affine", BIAS: "bias"}
# Documents on which the gate compares lens and model, and training documents read for the gap.
N_GATED, N_TRAINING_READ = 4, 32


def run_lenses(
    name: str,
    model_settings: ModelSettings,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    items_path: Path | str,
    texts_path: Path | str,
    intact_path: Path | str,
    gates_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    lens_path: Path | str,
    lenses_path: Path | str,
    exits_path: Path | str,
    trajectories_path: Path | str,
    estimates_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the lenses (safetensors), the tables `surgery_lenses`, `surgery_exits`,
    `surgery_trajectories` and `estimates`, and the document `surgery_lenses`.

    Lenses learn from texts of use "lens"; what is said of them comes from held-out ones. Raises
    UserError when no text is left on either side, RuntimeError when the lens at the last depth is
    not the model.
    """
    module, tokenizer = load_named(name, model_settings, device=device)
    dtype = str(module.dtype).removeprefix("torch.")
    model = load(module, tokenizer=tokenizer, dtype=dtype, device=device)
    items = read_rows(items_path, "surgery_items")
    documents = read_rows(texts_path, "surgery_texts")
    intact = read_rows(intact_path, "surgery_intact")
    prompts = [row["prompt"] for row in items]
    texts = lens_texts(tokenizer, documents, prompts, settings.texts, model.max_length)
    gate = lens_identity(model, [row.tokens for row in texts.held_out[:N_GATED]])
    if not gate.passed:
        raise RuntimeError(f"{gate.name}: off by {gate.value:.3g} ({gate.reason})")
    pool, fits = _trained(model, texts, settings.lenses, derived_seed(seed, name, "lens"),
                          tokens_per_batch)  # fmt: skip
    save_lens(
        lens_path, {lens: fit.lens for lens, fit in fits.items()}, model,
        revision=weights_revision(model_source(name, model_settings)),
        config=settings.lenses.model_dump(),
    )  # fmt: skip
    lenses = {LOGIT: LogitLens(), **{lens: fit.lens for lens, fit in fits.items()}}
    read = read_documents(
        model, lenses, texts.held_out, unigram=_unigram(model, pool),
        tokens_per_batch=tokens_per_batch, seed=seed,
    )  # fmt: skip
    learnt = [texts.training[number] for number in fits[TUNED].training[:N_TRAINING_READ]]
    again = read_documents(
        model, {TUNED: lenses[TUNED]}, learnt, tokens_per_batch=tokens_per_batch, seed=seed
    )
    two = {lens: lenses[lens] for lens in (LOGIT, TUNED)}
    scored, rows = _scored_items(model, items, intact)
    exits = exit_rows(
        model, two, scored, [row.tokens[: row.prompt] for row in rows],
        exit_kl=settings.lenses.exit_kl, tokens_per_batch=tokens_per_batch,
    )  # fmt: skip
    tasks = analysed_tasks(read_gates(gates_path))
    answered = {row["example_id"] for row in intact if row["answered"]}
    shown = shown_prompts(settings.lenses.trajectories, items, answered, tasks, documents)
    analyst = Analyst(name, settings.analysis, seed)
    training_kl = again.means[TUNED]["kl"]
    estimates = [
        *lens_rows(analyst, read),
        *gap_rows(analyst, read.means[TUNED]["kl"], training_kl),
        *block_rows(analyst, read),
        *exit_estimates(
            analyst, exits, {row["example_id"]: row["kind"] for row in items}, tasks,
            model.n_layers,
        ),
    ]  # fmt: skip
    write_table(lenses_path, "surgery_lenses", read.to_rows(), provenance)
    write_table(exits_path, "surgery_exits", exits, provenance)
    write_table(
        trajectories_path, "surgery_trajectories",
        trajectory_rows(model, two, shown, max_tokens=settings.texts.max_tokens,
                        tokens_per_batch=tokens_per_batch),
        provenance,
    )  # fmt: skip
    write_table(estimates_path, "estimates", estimates, provenance)
    document = {
        "model": name,
        "n_layers": model.n_layers,
        "gates": [gate.to_row()],
        "training": {lens: _course(fit) for lens, fit in fits.items()},
        **_counts(texts, read, scored, intact, tasks),
        **verdict(read, training_kl),
    }
    write_document(document_path, DOCUMENT, document, provenance)
    _log(name, document)


def _trained(
    model: Model, texts: LensTexts, settings: SurgeryLenses, seed: int, tokens_per_batch: int
) -> tuple[StatePool, dict[str, LensFit]]:
    """The states of the training documents, and the lenses of every kind trained on them."""
    documents = [row.tokens for row in texts.training]
    with reproducible(model.device):
        pool = StatePool(model, documents, batch_tokens=tokens_per_batch)
        return pool, {
            lens: train_tuned_lens(
                model, pool, kind=kind, steps=settings.steps,
                documents_per_step=settings.documents_per_step,
                tokens_per_step=settings.tokens_per_step, learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay, seed=seed, progress=LOG.info,
            )
            for lens, kind in KINDS.items()
        }  # fmt: skip


def _unigram(model: Model, pool: StatePool) -> torch.Tensor:
    last = [pool.states([number])[-1] for number in range(min(pool.n_documents, N_TRAINING_READ))]
    return mean_distribution(model, torch.cat(last))


def _scored_items(
    model: Model, items: Sequence[Mapping[str, Any]], intact: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[ScoredRow]]:
    """Rows of `surgery_intact` that have a score, and the tokens of their items."""
    found = answer_rows(model.tokenizer, items, model.max_length).rows
    scored = [row for row in intact if not row["unscored"] and row["example_id"] in found]
    return scored, [found[row["example_id"]] for row in scored]


def _course(fit: LensFit) -> dict[str, Any]:
    return {
        "n_steps": fit.n_steps, "n_training": len(fit.training),
        "n_validation": len(fit.validation), "history": fit.history,
    }  # fmt: skip


def _counts(
    texts: LensTexts,
    read: DocumentReadings,
    scored: Sequence[Any],
    intact: Sequence[Any],
    tasks: Sequence[str],
) -> dict[str, Any]:
    return {
        "n_documents": {"lens": len(texts.training), "held_out": len(texts.held_out)},
        "n_tokens": {"lens": texts.n_training_tokens, "held_out": sum(read.n_tokens)},
        "documents_left_out": texts.dropped,
        "n_items": {"given": len(intact), "read": len(scored)},
        "tasks": list(tasks),
    }


def _log(name: str, document: Mapping[str, Any]) -> None:
    if document["tuned_beats_logit"]:
        LOG.info("%s: the tuned lens beats the logit lens at every depth but the last", name)
    else:
        LOG.warning(
            "%s: the tuned lens is no nearer to the model than the logit lens at depths %s",
            name, document["depths_where_not"],
        )  # fmt: skip
