"""Documents about the models that a config names."""

from __future__ import annotations

from pathlib import Path

from interpflow.config.model import ModelSettings
from interpflow.models.acquire import load_transformer, locate
from interpflow.models.files import read_config
from interpflow.models.manifest import build_manifest
from interpflow.models.named import model_source
from interpflow.models.shape import ModelShape, shape_of
from interpflow.tables.documents import write_document
from interpflow.tables.provenance import Provenance


def manifest_path(directory: Path | str, name: str) -> Path:
    """Where a model's manifest lies among the results in `directory`."""
    return Path(directory) / "models" / name / "manifest.json"


def write_manifest(
    name: str, settings: ModelSettings, path: Path | str, provenance: Provenance | None = None
) -> None:
    """Write the document `model_manifest`: digests, sizes and tokenizer policies of a model."""
    source = model_source(name, settings)
    model, tokenizer = load_transformer(source)
    write_document(path, "model_manifest", build_manifest(source, model, tokenizer), provenance)


def known_shape(name: str, settings: ModelSettings) -> ModelShape | None:
    """The shape of a model by its config.json; None where that is not here."""
    directory = Path(locate(model_source(name, settings)))
    if settings.hub or not (directory / "config.json").is_file():
        return None
    return shape_of(read_config(directory, f"model {name}: {directory}"))
