"""What one rule costs, and the sizes of models that costs depend on."""

from __future__ import annotations

from dataclasses import dataclass

from interpflow.config.settings import Config
from interpflow.models.shape import ModelShape
from interpflow.studies.models import known_shape

# Of a hub model whose files are not here: a small one, of which a larger is a known multiple.
ASSUMED = ModelShape(layers=12, heads=12, width=768, neurons=3072)


@dataclass(frozen=True)
class Cost:
    """One rule for one model (or none): forward tokens are upper bounds."""

    rule: str
    model: str
    examples: int
    forward_tokens: int
    disk_mb: float
    memory_mb: int


def model_shape(config: Config, name: str) -> ModelShape:
    """The model's sizes by its config.json; assumed for a hub model not at hand."""
    return known_shape(name, config.models[name]) or ASSUMED
