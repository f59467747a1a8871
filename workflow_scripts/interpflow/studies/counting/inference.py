"""One model over all counting prompts: scored answers, greedy text, and word activations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.config.base import Range
from interpflow.config.counting import CountingBenchmark
from interpflow.config.model import ModelSettings
from interpflow.engine import Model, load
from interpflow.inference.activation_dump import dump_activations
from interpflow.inference.generation import generate
from interpflow.inference.scoring import score_answers
from interpflow.models.manifest import tokenizer_sha256, weights_revision
from interpflow.models.named import load_named, model_source
from interpflow.models.tokens import TemplatePolicy, apply_template
from interpflow.studies.counting.tokens import PromptTokens, tokenize_prompt
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
    counts = [len(prompt.word_positions) for prompt in prompts]
    return dump_activations(
        engine,
        [prompt.ids for prompt in prompts],
        path,
        example_ids=[row["example_id"] for row in rows],
        positions=[[found[-1] for found in prompt.word_positions] for prompt in prompts],
        columns={
            "char_start": [row["word_starts"] for row in rows],
            "char_end": [row["word_ends"] for row in rows],
            "role": [["word"] * count for count in counts],
            "word": [range(count) for count in counts],
        },
        column_types={"word": pa.int32()},
        model_revision=model_revision,
        tokenizer_digest=tokenizer_digest,
        token_budget=tokens_per_batch,
        provenance=provenance,
        progress=logger,
    )
