"""Settings that name a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from interpflow.config.base import Dtype, Settings


class ModelSettings(Settings):
    """One named model: exactly one of `hub`, `local` and `reference` says where it is."""

    hub: str | None = Field(default=None, description="Hugging Face id, e.g. openai-community/gpt2")
    revision: str | None = Field(
        default=None, description="commit of the hub model; required with `hub`"
    )
    local: str | None = Field(
        default=None, description="directory with config.json and safetensors"
    )
    reference: str | None = Field(default=None, description="name of an embedded reference model")
    dtype: Dtype = Field(default="float32", description="number type the model is run in")
    chat_template: Literal["auto", "never"] = Field(
        default="auto",
        description="auto: wrap prompts in the tokenizer's chat template when it has one",
    )
    trust_remote_code: bool = Field(default=False, description="run code shipped with the model")

    @model_validator(mode="after")
    def _one_source(self) -> ModelSettings:
        named = [key for key in ("hub", "local", "reference") if getattr(self, key)]
        if len(named) != 1:
            raise ValueError("name exactly one of hub, local, reference")
        if self.hub and not self.revision:
            raise ValueError("a hub model needs a pinned revision (the commit id)")
        if self.revision and not self.hub:
            raise ValueError("revision belongs to a hub model only")
        return self
