"""The robustness study without Snakemake: the same stages, one after the other, in one process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from interpflow.config.robustness import RobustnessSettings
from interpflow.config.settings import Config
from interpflow.llm.roles import contamination
from interpflow.studies.checked_settings import AnyConfig, checked_settings
from interpflow.studies.models import manifest_path, write_manifest
from interpflow.studies.robustness.answers.inference import run_inference
from interpflow.studies.robustness.answers.judging import judge_answers
from interpflow.studies.robustness.answers.rewards import score_rewards
from interpflow.studies.robustness.answers.semantics import compare_answers
from interpflow.studies.robustness.checks import (
    NO_GOLD,
    check_built_in_reward,
    check_study,
    has_gold,
)
from interpflow.studies.robustness.costs.benchmark import benchmark
from interpflow.studies.robustness.data.generation import generate_examples
from interpflow.studies.robustness.data.rewriting import judge_meanings, write_rewrites
from interpflow.studies.robustness.data.validation import validate
from interpflow.studies.robustness.inside.internals import run_internals
from interpflow.studies.robustness.patches.effects import estimate_effects
from interpflow.studies.robustness.patches.mediation import run_mediation
from interpflow.studies.robustness.summary import summarise
from interpflow.tables.documents import read_document

logger = logging.getLogger("robustness")


def run_robustness(config: AnyConfig, directory: Path | str = "results") -> dict[str, Any]:
    """Run the whole study and return its summary; tables land in `directory`/robustness.

    `config`: settings as in config.yaml, as a mapping, a path or parsed. The files equal those of
    the workflow but for their provenance. Raises UserError for wrong settings.
    """
    settings, study = _parsed(config)
    here = Path(directory) / "robustness"
    examples = _make_data(settings, study, here)
    names = settings.robustness_models()
    for name in names:
        write_manifest(name, settings.models[name], manifest_path(directory, name))
        _run_model(settings, study, name, examples, here / name)
    inputs = {
        "validation": here / "validation.json",
        "manifests": [manifest_path(directory, name) for name in names],
        "benchmarks": [here / name / "benchmark.json" for name in names],
        "estimates": [here / name / "benchmark.parquet" for name in names],
        "rewards": [here / name / "rewards.json" for name in names],
        "internals": [here / name / "internals.parquet" for name in names],
        "gates": [here / name / "gates.json" for name in names],
        "effects": [here / name / "effects.json" for name in names],
    }
    summarise(names, inputs, here / "summary.json")
    return read_document(here / "summary.json", "robustness_summary")


def _parsed(config: AnyConfig) -> tuple[Config, RobustnessSettings]:
    settings = checked_settings(config, "robustness", check_study, check_built_in_reward)
    assert settings.robustness is not None
    if has_gold(settings) is False:
        logger.info("%s", NO_GOLD)
    return settings, settings.robustness


def _make_data(settings: Config, study: RobustnessSettings, here: Path) -> Path:
    """Make every variant and check what it means; the path of the examples."""
    examples, not_made = here / "examples.parquet", here / "not_made.parquet"
    rewrites = meanings = None
    if study.perturbations.rewrites is not None:
        rewrites = here / "rewrites.parquet"
        write_rewrites(settings, rewrites_path=rewrites)
    generate_examples(
        study, settings.seed, rewrites_path=rewrites, examples_path=examples, table_path=not_made
    )
    if study.semantics.validator:
        meanings = here / "meanings.parquet"
        judge_meanings(settings, examples_path=examples, meanings_path=meanings)
    validate(
        study, examples_path=examples, made_path=not_made, meanings_path=meanings,
        table_path=here / "validation.parquet", document_path=here / "validation.json",
    )  # fmt: skip
    return examples


def _run_model(
    settings: Config, study: RobustnessSettings, name: str, examples: Path, mine: Path
) -> None:
    model, seed, execution = settings.models[name], settings.seed, settings.execution
    device: dict[str, Any] = {"device": execution.device}
    machine = {**device, "tokens_per_batch": execution.tokens_per_batch}
    answers, samples = mine / "answers.parquet", mine / "samples.parquet"
    asked: dict[str, Any] = {"examples_path": examples, "answers_path": answers}
    run_inference(
        name, model, study, seed, **asked, **machine, samples_path=samples,
        validation_path=examples.parent / "validation.parquet",
        activations_path=mine / "activations",
    )  # fmt: skip
    score_rewards(
        name, study, **asked, **device, samples_path=samples,
        rewards_path=mine / "rewards.parquet", document_path=mine / "rewards.json",
    )  # fmt: skip
    semantics = judgements = None
    if study.scoring.embedding or study.scoring.nli:
        semantics = mine / "semantics.parquet"
        compare_answers(
            name, study, answers_path=answers, samples_path=samples, **device,
            semantics_path=semantics,
        )  # fmt: skip
    if study.scoring.judge:
        judgements = mine / "judgements.parquet"
        judge_answers(settings, name, **asked, judgements_path=judgements)
    benchmark(
        name, study, seed, contaminated=contamination(settings, "robustness").get(name, ""),
        **asked, samples_path=samples, rewards_path=mine / "rewards.parquet",
        semantics_path=semantics, judgements_path=judgements,
        estimates_path=mine / "benchmark.parquet", document_path=mine / "benchmark.json",
    )  # fmt: skip
    run_internals(
        name, model, study, seed, **asked, **machine, activations_path=mine / "activations",
        shifts_path=mine / "shifts.parquet", attention_path=mine / "attention.parquet",
        neurons_path=mine / "neurons.parquet", map_path=mine / "internals_map.parquet",
        estimates_path=mine / "internals.parquet", probes_path=mine / "probes.parquet",
    )  # fmt: skip
    run_mediation(
        name, model, study, seed, **asked, **machine, benchmark_path=mine / "benchmark.json",
        pairs_path=mine / "pairs.parquet", effects_path=mine / "pair_effects.parquet",
        tokens_path=mine / "token_effects.parquet", gates_path=mine / "gates.json",
    )  # fmt: skip
    estimate_effects(
        name, study, seed, effects_path=mine / "pair_effects.parquet",
        gates_path=mine / "gates.json", map_path=mine / "mediation.parquet",
        estimates_path=mine / "effects.parquet", document_path=mine / "effects.json",
    )  # fmt: skip
