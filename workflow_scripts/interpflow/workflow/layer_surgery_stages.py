"""Stages of the layer surgery study: their artifacts, and what of the config they depend on."""

from __future__ import annotations

from typing import Any

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.settings import Config
from interpflow.tasks.nlp.judged_items import asks_free
from interpflow.workflow.stage import (
    EMBEDDING_PACKAGES,
    FIGURE_PACKAGES,
    MODEL_PACKAGES,
    Stage,
    player,
)

LAYER_SURGERY_FIGURES = (
    "damage_by_task",
    "retention",
    "order_distance",
    "lens_depth",
    "lens_trajectory",
    "minimal_sets",
)
AGENT_FIGURE, JUDGING_FIGURE = "agent_ledger", "agent_judging"
HERE = "results/layer_surgery"
# What of the analysis every stage with estimates reads.
TESTED = ("analysis.level", "analysis.n_permutations")


def layer_surgery_stages(config: Config) -> list[Stage]:
    """Every stage of the study; none where the config switches it off."""
    study = config.layer_surgery
    if study is None:
        return []
    stages = _data_stages(config, study)
    for name in config.layer_surgery_models():
        stages += _model_stages(config, study, name)
        stages += _free_stages(config, name)
        stages += _agent_stages(config, study, name)
    return [
        *stages,
        Stage(
            rule="layer_surgery_summary",
            script="layer_surgery_summary.py",
            outputs=(f"{HERE}/summary.json",),
            spec={"seed": config.seed, "models": config.layer_surgery_models()},
        ),
    ]


def writes_items(config: Config) -> bool:
    """Whether the role generator writes items of tasks."""
    return config.layer_surgery is not None and config.layer_surgery.tasks.written is not None


def judges_free(config: Config) -> bool:
    """Whether the role judge is asked about answers that no rule scores."""
    return config.layer_surgery is not None and asks_free(config.layer_surgery.tasks)


def has_agent(config: Config) -> bool:
    """Whether an agent experiments."""
    return config.layer_surgery is not None and config.layer_surgery.agent is not None


def judges_agents(config: Config) -> bool:
    """Whether agents are judged on planted anomalies."""
    return has_agent(config) and bool(config.layer_surgery and config.layer_surgery.judging.plants)


def layer_surgery_figures(config: Config) -> tuple[str, ...]:
    """Names of the figures that are drawn of each model."""
    return (
        *LAYER_SURGERY_FIGURES,
        *((AGENT_FIGURE,) if has_agent(config) else ()),
        *((JUDGING_FIGURE,) if judges_agents(config) else ()),
    )


def _parts(study: LayerSurgerySettings, *names: str) -> dict[str, Any]:
    """Sections of the settings: whole ones, or of "section.key" these keys."""
    found: dict[str, Any] = {}
    for name in names:
        section, _, key = name.partition(".")
        values = getattr(study, section).model_dump()
        found.setdefault(section, {}).update({key: values[key]} if key else values)
    return found


def _data_stages(config: Config, study: LayerSurgerySettings) -> list[Stage]:
    spec = {"seed": config.seed, "settings": _parts(study, "tasks", "texts")}
    stages = []
    if writes_items(config):
        roles = config.llm.roles
        stages.append(
            Stage(
                rule="layer_surgery_writing",
                script="layer_surgery_writing.py",
                outputs=(f"{HERE}/written.parquet",),
                spec={
                    "seed": config.seed,
                    "settings": _parts(study, "tasks"),
                    "generator": player(config, roles.generator),
                    "judge": [player(config, judge) for judge in roles.judge],
                },
                packages=EMBEDDING_PACKAGES,
            )
        )
    return [
        *stages,
        Stage(
            rule="layer_surgery_generation",
            script="layer_surgery_generation.py",
            outputs=(f"{HERE}/items.parquet", f"{HERE}/texts.parquet", f"{HERE}/data.json"),
            spec=spec,
        ),
    ]


