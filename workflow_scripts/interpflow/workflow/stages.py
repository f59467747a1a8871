"""Which stage writes which artifacts from which part of the config: the one table of it."""

from __future__ import annotations

from typing import Any

from interpflow.config.counting import CountingData
from interpflow.config.settings import Config
from interpflow.llm.roles import contamination
from interpflow.workflow.layer_surgery_stages import layer_surgery_stages
from interpflow.workflow.robustness_stages import robustness_stages
from interpflow.workflow.stage import FIGURE_PACKAGES, MODEL_PACKAGES, Stage, player

COUNTING_FIGURES = (
    "accuracy",
    "confusion",
    "responses",
    "position_map",
    "layer_importance",
    "running_count",
)


def configured_stages(config: Config) -> list[Stage]:
    stages = [
        Stage(
            rule="model_manifest",
            script="model_manifest.py",
            outputs=(f"results/models/{name}/manifest.json",),
            spec={"model": name, "source": settings.model_dump()},
        )
        for name, settings in config.models.items()
    ]
    return [
        *stages,
        *_counting_stages(config),
        *robustness_stages(config),
        *layer_surgery_stages(config),
        *_report_stages(config),
    ]


def _report_stages(config: Config) -> list[Stage]:
    return [
        Stage(
            rule="report_page",
            script="report.py",
            outputs=("results/report/index.html",),
            spec={
                "models": config.counting_models(),
                "robustness_models": config.robustness_models(),
                "layer_surgery_models": config.layer_surgery_models(),
            },
            packages=("jinja2",),
        )
    ]


def _counting_stages(config: Config) -> list[Stage]:
    study = config.counting
    if study is None:
        return []
    here = "results/counting"
    data = {
        "seed": config.seed,
        "data": _design_settings(study.data),
        "pairs": study.pairs.model_dump(),
        "lexicon": study.lexicon,
        "prompt_templates": study.prompt_templates,
    }
    stages = [
        Stage(
            rule="counting_generation",
            script="counting_generation.py",
            outputs=(f"{here}/examples.parquet", f"{here}/pairs.parquet"),
            spec=data,
        ),
        Stage(
            rule="counting_validation",
            script="counting_validation.py",
            outputs=(f"{here}/validation.parquet", f"{here}/validation.json"),
            spec={**data, "validation": study.validation.model_dump()},
        ),
        Stage(
            rule="counting_comparison",
            script="counting_comparison.py",
            outputs=(f"{here}/comparison.parquet",),
            spec={
                "seed": config.seed,
                "models": config.counting_models(),
                "contaminated": sorted(contamination(config, "counting")),
            },
        ),
        Stage(
            rule="counting_summary",
            script="counting_summary.py",
            outputs=(f"{here}/summary.json",),
            spec={"seed": config.seed, "models": config.counting_models()},
        ),
    ]
    if written_rounds(config):
        stages += _writing_stages(config, here)
    for name in config.counting_models():
        stages += _counting_model_stages(config, name, f"{here}/{name}")
    return stages


def written_rounds(config: Config) -> int:
    """Rounds in which language models write lists; 0 where the lexicon alone makes them."""
    study = config.counting
    return study.data.llm.max_rounds if study and study.data.source != "systematic" else 0


def _design_settings(data: CountingData) -> dict[str, Any]:
    # How lists are written by a language model changes nothing where none is asked.
    settings = data.model_dump()
    if data.source == "systematic":
        del settings["llm"]
    return settings


def _writing_stages(config: Config, here: str) -> list[Stage]:
    study = config.counting
    assert study is not None
    roles = config.llm.roles
    own_files = {"lexicon": study.lexicon, "prompt_templates": study.prompt_templates}
    # Not max_rounds: a round that was made stays as it is when more are allowed.
    data = {**study.data.model_dump(), "llm": study.data.llm.model_dump(exclude={"max_rounds"})}
    stages = [
        Stage(
            rule="counting_written_quality",
            script="counting_written_quality.py",
            outputs=(f"{here}/written_quality.json", f"{here}/disagreements.parquet"),
            spec={"seed": config.seed},
        )
    ]
    for number in range(1, written_rounds(config) + 1):
        common = {"round": number, "seed": config.seed, "data": data, **own_files}
        stages += [
            Stage(
                rule="counting_writing",
                script="counting_writing.py",
                outputs=(f"{here}/rounds/{number}/lists.parquet",),
                spec={**common, "generator": player(config, roles.generator)},
            ),
            Stage(
                rule="counting_judging",
                script="counting_judging.py",
                outputs=(f"{here}/rounds/{number}/words.parquet",
                         f"{here}/rounds/{number}/verdicts.parquet"),
                spec={**common, "validator": [player(config, judge) for judge in roles.validator]},
            ),
        ]  # fmt: skip
    return stages


def _counting_model_stages(config: Config, name: str, here: str) -> list[Stage]:
    study = config.counting
    assert study is not None
    source = config.models[name].model_dump()
    common = {"model": name, "seed": config.seed}
    own_files = {"lexicon": study.lexicon, "prompt_templates": study.prompt_templates}
    return [
        Stage(
            rule="counting_inference",
            script="counting_inference.py",
            outputs=(f"{here}/answers.parquet", f"{here}/activations"),
            spec={**common, **own_files, "source": source,
                  "benchmark": study.benchmark.model_dump(),
                  "probe_lengths": study.pairs.lengths.model_dump(),
                  "probe_templates": study.pairs.templates},
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="counting_benchmark",
            script="counting_benchmark.py",
            outputs=(
                f"{here}/benchmark.parquet",
                f"{here}/confusion.parquet",
                f"{here}/benchmark.json",
            ),
            spec={**common, "benchmark": study.benchmark.model_dump(),
                  "level": study.mediation.level,
                  "contaminated": contamination(config, "counting").get(name, "")},
        ),
        Stage(
            rule="counting_mediation",
            script="counting_mediation.py",
            outputs=(f"{here}/pairs.parquet", f"{here}/pair_effects.parquet",
                     f"{here}/gates.json"),
            spec={**common, **own_files, "source": source, "pairs": study.pairs.model_dump(),
                  "mediation": _intervention_settings(study.mediation.model_dump())},
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="counting_effects",
            script="counting_effects.py",
            outputs=(f"{here}/mediation.parquet", f"{here}/effects.parquet"),
            spec={**common, "mediation": study.mediation.model_dump()},
        ),
        Stage(
            rule="counting_running_count",
            script="counting_running_count.py",
            outputs=(f"{here}/running_count.parquet", f"{here}/probes.parquet",
                     f"{here}/verdict.json"),
            spec={**common, "mediation": study.mediation.model_dump()},
        ),
        Stage(
            rule="counting_figures",
            script="counting_figures.py",
            outputs=tuple(f"{here}/figures/{figure}.svg" for figure in COUNTING_FIGURES),
            spec={"model": name},
            packages=FIGURE_PACKAGES,
        ),
    ]  # fmt: skip


def _intervention_settings(mediation: dict[str, Any]) -> dict[str, Any]:
    # What the forward passes depend on; the statistics have a stage of their own.
    return {key: mediation[key] for key in ("components", "heads", "window")}
