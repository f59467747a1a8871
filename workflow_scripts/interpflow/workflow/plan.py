"""The plan of a run: each rule's parameters and outputs, and the files that rules depend on."""

from __future__ import annotations

from pathlib import Path

from interpflow.config.settings import Config
from interpflow.embedding.model_files import BUILT_IN
from interpflow.paths import PROJECT_DIR, RESOURCES_DIR
from interpflow.workflow.stage import MODEL_PACKAGES, Stage
from interpflow.workflow.stages import configured_stages, written_rounds

BYTES_PER_MB = 1_000_000
PACKAGE_DIR = PROJECT_DIR / "workflow_scripts" / "interpflow"


class Plan:
    """All stages of a config, found by rule and model, or by rule and round."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stages = {
            (stage.rule, str(stage.spec.get("model") or stage.spec.get("round", ""))): stage
            for stage in configured_stages(config)
        }

    def stages(self) -> list[Stage]:
        return list(self._stages.values())

    def parameter(self, name: str, rule: str, which: str = "") -> str:
        """One parameter of a rule, for a model or a round; empty when its study is switched off."""
        stage = self._stages.get((rule, which))
        return stage.parameters[name] if stage else ""

    def outputs(self, prefix: str) -> list[str]:
        """Every artifact of the rules that start with `prefix`, and the models' manifests.

        Asked for one by one, so that a deleted artifact is made again.
        """
        return [
            output
            for stage in self.stages()
            if stage.rule.startswith((prefix, "model_manifest"))
            for output in stage.outputs
        ]

    def weights_mb(self, model: str) -> int:
        """Size of a model's weights on disk; 0 for a hub model not yet looked at."""
        if model not in self.config.models:
            return 0
        paths = [Path(path) for path in model_files(self.config, model)]
        sizes = [path.stat().st_size for path in paths if path.suffix == ".safetensors"]
        return sum(sizes) // BYTES_PER_MB

    def inspection_parameter(self, name: str, script: str) -> str:
        """Parameter of a target that prints; it is given the whole config."""
        spec = {"config": self.config.model_dump()}
        return Stage(Path(script).stem, script, (), spec, ()).parameters[name]

    def reference_parameter(self, name: str, model: str, seed: str) -> str:
        spec = {"name": model, "seed": int(seed)}
        stage = Stage("reference_model", "reference_model.py", (), spec, MODEL_PACKAGES)
        return stage.parameters[name]

    def reference_outputs(self) -> list[str]:
        training = self.config.reference_models
        return [
            f"results/reference_models/{name}/seed{seed}"
            for name in training.names
            for seed in training.seeds
        ]


def round_files(config: Config, *names: str, before: int | None = None) -> list[str]:
    """Files of the rounds in which lists are written, in their order; all or those before one."""
    last = written_rounds(config) if before is None else min(written_rounds(config), before - 1)
    return [
        f"results/counting/rounds/{number}/{name}"
        for name in names
        for number in range(1, last + 1)
    ]


def lexicon_dir(config: Config) -> Path:
    named = config.counting.lexicon if config.counting else None
    return Path(named) if named else _from_here(RESOURCES_DIR / "lexicon")


def lexicon_files(config: Config) -> list[str]:
    directory = lexicon_dir(config)
    return sorted(str(path) for kind in ("*.csv", "*.txt") for path in directory.glob(kind))


def templates_file(config: Config) -> str:
    named = config.counting.prompt_templates if config.counting else None
    return named or str(_from_here(RESOURCES_DIR / "templates" / "counting.yaml"))


def item_files(config: Config) -> list[str]:
    """Files that the prompts of the robustness study come from."""
    study = config.robustness
    if study is None:
        return []
    own = [study.data.path] if study.data.path else []
    parts = [RESOURCES_DIR / "templates" / f"{study.data.source}.yaml"] if not own else []
    operators = sorted((RESOURCES_DIR / "perturbations").glob("*"))
    return own + [str(_from_here(path)) for path in (*parts, *operators) if path.exists()]


def reward_files(config: Config) -> list[str]:
    """Files of the reward models that are here; one of the hub is fixed by its revision."""
    study = config.robustness
    entries = study.scoring.reward_models if study else []
    return [
        file
        for entry in entries
        for file in _weights_and_settings(
            _from_here(RESOURCES_DIR / "reference" / "reward_model")
            if entry == "reference"
            else Path(entry).expanduser()
        )
    ]


def preservation_files(config: Config) -> list[str]:
    """Files of the embedding that compares variants with their prompts, where it is a directory."""
    study = config.robustness
    return _embedding_files(study.semantics.embedding) if study else []


def comparison_files(config: Config) -> list[str]:
    """Files of the models that compare answers, where they are directories."""
    study = config.robustness
    return _embedding_files(study.scoring.embedding, study.scoring.nli) if study else []


def _embedding_files(*models: str | None) -> list[str]:
    # The built-in one is fixed by the version of its package, one of the hub by its revision.
    own = [Path(model).expanduser() for model in models if model and model != BUILT_IN]
    parts = [part for path in own for part in (path, *sorted(path.glob("*/")))]
    return [file for part in parts for file in _weights_and_settings(part)]


def task_files(config: Config) -> list[str]:
    """Files that the tasks and texts of the layer surgery study come from."""
    study = config.layer_surgery
    if study is None:
        return []
    built_in = sorted(str(_from_here(path)) for path in (RESOURCES_DIR / "tasks").glob("*.yaml"))
    return [*built_in, *study.tasks.files, *([study.texts.path] if study.texts.path else [])]


def claim_files() -> list[str]:
    """The observations that the layer surgery study evaluates by rule."""
    return [str(_from_here(RESOURCES_DIR / "claims" / "layer_surgery.yaml"))]


def report_templates() -> list[str]:
    """The files that the report page is made from."""
    directory = PACKAGE_DIR / "report" / "templates"
    return [str(_from_here(path)) for path in sorted(directory.glob("*.jinja"))]


def _from_here(path: Path) -> Path:
    # A project that is moved together with its results must not run again for its new place.
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def model_files(config: Config, model: str) -> list[str]:
    """Files a model's results depend on; a hub model is fixed by its revision instead."""
    settings = config.models[model]
    if settings.hub:
        return []
    directory = (
        _from_here(RESOURCES_DIR / "reference" / settings.reference)
        if settings.reference
        else Path(settings.local or "")
    )
    return _weights_and_settings(directory)


def _weights_and_settings(directory: Path) -> list[str]:
    return sorted(
        str(path)
        for kind in ("*.safetensors", "*.json", "*.model", "*.jinja", "*.py")
        for path in directory.glob(kind)
        if path.name != "training.json"
    )