def _model_stages(config: Config, study: LayerSurgerySettings, name: str) -> list[Stage]:
    here = f"{HERE}/{name}"
    source = config.models[name].model_dump()

    def spec(*parts: str, runs: bool = True) -> dict[str, Any]:
        found = {"model": name, "seed": config.seed, "settings": _parts(study, *parts)}
        return {**found, "source": source} if runs else found

    return [
        Stage(
            rule="layer_surgery_intact",
            script="layer_surgery_intact.py",
            outputs=(f"{here}/intact.parquet", f"{here}/gates.json"),
            spec=spec("tasks", "texts.max_tokens", "analysis.level"),
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="layer_surgery_sweep",
            script="layer_surgery_sweep.py",
            outputs=(
                f"{here}/plans.parquet",
                f"{here}/answers.parquet",
                f"{here}/losses.parquet",
                f"{here}/generations.parquet",
                f"{here}/sweep.json",
            ),
            spec=spec("plans", "measures", "texts.max_tokens"),
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="layer_surgery_lenses",
            script="layer_surgery_lenses.py",
            outputs=(
                f"{here}/tuned_lens.safetensors",
                f"{here}/lenses.parquet",
                f"{here}/exits.parquet",
                f"{here}/trajectories.parquet",
                f"{here}/lens_estimates.parquet",
                f"{here}/lenses.json",
            ),
            spec=spec("lenses", "texts.max_tokens", *TESTED),
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="layer_surgery_search",
            script="layer_surgery_search.py",
            outputs=(f"{here}/sets.parquet", f"{here}/set_estimates.parquet"),
            spec=spec("search", "measures.top_tokens", "texts.max_tokens", *TESTED),
            packages=MODEL_PACKAGES,
        ),
        Stage(
            rule="layer_surgery_effects",
            script="layer_surgery_effects.py",
            outputs=(f"{here}/effects.parquet", f"{here}/effects.json"),
            spec=spec("analysis", runs=False),
        ),
        Stage(
            rule="layer_surgery_figures",
            script="layer_surgery_figures.py",
            outputs=tuple(
                f"{here}/figures/{figure}.svg" for figure in layer_surgery_figures(config)
            ),
            spec={"model": name},
            packages=FIGURE_PACKAGES,
        ),
    ]


def _free_stages(config: Config, name: str) -> list[Stage]:
    if not judges_free(config):
        return []
    here = f"{HERE}/{name}"
    return [
        Stage(
            rule="layer_surgery_free",
            script="layer_surgery_free.py",
            outputs=(f"{here}/free_answers.parquet", f"{here}/free_answers.json"),
            spec={
                "model": name,
                "seed": config.seed,
                "judge": [player(config, judge) for judge in config.llm.roles.judge],
            },
        )
    ]


def _agent_stages(config: Config, study: LayerSurgerySettings, name: str) -> list[Stage]:
    if study.agent is None:
        return []
    here = f"{HERE}/{name}"
    common = {
        "model": name,
        "seed": config.seed,
        "source": config.models[name].model_dump(),
    }
    read = ("measures.top_tokens", "measures.max_new_tokens", "texts.max_tokens")
    agent = {"agent": player(config, config.llm.roles.agent)}
    stages = [
        Stage(
            rule="layer_surgery_agent",
            script="layer_surgery_agent.py",
            outputs=(
                f"{here}/agent_tests.parquet",
                f"{here}/agent_report.json",
                f"{here}/agent_transcript.jsonl",
            ),
            spec={**common, **agent, "settings": _parts(study, "agent", *read)},
            packages=MODEL_PACKAGES,
        )
    ]
    if judges_agents(config):
        stages.append(
            Stage(
                rule="layer_surgery_judging",
                script="layer_surgery_judging.py",
                outputs=(
                    f"{here}/judging.parquet",
                    f"{here}/judging_estimates.parquet",
                    f"{here}/judging.json",
                ),
                spec={
                    **common,
                    **(agent if study.judging.with_agent else {}),
                    "settings": _parts(study, "agent", "judging", *TESTED),
                },
                packages=MODEL_PACKAGES,
            )
        )
    return stages
