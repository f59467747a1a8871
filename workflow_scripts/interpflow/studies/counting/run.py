"""The counting study without Snakemake: the same stages, one after the other, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingSettings
from interpflow.config.settings import Config
from interpflow.llm.roles import check_roles, contamination
from interpflow.studies.checked_settings import AnyConfig, configured
from interpflow.studies.counting.benchmark import benchmark
from interpflow.studies.counting.comparison import compare
from interpflow.studies.counting.effects import estimate_effects
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.inference import run_inference
from interpflow.studies.counting.mediation import run_mediation
from interpflow.studies.counting.running_count import assess_running_count
from interpflow.studies.counting.summary import summarise
from interpflow.studies.counting.validation import validate
from interpflow.studies.counting.written_lists import write_round
from interpflow.studies.counting.written_quality import written_quality
from interpflow.studies.counting.written_state import NO_ROUNDS, WrittenRounds
from interpflow.studies.counting.written_validation import judge_round
from interpflow.studies.models import manifest_path, write_manifest
from interpflow.tables.documents import read_document


def run_counting(config: AnyConfig, directory: Path | str = "results") -> dict[str, Any]:
    """Run the whole study and return its summary; tables land in `directory`/counting.

    `config`: settings as in config.yaml, as a mapping, a path or parsed. The files equal those of
    the workflow but for their provenance. Raises UserError for wrong settings.
    """
    settings = configured(config, "counting")
    study = settings.counting
    assert study is not None
    check_roles(settings)
    here = Path(directory) / "counting"
    examples, pairs = here / "examples.parquet", here / "pairs.parquet"
    rounds = _write_rounds(settings, study, here)
    generate(
        study.data,
        study.pairs,
        settings.seed,
        lexicon_path=study.lexicon,
        templates_path=study.prompt_templates,
        examples_path=examples,
        pairs_path=pairs,
        rounds=rounds,
    )
    validate(
        examples, pairs, study.validation, settings.seed, lexicon_path=study.lexicon,
        table_path=here / "validation.parquet", document_path=here / "validation.json",
        rounds=rounds,
    )  # fmt: skip
    for name in settings.counting_models():
        write_manifest(name, settings.models[name], manifest_path(directory, name))
        _run_model(settings, study, name, here)
    names = settings.counting_models()
    compare(
        {name: here / name / "answers.parquet" for name in names}, here / "comparison.parquet",
        contaminated=sorted(contamination(settings, "counting")),
    )  # fmt: skip
    inputs = {
        "validation": here / "validation.json",
        "written": here / "written_quality.json" if rounds.lists else None,
        "comparison": here / "comparison.parquet",
        "manifests": [manifest_path(directory, name) for name in names],
        "benchmarks": [here / name / "benchmark.json" for name in names],
        "estimates": [here / name / "benchmark.parquet" for name in names],
        "gates": [here / name / "gates.json" for name in names],
        "effects": [here / name / "effects.parquet" for name in names],
        "verdicts": [here / name / "verdict.json" for name in names],
    }
    summarise(names, inputs, here / "summary.json")
    return read_document(here / "summary.json", "counting_summary")


def _write_rounds(settings: Config, study: CountingSettings, here: Path) -> WrittenRounds:
    """Lists of language models, in rounds, and how good they are; nothing when none are wanted."""
    if study.data.source == "systematic":
        return NO_ROUNDS
    made = NO_ROUNDS
    own_files: dict[str, Any] = {
        "lexicon_path": study.lexicon,
        "templates_path": study.prompt_templates,
    }
    for number in range(1, study.data.llm.max_rounds + 1):
        directory = here / "rounds" / str(number)
        lists, words, verdicts = (
            str(directory / f"{name}.parquet") for name in ("lists", "words", "verdicts")
        )
        write_round(
            number, study.data, settings.seed, settings.llm, settings.models, **own_files,
            earlier_lists=made.lists, earlier_verdicts=made.verdicts, lists_path=lists,
        )  # fmt: skip
        judge_round(
            number, study.data, settings.seed, settings.llm, settings.models, **own_files,
            lists_path=lists, earlier_lists=made.lists, earlier_verdicts=made.verdicts,
            words_path=words, verdicts_path=verdicts,
        )  # fmt: skip
        made = WrittenRounds((*made.lists, lists), (*made.words, words), (*made.verdicts, verdicts))
    written_quality(
        made.lists, made.words, made.verdicts, seed=settings.seed,
        document_path=here / "written_quality.json",
        disagreements_path=here / "disagreements.parquet",
    )  # fmt: skip
    return made


def _run_model(settings: Config, study: CountingSettings, name: str, here: Path) -> None:
    model, seed, execution = settings.models[name], settings.seed, settings.execution
    mine = here / name
    machine = {"device": execution.device, "tokens_per_batch": execution.tokens_per_batch}
    run_inference(
        name, model, here / "examples.parquet", study.benchmark,
        probe_lengths=study.pairs.lengths, probe_templates=study.pairs.templates,
        templates_path=study.prompt_templates, **machine,
        answers_path=mine / "answers.parquet", activations_path=mine / "activations",
    )  # fmt: skip
    benchmark(
        name, mine / "answers.parquet", study.benchmark, seed, level=study.mediation.level,
        contaminated=contamination(settings, "counting").get(name, ""),
        estimates_path=mine / "benchmark.parquet", confusion_path=mine / "confusion.parquet",
        document_path=mine / "benchmark.json",
    )  # fmt: skip
    run_mediation(
        name, model, here / "pairs.parquet", mine / "benchmark.json", study.pairs,
        components=study.mediation.components, heads=study.mediation.heads,
        window=study.mediation.window, seed=seed, lexicon_path=study.lexicon,
        templates_path=study.prompt_templates, **machine,
        pairs_path=mine / "pairs.parquet", effects_path=mine / "pair_effects.parquet",
        gates_path=mine / "gates.json",
    )  # fmt: skip
    estimate_effects(
        name, mine / "pair_effects.parquet", mine / "gates.json", study.mediation, seed,
        map_path=mine / "mediation.parquet", estimates_path=mine / "effects.parquet",
    )  # fmt: skip
    assess_running_count(
        name, mine / "pair_effects.parquet", mine / "gates.json", mine / "activations",
        here / "examples.parquet", study.mediation, seed,
        slopes_path=mine / "running_count.parquet", probes_path=mine / "probes.parquet",
        verdict_path=mine / "verdict.json",
    )  # fmt: skip
