"""What changes inside: states, attention and neurons of perturbed prompts against clean ones.

Everything here is exploratory. Attention and shift are no causes: those are measured by the
interventions of the mediation stage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interpflow.activations.store import open_store
from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings
from interpflow.engine import load
from interpflow.models.named import load_named
from interpflow.studies.robustness.inside.aligned_words import (
    ANSWER,
    EDITED,
    PlacePairs,
    aligned_places,
)
from interpflow.studies.robustness.inside.attention_shifts import attention_table, measure_attention
from interpflow.studies.robustness.inside.depth_lens import with_next_token_shift
from interpflow.studies.robustness.inside.internal_estimates import (
    mediation_estimates,
    shift_estimates,
    similarity_estimates,
)
from interpflow.studies.robustness.inside.internal_maps import (
    N_CHOSEN_HEADS,
    attention_maps,
    chosen_rows,
    map_rows,
    shift_maps,
)
from interpflow.studies.robustness.inside.internal_probes import run_probes
from interpflow.studies.robustness.inside.neuron_shifts import neuron_tables
from interpflow.studies.robustness.inside.shifts import measure_shifts, null_violations, shift_table
from interpflow.studies.robustness.inside.stored_prompts import StoredPrompts, stored_prompts
from interpflow.tables.parquet import read_rows, write_table, write_table_parts
from interpflow.tables.provenance import Provenance

logger = logging.getLogger("robustness.internals")


def run_internals(
    name: str,
    model_settings: ModelSettings,
    settings: RobustnessSettings,
    seed: int,
    *,
    examples_path: Path | str,
    answers_path: Path | str,
    activations_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
    shifts_path: Path | str,
    attention_path: Path | str,
    neurons_path: Path | str,
    map_path: Path | str,
    estimates_path: Path | str,
    probes_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `robustness_shifts`, `robustness_attention`, `robustness_neurons`,
    `effect_map`, `estimates` and `probes` from the stored states.

    Raw tables hold all stored variants; statistics use those accepted as keeping the meaning, maps
    and neurons at the usual number of edits. Raises RuntimeError when the null operator moved
    anything: the comparison itself would be wrong then.
    """
    store = open_store(activations_path)
    prompts = stored_prompts(
        store,
        read_rows(examples_path, "robustness_examples"),
        read_rows(answers_path, "robustness_answers"),
    )
    analysis = settings.analysis
    places = aligned_places(prompts)
    answer = next(pairs for pairs in places if pairs.place == ANSWER)
    shifts = measure_shifts(store, len(prompts), places)
    if any(store.records[site].component == "resid_post" for site in store.sites):
        module, tokenizer = load_named(name, model_settings, device=device)
        dtype = str(module.dtype).removeprefix("torch.")
        model = load(module, tokenizer=tokenizer, dtype=dtype, device=device)
        shifts = with_next_token_shift(shifts, store, model, answer, tokens_per_batch)
    _check_null(null_violations(prompts, shifts))
    attention = measure_attention(store, prompts)
    states_maps = shift_maps(store, prompts, shifts, analysis.primary)
    heads_maps = attention_maps(prompts, attention, analysis.primary)
    maps: list[dict[str, Any]] = []
    estimates: list[dict[str, Any]] = []
    for one, n_chosen in [
        *((one, 1) for one in states_maps),
        *((one, N_CHOSEN_HEADS) for one in heads_maps),
    ]:
        maps += map_rows(name, one, analysis, seed)
        estimates += chosen_rows(name, one, analysis, seed, n_chosen)
    estimates += shift_estimates(name, store, prompts, shifts, analysis.level)
    estimates += similarity_estimates(name, store, prompts, places, analysis.level, seed)
    estimates += mediation_estimates(name, store, prompts, shifts, analysis, seed)
    probes = run_probes(name, store, prompts, analysis, seed)
    neurons = neuron_tables(name, store, prompts, places, analysis.primary, analysis.level)
    write_table(shifts_path, "robustness_shifts", shift_table(prompts, shifts, store), provenance)
    write_table(
        attention_path, "robustness_attention", attention_table(prompts, attention), provenance
    )
    write_table_parts(neurons_path, "robustness_neurons", neurons, provenance)
    write_table(map_path, "effect_map", maps, provenance)
    write_table(estimates_path, "estimates", [*estimates, *probes.estimates], provenance)
    write_table(probes_path, "probes", probes.probes, provenance)
    _log_counts(prompts, places)


def _log_counts(prompts: StoredPrompts, places: Sequence[PlacePairs]) -> None:
    """How many variants were compared, and how many not at their edited words."""
    edited = next(pairs for pairs in places if pairs.place == EDITED)
    asked = sum(bool(row["word_starts"]) for row in prompts.examples)
    missing = asked - len(set(edited.variants.tolist()))
    logger.info("%d variants of %d prompts compared", len(prompts), len(prompts.clean_rows))
    if missing:
        logger.warning(
            "%d of %d edited variants have no tokens of their edited words, or the clean prompt "
            "has none, in the store: no shift and no attention there",
            missing, asked,
        )  # fmt: skip


def _check_null(violations: int) -> None:
    if violations:
        raise RuntimeError(
            f"the null operator, which repeats the clean prompt, moved {violations} numbers: "
            "states of equal prompts differ, or prompts are compared with the wrong ones"
        )
