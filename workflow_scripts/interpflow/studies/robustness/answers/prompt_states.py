"""States of prompts and their variants to an activation store that says what each token is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from interpflow.config.robustness import RobustnessActivations
from interpflow.engine import Model
from interpflow.inference.activation_dump import TOKEN_BUDGET, dump_activations
from interpflow.studies.robustness.answers.token_roles import (
    PromptTokens,
    compared_words,
    kept_positions,
    role_columns,
)
from interpflow.tables.provenance import Provenance

# Numbers of a prompt whose attention is kept, the first ones.
MAX_NUMBER_QUERIES = 8
# Logs of attention are compared: in float16 what is below 6e-8 would be 0 and have none.
PATTERN_TYPE = "float32"

logger = logging.getLogger("robustness.inference")


def write_states(
    path: Path | str,
    engine: Model,
    prompts: Sequence[PromptTokens],
    rows: Sequence[Mapping[str, Any]],
    settings: RobustnessActivations,
    *,
    model_revision: str = "",
    tokenizer_digest: str = "",
    tokens_per_batch: int = TOKEN_BUDGET,
    provenance: Provenance | None = None,
) -> int:
    """Write the store of activations and return the number of kept tokens. rows: the examples that
    the prompts are of, rows of the table `robustness_examples`.

    Sites: the components in the layers that are asked for; with resid_post also "embed", what
    enters the first block. "pattern_answer.L3" and "pattern_number0.L3" [token, head]: attention
    that the prompt's last token and the last token of its first, second, ... number pay to the
    token. What a model does not have is left out and said. The index has the columns role and word
    of `token_roles`.
    """
    available = set(engine.available_components)
    components = [name for name in settings.components if name in available]
    absent = [name for name in settings.components if name not in available]
    patterns = settings.patterns and "pattern" in available and settings.positions != "answer"
    if settings.patterns and not patterns:
        absent.append("attention patterns")
    if absent:
        logger.warning("not kept, for this model or these positions: %s", ", ".join(absent))
    if "resid_post" in components:
        components.insert(0, "embed")
    kept = kept_positions(prompts, settings.positions, compared_words(rows))
    n_tokens = dump_activations(
        engine,
        [prompt.ids for prompt in prompts],
        path,
        example_ids=[row["example_id"] for row in rows],
        sites=components,
        layers=settings.layers,
        positions=settings.positions if settings.positions != "roles" else kept,
        dtype=settings.dtype,
        pattern_dtype=PATTERN_TYPE,
        query_patterns=query_positions(prompts) if patterns else None,
        columns=role_columns(prompts, kept),
        column_types={"word": pa.int32()},
        model_revision=model_revision,
        tokenizer_digest=tokenizer_digest,
        # More tokens at once leave a CPU's cache; a GPU wants them.
        token_budget=min(tokens_per_batch, TOKEN_BUDGET)
        if engine.device.type == "cpu"
        else tokens_per_batch,
        provenance=provenance,
        progress=logger,
    )
    logger.info("states of %d prompts, %d tokens", len(prompts), n_tokens)
    return n_tokens


def query_positions(prompts: Sequence[PromptTokens]) -> dict[str, list[int | None]]:
    """Query name → its position in each prompt: "answer", and "number0", "number1", ..."""
    most = max((len(prompt.numbers) for prompt in prompts), default=0)
    if most > MAX_NUMBER_QUERIES:
        logger.warning(
            "prompts have up to %d numbers; attention is kept from the first %d",
            most, MAX_NUMBER_QUERIES,
        )  # fmt: skip
    found: dict[str, list[int | None]] = {"answer": [len(prompt.ids) - 1 for prompt in prompts]}
    for number in range(min(most, MAX_NUMBER_QUERIES)):
        found[f"number{number}"] = [
            prompt.numbers[number] if number < len(prompt.numbers) else None for prompt in prompts
        ]
    return found
