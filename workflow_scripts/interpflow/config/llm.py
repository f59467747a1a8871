"""Settings of language-model services: which role is played by what, and what it may cost."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from interpflow.config.base import Settings

ProviderName = Literal["anthropic", "openai_compatible", "local", "offline"]
MAX_JUDGES = 5


class RoleModel(Settings):
    """Who plays a role: a provider and, but for offline algorithms, a model."""

    provider: ProviderName = Field(
        default="offline",
        description="anthropic, openai_compatible (OpenAI, vLLM, llama.cpp, Gemini's endpoint), "
        "local (a model under `models`), or offline (algorithms, no model)",
    )
    model: str | None = Field(
        default=None, description="the service's model id; with local: a name under `models`"
    )
    family: str | None = Field(
        default=None,
        description="maker's family of the model (claude, gpt, llama, ...); null: by its name",
    )
    base_url: str | None = Field(
        default=None, description="address of the service; null: the provider's own"
    )
    api_key_env: str | None = Field(
        default=None,
        description="name, in capitals, of the environment variable that holds the key; null: "
        "ANTHROPIC_API_KEY or OPENAI_API_KEY",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="local only: where the model runs"
    )
    max_tokens: int = Field(default=4096, ge=1, le=128_000, description="longest answer")
    timeout_s: float = Field(default=600, gt=0, le=3600, description="longest wait for an answer")
    batch: bool = Field(
        default=False,
        description="anthropic only: half the price by Message Batches; answers within a day",
    )

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        # A key pasted here would be quoted by every message that names the variable.
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError(
                "must be the name of an environment variable in capitals (such as MY_KEY), not "
                "the key itself; a key belongs in no file"
            )
        return name

    @model_validator(mode="after")
    def _complete(self) -> RoleModel:
        if self.provider == "offline" and self.model:
            raise ValueError("offline algorithms take no model")
        if self.provider != "offline" and not self.model:
            raise ValueError(f"the provider {self.provider} needs a model")
        if self.provider == "openai_compatible" and not self.base_url:
            raise ValueError("openai_compatible needs a base_url")
        if self.batch and self.provider != "anthropic":
            raise ValueError("batch belongs to the provider anthropic only")
        if self.device != "cpu" and self.provider != "local":
            raise ValueError("device belongs to the provider local only")
        return self


Judges = Annotated[list[RoleModel], Field(min_length=1, max_length=MAX_JUDGES)]


class Roles(Settings):
    """One model per role; the validator and the judge may be several that vote."""

    generator: RoleModel = RoleModel()
    validator: Judges = Field(
        default=[RoleModel()], description="one or more; of another family than the generator"
    )
    judge: Judges = Field(
        default=[RoleModel()], description="one or more; of another family than the judged model"
    )
    proposer: RoleModel = RoleModel()
    interrogator: RoleModel = RoleModel()
    agent: RoleModel = RoleModel()


class LlmSettings(Settings):
    """Language-model services. The default is offline: no key, no network, no cost."""

    roles: Roles = Roles()
    store: str = Field(
        default="llm/answers.sqlite",
        description="where bought answers are kept; on a local disk, outside results/",
    )
    max_cost_usd: float | None = Field(
        default=None,
        ge=0,
        description="hard cap on everything this store has ever bought; required when a role "
        "costs money",
    )
    prices: str | None = Field(
        default=None, description="own price table (CSV); null: resources/llm/prices.csv"
    )
    max_concurrency: int = Field(default=64, ge=1, le=1000, description="calls in flight, at most")
    max_attempts: int = Field(
        default=8, ge=1, le=100, description="times one request is sent before it counts as failed"
    )
    max_failed_share: float = Field(
        default=0.0, ge=0, le=1, description="share of requests that may end without an answer"
    )
    allow_contaminated: bool = Field(
        default=False,
        description="benchmark a model on data that it made or validated; tables then say so",
    )
