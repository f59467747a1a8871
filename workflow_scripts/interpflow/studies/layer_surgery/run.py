"""The layer surgery study without Snakemake: the same stages in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.settings import Config
from interpflow.studies.checked_settings import AnyConfig, checked_settings
from interpflow.studies.layer_surgery.agent.agent_stage import run_agent_stage
from interpflow.studies.layer_surgery.agent.judging_stage import judge_agents
from interpflow.studies.layer_surgery.checks import check_layer_surgery
from interpflow.studies.layer_surgery.data.generation import generate_items
from interpflow.studies.layer_surgery.data.writing import write_items
from interpflow.studies.layer_surgery.effects.effects_stage import estimate_effects
from interpflow.studies.layer_surgery.effects.free_answers_stage import judge_free_answers
from interpflow.studies.layer_surgery.effects.search_stage import search_sets
from interpflow.studies.layer_surgery.lenses.lens_stage import run_lenses
from interpflow.studies.layer_surgery.summary import summarise
from interpflow.studies.layer_surgery.sweep.gate_stage import run_intact
from interpflow.studies.layer_surgery.sweep.sweep_stage import run_sweep
from interpflow.studies.models import manifest_path, write_manifest
from interpflow.tables.documents import read_document
from interpflow.tasks.nlp.judged_items import asks_free


def run_layer_surgery(config: AnyConfig, directory: Path | str = "results") -> dict[str, Any]:
    """Run the whole study and return its summary; tables land in `directory`/layer_surgery.

    `config`: settings as in config.yaml, as a mapping, a path or parsed. The files equal those of
    the workflow but for their provenance. Runs are kept in the store that the settings name, which
    the workflow, later calls and agents share. Raises UserError for wrong settings.
    """
    settings = checked_settings(config, "layer_surgery", check_layer_surgery)
    study = settings.layer_surgery
    assert study is not None
    here = Path(directory) / "layer_surgery"
    data = _make_data(settings, study, here)
    names = settings.layer_surgery_models()
    for name in names:
        write_manifest(name, settings.models[name], manifest_path(directory, name))
        _run_model(settings, study, name, data, here / name)
    files: dict[str, str] = {
        "gates": "gates.json", "sweeps": "sweep.json", "lenses": "lenses.json",
        "sets": "sets.parquet", "set_estimates": "set_estimates.parquet",
        "effects": "effects.json",
    }  # fmt: skip
    if asks_free(study.tasks):
        files["free"] = "free_answers.json"
    if study.agent is not None:
        files["agents"] = "agent_report.json"
        if study.judging.plants:
            files["judging"] = "judging.json"
    inputs: dict[str, Any] = {
        "data": here / "data.json",
        "manifests": [manifest_path(directory, name) for name in names],
        **{key: [here / name / file for name in names] for key, file in files.items()},
    }
    summarise(names, inputs, here / "summary.json")
    return read_document(here / "summary.json", "layer_surgery_summary")


def _make_data(settings: Config, study: LayerSurgerySettings, here: Path) -> dict[str, Any]:
    written = None
    if study.tasks.written is not None:
        written = here / "written.parquet"
        write_items(settings, written_path=written)
    data: dict[str, Any] = {
        "items_path": here / "items.parquet",
        "texts_path": here / "texts.parquet",
    }
    generate_items(
        study, settings.seed, written_path=written, **data, document_path=here / "data.json"
    )
    return data


def _run_model(
    settings: Config, study: LayerSurgerySettings, name: str, data: dict[str, Any], mine: Path
) -> None:
    model, seed, execution = settings.models[name], settings.seed, settings.execution
    machine: dict[str, Any] = {
        "device": execution.device, "tokens_per_batch": execution.tokens_per_batch
    }  # fmt: skip
    given: dict[str, Any] = {**data, "intact_path": mine / "intact.parquet"}
    run_intact(name, model, study, seed, **given, **machine, document_path=mine / "gates.json")
    gated: dict[str, Any] = {**given, "gates_path": mine / "gates.json"}
    stored: dict[str, Any] = {**gated, **machine, "store_path": Path(study.store)}
    swept: dict[str, Any] = {
        f"{table}_path": mine / f"{table}.parquet"
        for table in ("plans", "answers", "losses", "generations")
    }
    run_sweep(name, model, study, seed, **stored, **swept, document_path=mine / "sweep.json")
    run_lenses(
        name, model, study, seed, **gated, **machine, lens_path=mine / "tuned_lens.safetensors",
        lenses_path=mine / "lenses.parquet", exits_path=mine / "exits.parquet",
        trajectories_path=mine / "trajectories.parquet",
        estimates_path=mine / "lens_estimates.parquet", document_path=mine / "lenses.json",
    )  # fmt: skip
    search_sets(
        name, model, study, seed, **stored, sets_path=mine / "sets.parquet",
        estimates_path=mine / "set_estimates.parquet",
    )  # fmt: skip
    judged: dict[str, Any] = {}
    if asks_free(study.tasks):
        judged = {
            "free_path": mine / "free_answers.parquet",
            "free_document_path": mine / "free_answers.json",
        }
        judge_free_answers(
            settings, name, items_path=data["items_path"],
            data_path=data["items_path"].with_name("data.json"),
            intact_path=given["intact_path"], gates_path=gated["gates_path"],
            generations_path=swept["generations_path"], free_path=judged["free_path"],
            document_path=judged["free_document_path"],
        )  # fmt: skip
    estimate_effects(
        name, study, seed, **given, **swept, **judged, exits_path=mine / "exits.parquet",
        lens_estimates_path=mine / "lens_estimates.parquet",
        estimates_path=mine / "effects.parquet", document_path=mine / "effects.json",
    )  # fmt: skip
    if study.agent is None:
        return
    run_agent_stage(
        settings, name, study, seed, **stored, tests_path=mine / "agent_tests.parquet",
        report_path=mine / "agent_report.json", transcript_path=mine / "agent_transcript.jsonl",
    )  # fmt: skip
    if study.judging.plants:
        judge_agents(
            settings, name, study, seed, texts_path=data["texts_path"], **machine,
            judging_path=mine / "judging.parquet",
            estimates_path=mine / "judging_estimates.parquet",
            document_path=mine / "judging.json",
        )  # fmt: skip
