"""One model over all counting prompts: scored answers, greedy text, and word activations."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from interpflow.activations.plan import plan_store
from interpflow.activations.sites import SiteRecord
from interpflow.activations.writer import ActivationWriter
from interpflow.config.base import Range
from interpflow.config.counting import CountingBenchmark
from interpflow.config.model import ModelSettings
from interpflow.engine import Model, all_sites, load
from interpflow.inference.batching import plan_batches
from interpflow.inference.generation import generate
from interpflow.inference.scoring import score_answers
from interpflow.models.manifest import tokenizer_sha256, weights_revision
from interpflow.models.tokens import TemplatePolicy, apply_template
from interpflow.studies.counting.tokens import PromptTokens, tokenize_prompt
from interpflow.studies.models import load_named, model_source
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.counting.parse import parse_lenient, parse_strict
from interpflow.tasks.counting.prompts import CountingTemplate, answer_text, load_templates

# What the benchmark needs to know of an example beside the answers.
CARRIED_COLUMNS = (
    "example_id",
    "family_id",
    "split",
    "source",
    "category",
    "template_id",
    "length",
    "count",
    "largest_other_count",
)

logger = logging.getLogger("counting.inference")


def run_inference(
    name: str,
    model_settings: ModelSettings,
    examples_path: Path | str,
    settings: CountingBenchmark,
    *,
    probe_lengths: Range,
    probe_templates: Sequence[str],
    templates_path: str | None,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    answers_path: Path | str,
    activations_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the table `counting_answers` and the residuals at the list words.

    Every count from 0 to the longest list is scored with its terminator; the greedy answer is the
    second reading. Activations are kept for the prompts that the probes use: those of the pairs'
    lengths and wordings.
    """
    model, tokenizer = load_named(name, model_settings, device=device)
    rows = read_rows(examples_path, "counting_examples")
    templates = {t.id: t for t in load_templates(Path(templates_path) if templates_path else None)}
    policy = model_settings.chat_template
    answers: dict[str, dict[str, Any]] = {}
    for template_id in dict.fromkeys(row["template_id"] for row in rows):
        chosen = [row for row in rows if row["template_id"] == template_id]
        found = answer_rows(
            name, model, tokenizer, chosen, templates[template_id], settings, policy,
            max_count=max(row["length"] for row in rows), tokens_per_batch=tokens_per_batch,
        )  # fmt: skip
        answers.update({row["example_id"]: row for row in found})
    write_table(
        answers_path,
        "counting_answers",
        [answers[row["example_id"]] for row in rows],
        provenance,
    )
    probed = [
        row
        for row in rows
        if row["template_id"] in probe_templates and row["length"] in probe_lengths.values()
    ]
    engine = load(model, device=device, dtype=str(model.dtype).removeprefix("torch."),
                  tokenizer=tokenizer)  # fmt: skip
    prompts = [
        tokenize_prompt(tokenizer, row["prompt"], list(zip(row["word_starts"], row["word_ends"])),
                        policy)
        for row in probed
    ]  # fmt: skip
    n_words = write_word_residuals(
        activations_path, engine, prompts, probed,
        model_revision=weights_revision(model_source(name, model_settings)),
        tokenizer_digest=tokenizer_sha256(tokenizer),
        tokens_per_batch=tokens_per_batch, provenance=provenance,
    )  # fmt: skip
    logger.info("%d prompts answered, %d word activations kept", len(rows), n_words)


