"""The settings of config.yaml as typed models: one per study, every key described."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]


class Settings(BaseModel):
    """Base of all settings: an unknown key is an error, values are never coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSettings(Settings):
    """One named model: exactly one of `hub`, `local` and `reference` says where it is."""

    hub: str | None = Field(None, description="Hugging Face id, e.g. openai-community/gpt2")
    revision: str | None = Field(None, description="commit of the hub model; required with `hub`")
    local: str | None = Field(None, description="directory with config.json and safetensors")
    reference: str | None = Field(None, description="name of an embedded reference model")
    dtype: Dtype = Field("float32", description="number type the model is run in")
    chat_template: Literal["auto", "never"] = Field(
        "auto", description="auto: wrap prompts in the tokenizer's chat template when it has one"
    )
    trust_remote_code: bool = Field(False, description="run code shipped with the model")

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


class Range(Settings):
    """Whole numbers from `min` to `max`, both included."""

    min: int = Field(ge=0)
    max: int = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self

    def values(self) -> tuple[int, ...]:
        return tuple(range(self.min, self.max + 1))


class CountingData(Settings):
    """The factorial design of lists: category × length × count."""

    categories: list[str] | None = Field(None, description="names; null takes every category")
    lengths: Range = Field(Range(min=3, max=15), description="words in a list")
    counts: Range | None = Field(None, description="members in a list; null: 0 to the length")
    replicates: int = Field(1, ge=1, description="lists per cell of the design")
    templates: list[str] | None = Field(None, description="wording ids; null takes all")
    crossed_templates: bool = Field(
        False, description="true: every list in every wording; false: wordings in a Latin square"
    )
    max_similarity: Share = Field(0.8, description="largest Jaccard overlap of two lists")

    @model_validator(mode="after")
    def _possible(self) -> CountingData:
        if self.lengths.min < 1:
            raise ValueError("lengths: a list needs at least one word")
        if self.counts and self.counts.min > self.lengths.max:
            raise ValueError(
                f"counts from {self.counts.min} cannot occur in lists of at most "
                f"{self.lengths.max} words"
            )
        return self


class CountingValidation(Settings):
    """Gates on the data; the run stops with a table of what failed."""

    max_invalid_share: Share = Field(0.0, description="share of wrongly labelled lists allowed")
    max_duplicate_share: Share = Field(0.01, description="share of near-duplicate lists allowed")
    duplicate_similarity: Share = Field(0.8, description="Jaccard above which lists are duplicates")
    max_imbalance: Share = Field(0.05, description="total variation of each factor from flat")
    max_association: Share = Field(0.1, description="Cramér's V of count with a nuisance factor")


class CountingPairs(Settings):
    """Pairs of lists for the interventions."""

    n_minimal: int = Field(300, ge=8, description="minimal pairs per model (one word swapped)")
    n_prefix: int = Field(300, ge=8, description="prefix pairs per model (running count differs)")
    n_random: int = Field(0, ge=0, description="random pairs per model (the confounded original)")
    lengths: Range = Field(Range(min=4, max=10), description="words in a list")
    templates: list[str] = Field(["parentheses"], min_length=1, description="wording ids")
    oversample: float = Field(
        1.5, ge=1, le=10, description="pairs made per pair used; a tokenizer refuses some"
    )
    max_delta: int = Field(3, ge=1, le=6, description="largest difference of running counts")


class CountingBenchmark(Settings):
    """How answers are read and tested."""

    max_new_tokens: int = Field(8, ge=1, le=256, description="length of the greedy answer")
    n_permutations: int = Field(9999, ge=99, description="permutations per test")
    gate_level: Share = Field(0.01, description="p-value below which answers depend on the input")
    min_parse_rate: Share = Field(0.97, description="share of greedy answers that must parse")


class CountingMediation(Settings):
    """The interventions and their tests."""

    components: list[Literal["resid_post", "attn_out", "mlp_out"]] = Field(
        ["resid_post", "attn_out", "mlp_out"],
        min_length=1,
        description="parts of each layer that are patched over all positions",
    )
    heads: bool = Field(True, description="patch each attention head at the answer position")
    n_permutations: int = Field(9999, ge=99, description="sign flips of the max-T test")
    smallest_effect: float = Field(
        0.1, gt=0, description="smallest slope or recovery of interest; smaller counts as none"
    )
    window: int = Field(3, ge=2, description="words patched together in the window test")
    probe_controls: int = Field(20, ge=5, description="random word sets a probe must beat")
    level: Share = Field(0.95, description="level of intervals")


class CountingSettings(Settings):
    """Counting study: can a model count, where, and does it hold a running count?"""

    models: list[Name] | None = Field(None, description="names under `models`; null takes all")
    lexicon: str | None = Field(None, description="directory of own word lists; null: built in")
    prompt_templates: str | None = Field(None, description="own wordings (YAML); null: built in")
    data: CountingData = CountingData()
    validation: CountingValidation = CountingValidation()
    benchmark: CountingBenchmark = CountingBenchmark()
    pairs: CountingPairs = CountingPairs()
    mediation: CountingMediation = CountingMediation()


class ExecutionSettings(Settings):
    """How models are run; no result depends on it beyond floating-point rounding."""

    device: str = Field("cpu", pattern=r"^(cpu|cuda)$", description="cpu or cuda")
    tokens_per_batch: int = Field(8192, ge=64, description="padded tokens in one forward pass")


class ReferenceTraining(Settings):
    """What `snakemake reference_models` retrains."""

    names: list[Literal["count_parallel", "count_running", "word_problems"]] = Field(
        ["count_parallel", "count_running", "word_problems"], min_length=1
    )
    seeds: list[int] = Field([0], min_length=1, description="one training per seed")


class Config(Settings):
    """The whole of config.yaml."""

    seed: int = Field(0, ge=0, description="root of every random draw")
    models: dict[Name, ModelSettings] = Field(min_length=1, description="models by name")
    execution: ExecutionSettings = ExecutionSettings()
    counting: CountingSettings | None = Field(None, description="the counting study; null: off")
    reference_models: ReferenceTraining = ReferenceTraining()

    @model_validator(mode="after")
    def _known_models(self) -> Config:
        if self.counting:
            for name in self.counting.models or []:
                if name not in self.models:
                    known = ", ".join(self.models)
                    raise ValueError(f"counting.models: no model named {name!r}; known: {known}")
        return self

    def counting_models(self) -> list[str]:
        """Names of the models that the counting study takes apart, in the config's order."""
        if self.counting is None:
            return []
        return list(dict.fromkeys(self.counting.models or self.models))
