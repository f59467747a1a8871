"""The models that a config names: their sources, and loading them."""

from __future__ import annotations

from typing import Any

from interpflow.config.model import ModelSettings
from interpflow.models.acquire import ModelSource, load_transformer


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
