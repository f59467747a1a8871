"""Named models of the config, loaded and described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpflow.config.model import ModelSettings
from interpflow.models.acquire import ModelSource, load_transformer
from interpflow.models.manifest import build_manifest
from interpflow.tables.documents import write_document
from interpflow.tables.provenance import Provenance


def model_source(name: str, settings: ModelSettings) -> ModelSource:
    """The source of a named model, as the loading code takes it."""
    kind = "hub" if settings.hub else "local" if settings.local else "reference"
    return ModelSource(
        name=name,
        kind=kind,
        location=settings.hub or settings.local or settings.reference or "",
        revision=settings.revision,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def load_named(name: str, settings: ModelSettings, *, device: str = "cpu") -> tuple[Any, Any]:
    """The model in evaluation mode and its tokenizer."""
    return load_transformer(model_source(name, settings), device=device)


def write_manifest(
    name: str, settings: ModelSettings, path: Path | str, provenance: Provenance | None = None
) -> None:
    """Write the document `model_manifest`: digests, sizes and tokenizer policies of a model."""
    source = model_source(name, settings)
    model, tokenizer = load_transformer(source)
    write_document(path, "model_manifest", build_manifest(source, model, tokenizer), provenance)
