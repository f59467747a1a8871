"""One model over every prompt and its variants, once: answers, gold log-probabilities, states."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from interpflow.config.identity import content_hash, derived_seed
from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessActivations, RobustnessSettings
from interpflow.engine import load
from interpflow.errors import UserError
from interpflow.inference.continuations import ContinuationScore, continuation_log_probs
from interpflow.inference.generation import Generation, end_tokens, generate
from interpflow.inference.greedy_answers import greedy_answers
from interpflow.models.manifest import tokenizer_sha256, weights_revision
from interpflow.models.named import load_named, model_source
from interpflow.models.tokens import TemplatePolicy
from interpflow.studies.robustness.answers.prompt_states import write_states
from interpflow.studies.robustness.answers.token_roles import prompt_tokens, templated_prompts
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tables.provenance import Provenance
from interpflow.tasks.arithmetic import Reading, is_correct, read_answer

Row = dict[str, Any]

# What the analyses need to know of an example beside the answers.
CARRIED_COLUMNS = (
    "example_id", "base_id", "family_id", "template_id", "split", "family", "operator",
    "placement", "n_edits", "rate", "strength", "variant", "dose", "gold", "gold_kind",
)  # fmt: skip
CLEAN = "clean"
# Prompt and answer do not fit into the context: there is no answer, which is not a wrong one.
TOO_LONG = "too_long"

logger = logging.getLogger("robustness.inference")


def run_inference(
    name: str,
    model_settings: ModelSettings,
    settings: RobustnessSettings,
    seed: int,
    *,
    examples_path: Path | str,
    validation_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    answers_path: Path | str,
    samples_path: Path | str,
    activations_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `robustness_answers` and `robustness_samples` (without rows unless samples
    are asked for) and the store of activations.

    Every example is answered, accepted or not; equal prompts are run once and get equal rows. A
    prompt that does not fit into the model's context with its answer keeps its row: it is said to
    be too long, and neither right nor wrong.
    """
    model, tokenizer = load_named(name, model_settings, device=device)
    examples = read_rows(examples_path, "robustness_examples")
    accepted = _accepted(validation_path, examples)
    texts = [each.text for each in
             templated_prompts(tokenizer, examples, model_settings.chat_template)]  # fmt: skip
    scores = continuation_log_probs(
        model, tokenizer, texts,
        [continued(text, row["continuation"]) for text, row in zip(texts, examples)],
        top_k=settings.inference.top_k, ends=end_tokens(model, tokenizer),
        token_budget=tokens_per_batch, progress=logger,
    )  # fmt: skip
    fits = answerable(model, scores, settings.inference.max_new_tokens)
    here = [place for place, fit in enumerate(fits) if fit]
    found = greedy_answers(
        model, tokenizer, [texts[place] for place in here], [scores[place] for place in here],
        max_new_tokens=settings.inference.max_new_tokens, token_budget=tokens_per_batch,
        progress=logger,
    )  # fmt: skip
    answers = dict(zip(here, found))
    rows = answer_rows(name, examples, accepted, scores, answers)
    write_table(answers_path, "robustness_answers", rows, provenance)
    write_table(
        samples_path,
        "robustness_samples",
        sample_rows(
            name, model, tokenizer, [examples[place] for place in here],
            [texts[place] for place in here], settings, seed, tokens_per_batch=tokens_per_batch,
        ),
        provenance,
    )  # fmt: skip
    _log_counts(scores, fits)
    kept = kept_examples(examples, fits, settings.inference.activations)
    engine = load(model, device=device, dtype=str(model.dtype).removeprefix("torch."),
                  tokenizer=tokenizer)  # fmt: skip
    policy: TemplatePolicy = model_settings.chat_template
    write_states(
        activations_path, engine, prompt_tokens(tokenizer, kept, policy), kept,
        settings.inference.activations,
        model_revision=weights_revision(model_source(name, model_settings)),
        tokenizer_digest=tokenizer_sha256(tokenizer), tokens_per_batch=tokens_per_batch,
        provenance=provenance,
    )  # fmt: skip


def continued(text: str, continuation: str | None) -> str | None:
    """A continuation as it follows a text: without its blank where the text ends in white space, as
    the turn of many chat templates does."""
    return continuation.lstrip() if continuation and text[-1:].isspace() else continuation


