"""The whole of config.yaml as one typed model."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from interpflow.config.base import Name, Settings
from interpflow.config.counting import CountingSettings
from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.llm import LlmSettings
from interpflow.config.model import ModelSettings
from interpflow.config.robustness import RobustnessSettings


class ExecutionSettings(Settings):
    """How models are run; no result depends on it beyond floating-point rounding."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda)$", description="cpu or cuda")
    tokens_per_batch: int = Field(
        default=8192, ge=64, description="padded tokens in one forward pass"
    )


ReferenceName = Literal[
    "count_parallel", "count_running", "word_problems", "small_tasks", "reward_model"
]


class ReferenceTraining(Settings):
    """What `snakemake reference_models` retrains."""

    names: list[ReferenceName] = Field(default=list(get_args(ReferenceName)), min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default=[0], min_length=1, description="one training per seed"
    )


class Config(Settings):
    """The whole of config.yaml."""

    seed: int = Field(default=0, ge=0, lt=2**32, description="root of every random draw")
    models: dict[Name, ModelSettings] = Field(min_length=1, description="models by name")
    execution: ExecutionSettings = ExecutionSettings()
    counting: CountingSettings | None = Field(
        default=CountingSettings(), description="the counting study; null switches it off"
    )
    robustness: RobustnessSettings | None = Field(
        default=None, description="the robustness study; null switches it off"
    )
    layer_surgery: LayerSurgerySettings | None = Field(
        default=None, description="the layer surgery study; null switches it off"
    )
    llm: LlmSettings = LlmSettings()
    reference_models: ReferenceTraining = ReferenceTraining()

    @model_validator(mode="after")
    def _names_beside_files(self) -> Config:
        for name in self.models:
            # A model's directory lies beside the study's files.
            if name.endswith((".parquet", ".json")):
                raise ValueError(f"models.{name}: a model must not be named like an artifact")
        return self

    @model_validator(mode="after")
    def _known_models(self) -> Config:
        for study in ("counting", "robustness", "layer_surgery"):
            settings = getattr(self, study)
            for name in (settings.models if settings else None) or []:
                if name not in self.models:
                    known = ", ".join(self.models)
                    raise ValueError(f"{study}.models: no model named {name!r}; known: {known}")
        return self

    def counting_models(self) -> list[str]:
        """Names of the models that the counting study takes apart, in the config's order."""
        if self.counting is None:
            return []
        return list(dict.fromkeys(self.counting.models or self.models))

    def robustness_models(self) -> list[str]:
        """Names of the models that the robustness study takes apart, in the config's order."""
        if self.robustness is None:
            return []
        return list(dict.fromkeys(self.robustness.models or self.models))

    def layer_surgery_models(self) -> list[str]:
        """Names of the models that the layer surgery study takes apart, in the config's order."""
        if self.layer_surgery is None:
            return []
        return list(dict.fromkeys(self.layer_surgery.models or self.models))
