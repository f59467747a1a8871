"""Stages of the robustness study: their artifacts, and what of the config they depend on."""

from __future__ import annotations

from typing import Any

from interpflow.config.robustness import RobustnessSettings
from interpflow.config.settings import Config
from interpflow.llm.roles import contamination
from interpflow.workflow.stage import (
    EMBEDDING_PACKAGES,
    FIGURE_PACKAGES,
    MODEL_PACKAGES,
    Stage,
    player,
)

ROBUSTNESS_FIGURES = (
    "accuracy_cost",
    "dose_response",
    "shift_map",
    "attention_map",
    "restoration",
    "restored_tokens",
)
HERE = "results/robustness"


def robustness_stages(config: Config) -> list[Stage]:
    """Every stage of the study; none where the config switches it off."""
    study = config.robustness
    if study is None:
        return []
    stages = [*_writing_stages(config, study), *_data_stages(config, study)]
    for name in config.robustness_models():
        stages += _model_stages(config, study, name)
    return [
        *stages,
        Stage(
            rule="robustness_summary",
            script="robustness_summary.py",
            outputs=(f"{HERE}/summary.json",),
            spec={"seed": config.seed, "models": config.robustness_models()},
        ),
    ]


def asks_rewrites(config: Config) -> bool:
    """Whether the role generator rewrites prompts."""
    return config.robustness is not None and config.robustness.perturbations.rewrites is not None


def asks_meanings(config: Config) -> bool:
    """Whether the role validator judges the variants' meaning."""
    return config.robustness is not None and config.robustness.semantics.validator


def compares_answers(config: Config) -> bool:
    """Whether answers are compared by embedding or inference."""
    study = config.robustness
    return study is not None and bool(study.scoring.embedding or study.scoring.nli)


def judges_answers(config: Config) -> bool:
    """Whether the role judge compares answers."""
    return config.robustness is not None and config.robustness.scoring.judge


def _data(config: Config, study: RobustnessSettings) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "data": study.data.model_dump(),
        "perturbations": study.perturbations.model_dump(),
    }


def _meaning(config: Config, study: RobustnessSettings) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "semantics": study.semantics.model_dump(),
        "edit_protected": study.perturbations.edit_protected,
    }


def _writing_stages(config: Config, study: RobustnessSettings) -> list[Stage]:
    stages = []
    roles = config.llm.roles
    if asks_rewrites(config):
        stages.append(
            Stage(
                rule="robustness_rewriting",
                script="robustness_rewriting.py",
                outputs=(f"{HERE}/rewrites.parquet",),
                spec={**_data(config, study), "generator": player(config, roles.generator)},
            )
        )
    if asks_meanings(config):
        judges = [player(config, judge) for judge in roles.validator]
        stages.append(
            Stage(
                rule="robustness_meanings",
                script="robustness_meanings.py",
                outputs=(f"{HERE}/meanings.parquet",),
                spec={**_meaning(config, study), "validator": judges},
                packages=EMBEDDING_PACKAGES,
            )
        )
    return stages


def _data_stages(config: Config, study: RobustnessSettings) -> list[Stage]:
    return [
        Stage(
            rule="robustness_generation",
            script="robustness_generation.py",
            outputs=(f"{HERE}/examples.parquet", f"{HERE}/not_made.parquet"),
            spec=_data(config, study),
        ),
        Stage(
            rule="robustness_validation",
            script="robustness_validation.py",
            outputs=(f"{HERE}/validation.parquet", f"{HERE}/validation.json"),
            spec=_meaning(config, study),
            packages=EMBEDDING_PACKAGES,
        ),
    ]


def _model_stages(config: Config, study: RobustnessSettings, name: str) -> list[Stage]:
    here = f"{HERE}/{name}"
    source = config.models[name].model_dump()
    common = {"model": name, "seed": config.seed}
    analysis = study.analysis.model_dump()
    scoring = study.scoring.model_dump()
    stages = [
        Stage(
            rule="robustness_inference",
            script="robustness_inference.py",
            outputs=(f"{here}/answers.parquet", f"{here}/samples.parquet", f"{here}/activations"),
            spec={**common, "source": source, "inference": study.inference.model_dump()},
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="robustness_rewards",
            script="robustness_rewards.py",
            outputs=(f"{here}/rewards.parquet", f"{here}/rewards.json"),
            spec={
                **common,
                "reward_models": scoring["reward_models"],
                "reward_max_tokens": scoring["reward_max_tokens"],
            },
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="robustness_benchmark",
            script="robustness_benchmark.py",
            outputs=(f"{here}/benchmark.parquet", f"{here}/benchmark.json"),
            spec={
                **common,
                "analysis": analysis,
                "dose": study.perturbations.dose.model_dump(),
                "contaminated": contamination(config, "robustness").get(name, ""),
            },
        ),
        Stage(
            rule="robustness_internals",
            script="robustness_internals.py",
            outputs=tuple(
                f"{here}/{table}.parquet"
                for table in ("shifts", "attention", "neurons", "internals_map", "internals",
                              "probes")
            ),
            spec={**common, "source": source, "analysis": analysis},
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="robustness_mediation",
            script="robustness_mediation.py",
            outputs=(
                f"{here}/pairs.parquet",
                f"{here}/pair_effects.parquet",
                f"{here}/token_effects.parquet",
                f"{here}/gates.json",
            ),
            spec={**common, "source": source, "mediation": study.mediation.model_dump()},
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="robustness_effects",
            script="robustness_effects.py",
            outputs=(
                f"{here}/mediation.parquet",
                f"{here}/effects.parquet",
                f"{here}/effects.json",
            ),
            spec={**common, "analysis": analysis, "mediation": study.mediation.model_dump()},
        ),
        Stage(
            rule="robustness_figures",
            script="robustness_figures.py",
            outputs=tuple(f"{here}/figures/{figure}.svg" for figure in ROBUSTNESS_FIGURES),
            spec={"model": name},
            packages=FIGURE_PACKAGES,
        ),
    ]  # fmt: skip
    if compares_answers(config):
        stages.append(
            Stage(
                rule="robustness_semantics",
                script="robustness_semantics.py",
                outputs=(f"{here}/semantics.parquet",),
                spec={**common, "embedding": scoring["embedding"], "nli": scoring["nli"]},
                packages=EMBEDDING_PACKAGES,
            )
        )
    if judges_answers(config):
        judges = [player(config, judge) for judge in config.llm.roles.judge]
        stages.append(
            Stage(
                rule="robustness_judging",
                script="robustness_judging.py",
                outputs=(f"{here}/judgements.parquet",),
                spec={**common, "judge": judges},
            )
        )
    return stages