def answerable(model: Any, scores: Sequence[ContinuationScore], max_new_tokens: int) -> list[bool]:
    """Whether each prompt fits into the model's context together with its answer."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return [
        bool(score.prompt_ids) and (not limit or len(score.prompt_ids) + max_new_tokens <= limit)
        for score in scores
    ]


def answer_rows(
    name: str,
    examples: Sequence[Mapping[str, Any]],
    accepted: Mapping[str, bool],
    scores: Sequence[ContinuationScore],
    answers: Mapping[int, Generation],
) -> list[Row]:
    """Rows of `robustness_answers`, in the order of the examples; `answers` by their place, none
    for a prompt that is too long."""
    clean = {
        row["base_id"]: score.prompt_ids
        for row, score in zip(examples, scores)
        if row["operator"] == CLEAN
    }
    read: dict[tuple[str, str], Reading] = {}
    rows = []
    for place, (example, score) in enumerate(zip(examples, scores)):
        answer = answers.get(place)
        kind = example["gold_kind"]
        unedited = clean.get(example["base_id"])
        row: Row = {
            **{column: example[column] for column in CARRIED_COLUMNS},
            "accepted": accepted[example["example_id"]],
            "model": name,
            "n_prompt_tokens": len(score.prompt_ids),
            "token_distance": None if unedited is None
            else Levenshtein.distance(unedited, score.prompt_ids),
            "generated": answer.text if answer else "",
            "token_ids": list(answer.token_ids) if answer else [],
            "finish_reason": answer.finish_reason if answer else TOO_LONG,
            "gold_log_prob": score.total,
            "gold_token_ids": list(score.token_ids),
            "gold_token_log_probs": score.log_probs.tolist(),
            "top_ids": score.top_ids.tolist(),
            "top_logits": score.top_logits.tolist(),
        }  # fmt: skip
        if answer is None:
            readings = ("strict", "lenient", "strict_rule", "lenient_rule", "strict_correct",
                        "lenient_correct")  # fmt: skip
            rows.append(row | dict.fromkeys(readings))
            continue
        if (answer.text, kind) not in read:
            read[answer.text, kind] = read_answer(answer.text, kind)
        rows.append(row | judged(read[answer.text, kind], example))
    return rows


def judged(reading: Reading, example: Mapping[str, Any]) -> Row:
    """What both readings of an answer find, and whether it is the gold answer."""
    gold, kind = example["gold"], example["gold_kind"]
    return {
        "strict": reading.strict,
        "lenient": reading.lenient,
        "strict_rule": reading.strict_rule,
        "lenient_rule": reading.lenient_rule,
        "strict_correct": is_correct(reading.strict, gold, kind),
        "lenient_correct": is_correct(reading.lenient, gold, kind),
    }


def sample_rows(
    name: str,
    model: Any,
    tokenizer: Any,
    examples: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    settings: RobustnessSettings,
    seed: int,
    *,
    tokens_per_batch: int,
) -> list[Row]:
    """Rows of `robustness_samples`: drawn answers to the examples, whose prompts are `texts`.

    A seed is that of model, prompt and sample, so that equal prompts get equal draws, and a
    variant's draws are independent of the clean prompt's.
    """
    wanted = [
        (example, text, sample, derived_seed(seed, "robustness", "sample", name, text, sample))
        for example, text in zip(examples, texts)
        for sample in range(settings.inference.samples)
    ]
    if not wanted:
        return []
    drawn = generate(
        model, tokenizer, [text for _, text, _, _ in wanted],
        max_new_tokens=settings.inference.max_new_tokens, seeds=[each for *_, each in wanted],
        token_budget=tokens_per_batch, progress=logger,
    )  # fmt: skip
    rows = []
    for (example, _, sample, drawn_with), answer in zip(wanted, drawn):
        verdict = judged(read_answer(answer.text, example["gold_kind"]), example)
        rows.append(
            {
                "example_id": example["example_id"],
                "base_id": example["base_id"],
                "operator": example["operator"],
                "model": name,
                "sample": sample,
                "seed": drawn_with,
                "generated": answer.text,
                "finish_reason": answer.finish_reason,
                "strict_correct": verdict["strict_correct"],
                "lenient_correct": verdict["lenient_correct"],
            }
        )
    return rows


def kept_examples(
    examples: Sequence[Row], fits: Sequence[bool], settings: RobustnessActivations
) -> list[Row]:
    """The examples whose states are kept: all variants of the first `max_items` prompts in an
    order by hash, so that with more of them the first stay the same. Prompts that are too long are
    left out, and with a clean prompt its variants, which have nothing to be compared with."""
    fitting = [row for row, fit in zip(examples, fits) if fit]
    bases = {row["base_id"] for row in fitting if row["operator"] == CLEAN}
    ordered = sorted(bases, key=lambda base: content_hash(["activations", base]))
    chosen = set(ordered[: settings.max_items])
    return [row for row in fitting if row["base_id"] in chosen]


def _accepted(path: Path | str, examples: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    found = {row["example_id"]: row["accepted"] for row in read_rows(path, "robustness_validation")}
    missing = [row["example_id"] for row in examples if row["example_id"] not in found]
    if missing:
        raise UserError(
            f"{len(missing)} examples were not validated",
            where=f"{path}, example {missing[0]}",
            remedy="run the validation of these examples first",
        )
    return found


def _log_counts(scores: Sequence[ContinuationScore], fits: Sequence[bool]) -> None:
    """Say what has no answer or no gold log-probability, and why."""
    reasons = Counter(score.unscored for score in scores if score.unscored)
    logger.info(
        "%d prompts, %d too long for the context with an answer; without gold log-probability: %s",
        len(scores), len(fits) - sum(fits),
        ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items())) or "none",
    )  # fmt: skip