def answer_rows(
    name: str,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    template: CountingTemplate,
    settings: CountingBenchmark,
    policy: TemplatePolicy,
    *,
    max_count: int,
    tokens_per_batch: int,
) -> list[dict[str, Any]]:
    """Rows of `counting_answers` for examples of one wording, in order."""
    prompts = [apply_template(tokenizer, row["prompt"], policy).text for row in rows]
    answers = [answer_text(template, count) for count in range(max_count + 1)]
    scores = score_answers(
        model, tokenizer, prompts, answers, token_budget=tokens_per_batch, progress=logger
    )
    texts = generate(
        model, tokenizer, prompts, max_new_tokens=settings.max_new_tokens,
        stop_strings=(template.terminator,), token_budget=tokens_per_batch, progress=logger,
    )  # fmt: skip
    shares = np.exp(scores.log_prob - scores.log_prob.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    counts = np.arange(max_count + 1)
    found = []
    for i, row in enumerate(rows):
        best = int(scores.best[i])
        found.append(
            {
                **{key: row[key] for key in CARRIED_COLUMNS},
                "model": name,
                "scored_count": best,
                "expected_count": float(shares[i] @ counts),
                "confidence": float(shares[i, best]),
                "captured_mass": float(scores.captured_mass[i]),
                "margin": float(scores.margin[i]),
                "tied": bool(scores.n_tied[i] > 1),
                "log_probs": scores.log_prob[i].tolist(),
                "generated": texts[i].text,
                "finish_reason": texts[i].finish_reason,
                "strict_count": parse_strict(texts[i].text, template.terminator).value,
                "lenient_count": parse_lenient(texts[i].text).value,
            }
        )  # fmt: skip
    return found


def write_word_residuals(
    path: Path | str,
    engine: Model,
    prompts: Sequence[PromptTokens],
    rows: Sequence[Mapping[str, Any]],
    *,
    model_revision: str,
    tokenizer_digest: str,
    tokens_per_batch: int,
    provenance: Provenance | None = None,
) -> int:
    """Write residuals [word, d_model] after the embedding and every layer, at each word's last
    token, and return the number of words. prompts[i] are the tokens of the example rows[i].

    Types are the model's own; float64, which is not stored, is rounded to float32.
    """
    # Longest first, as batches are made, so that a shard is filled before the next one begins.
    order = sorted(range(len(rows)), key=lambda i: -len(prompts[i].ids))
    sites = all_sites(engine, ("embed", "resid_post"))
    dtype = str(engine.dtype).removeprefix("torch.").replace("float64", "float32")
    plan = plan_store(
        [rows[i]["example_id"] for i in order],
        [len(prompts[i].word_positions) for i in order],
        [SiteRecord(str(site), width=engine.d_model, dtype=dtype) for site in sites],
        model_revision=model_revision,
        tokenizer_digest=tokenizer_digest,
        # Of the prompts as the model reads them: the chat template decides, too.
        settings={"positions": "last token of each word", "token_ids": _ids_digest(prompts)},
        columns={"word": pa.int32()},
    )
    with ActivationWriter(path, plan, provenance=provenance) as writer:
        for places in writer.remaining():
            chosen = [order[place] for place in places]
            lengths = [len(prompts[i].ids) for i in chosen]
            for batch in plan_batches(lengths, tokens_per_batch):
                members = [chosen[k] for k in batch]
                last = [[found[-1] for found in prompts[i].word_positions] for i in members]
                captured = engine.capture([prompts[i].ids for i in members], sites, positions=last)
                # Rows of fewer words than the longest are filled up with NaN.
                kept = torch.tensor([len(found) for found in last])[:, None] > torch.arange(
                    max(map(len, last))
                )
                writer.append(
                    [rows[i]["example_id"] for i in members],
                    {
                        str(site): values[kept.to(values.device)]
                        for site, values in captured.items()
                    },
                    _word_columns([prompts[i] for i in members], [rows[i] for i in members]),
                )
    return plan.total_tokens


def _word_columns(
    prompts: Sequence[PromptTokens], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Index columns of the words of prompts, one after the other; characters are the word's."""
    words = [
        (prompt, row, k) for prompt, row in zip(prompts, rows)
        for k in range(len(prompt.word_positions))
    ]  # fmt: skip
    places = [prompt.word_positions[k][-1] for prompt, _, k in words]
    return {
        "token_position": places,
        "token_id": [prompt.ids[place] for (prompt, _, _), place in zip(words, places)],
        "char_start": [row["word_starts"][k] for _, row, k in words],
        "char_end": [row["word_ends"][k] for _, row, k in words],
        "role": ["word"] * len(words),
        "word": [k for _, _, k in words],
    }


def _ids_digest(prompts: Sequence[PromptTokens]) -> str:
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(repr(prompt.ids).encode())
    return digest.hexdigest()
