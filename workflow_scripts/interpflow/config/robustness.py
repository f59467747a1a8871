"""Settings of the robustness study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from interpflow.config.base import MAX_ITEMS, Names, Settings, Share

Placement = Literal["any", "main", "other"]
Edits = Annotated[int, Field(ge=1, le=100)]
Rate = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[int, Field(ge=1, le=3)]


class DatasetSource(Settings):
    """A data set that the library `datasets` knows by name, or keeps on disk."""

    name: str = Field(min_length=1, description="its name on the hub, or a directory")
    config: str | None = Field(default=None, description="configuration of the data set")
    split: str = Field(default="test", min_length=1, description="part of the data set")
    revision: str | None = Field(
        default=None, description="commit; required with a name on the hub"
    )


class RobustnessColumns(Settings):
    """Which column or key of a file or data set holds what."""

    question: str = Field(default="question", min_length=1, description="what is asked")
    answer: str | None = Field(default=None, description="the gold answer; null: there is none")
    paraphrase: str | None = Field(
        default=None, description="the same question in other words; null: there is none"
    )
    keep: str | None = Field(
        default=None, description="a column of 0 and 1; only rows with 1 are paraphrases"
    )


class RobustnessData(Settings):
    """The prompts that are perturbed."""

    source: Literal["word_problems", "instructions", "file", "dataset"] = Field(
        default="word_problems", description="built in, or a file or data set of your own"
    )
    path: str | None = Field(
        default=None,
        description="with source file: JSON (lists of variants by name), JSONL, CSV or Parquet",
    )
    dataset: DatasetSource | None = Field(default=None, description="with source dataset")
    columns: RobustnessColumns = RobustnessColumns()
    n_items: int | None = Field(
        default=200, ge=8, le=MAX_ITEMS, description="prompts; null: all of a file"
    )
    steps: list[Literal[1, 2]] = Field(
        default=[1, 2], min_length=1, description="steps of built-in word problems"
    )
    prompt: str | None = Field(
        default=None,
        description="what is put around a question, which stands for {question}; null: the "
        "source's own",
    )

    @model_validator(mode="after")
    def _complete(self) -> RobustnessData:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("source file needs a path, and only it takes one")
        if (self.source == "dataset") != (self.dataset is not None):
            raise ValueError("source dataset needs a dataset, and only it takes one")
        if self.prompt is not None and self.prompt.count("{question}") != 1:
            raise ValueError("prompt must hold {question} exactly once")
        return self


class DoseResponse(Settings):
    """Operators that are applied with more and more edits."""

    operators: list[str] = Field(default=["keyboard"], description="operators that count edits")
    n_edits: list[Edits] = Field(default=[1, 2, 3], description="edits of a prompt")
    rates: list[Rate] = Field(default=[], description="share of the words edited, beside n_edits")


class Rewrites(Settings):
    """Rewriting by the role `generator`, in these styles."""

    styles: Names = Field(min_length=1, description="polite, urgent, terse, ... or paraphrase")
    per_item: int = Field(default=1, ge=1, le=10, description="rewrites per prompt and style")


class Perturbations(Settings):
    """What is done to every prompt. The null operator and the matched control are always there."""

    operators: Names | None = Field(default=None, description="names; null: all built-in ones")
    n_edits: Edits = Field(default=2, description="edits of operators that count them")
    strength: Strength = Field(default=2, description="of tone and style: 1 slight to 3 strong")
    placements: list[Placement] = Field(
        default=["any"],
        min_length=1,
        description="any word, main (the words the task turns on), other (words it does not)",
    )
    dose: DoseResponse = DoseResponse()
    strengths: list[Strength] = Field(
        default=[], description="further strengths of each style, graded"
    )
    variants: int = Field(default=1, ge=1, le=100, description="draws of each kind per prompt")
    edit_protected: bool = Field(
        default=False, description="true: numbers and answer-bearing words may be edited as well"
    )
    rewrites: Rewrites | None = Field(
        default=None, description="also have prompts rewritten by the role generator"
    )


class SemanticPreservation(Settings):
    """Which variants keep the meaning: a rule check, an embedding, then the role validator."""

    embedding: str | None = Field(
        default="minilm",
        description="sentence embedding: minilm (built in), a hub name or a directory; null: none",
    )
    min_similarity: Share = Field(
        default=0.6, description="smallest cosine with the original prompt"
    )
    validator: bool = Field(
        default=False, description="true: the role validator judges what the others let pass"
    )
    max_rejected_share: Share = Field(
        default=0.5, description="share of an operator's variants that may be rejected"
    )


class RobustnessActivations(Settings):
    """What is kept of the model's states."""

    components: list[Literal["resid_post", "attn_out", "mlp_out", "head_out", "mlp_act"]] = Field(
        default=["resid_post", "mlp_act"], min_length=1, description="states that are kept"
    )
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="layers that are kept; null: all"
    )
    positions: Literal["roles", "answer", "all"] = Field(
        default="all",
        description="roles: edited and control words, numbers, the answer's start; answer: the "
        "last token; all: every token",
    )
    patterns: bool = Field(
        default=True,
        description="attention from the answer's start and from each number; none with "
        "positions answer",
    )
    max_items: int | None = Field(
        default=60, ge=8, le=MAX_ITEMS, description="prompts whose states are kept; null: all"
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default="float16", description="number type of kept states; null: the model's own"
    )


class RobustnessInference(Settings):
    """How prompts are answered."""

    max_new_tokens: int = Field(default=48, ge=1, le=4096, description="length of an answer")
    samples: int = Field(
        default=0, ge=0, le=100, description="drawn answers per prompt, beside the greedy one"
    )
    top_k: int = Field(default=10, ge=1, le=1000, description="logits kept at the answer's start")
    activations: RobustnessActivations = RobustnessActivations()


class RobustnessScoring(Settings):
    """What answers are scored by beside arithmetic."""

    reward_models: Names = Field(
        default=["reference"],
        description="sequence classifiers with one output: reference (built in), hub names with "
        "their commit such as OpenAssistant/reward-model-deberta-v3-large-v2@…, or directories",
    )
    reward_max_tokens: int = Field(
        default=512, ge=16, le=8192, description="a longer question loses its beginning"
    )
    embedding: str | None = Field(
        default="minilm", description="sentence embedding that compares answers; null: none"
    )
    nli: str | None = Field(
        default=None, description="model of natural-language inference, asked both ways"
    )
    judge: bool = Field(
        default=False, description="true: the role judge compares answers, blind, in both orders"
    )


class RobustnessAnalysis(Settings):
    """The questions that are tested, named before the data are seen."""

    primary: str = Field(
        default="keyboard", description="operator of the primary endpoint, at its middle dose"
    )
    smallest_effect: float = Field(
        default=0.05, gt=0, lt=1, description="loss of accuracy that would matter"
    )
    equivalence: float = Field(
        default=0.03, gt=0, lt=1, description="loss within which an operator counts as harmless"
    )
    n_permutations: int = Field(
        default=9999, ge=99, le=MAX_ITEMS, description="sign flips of each test"
    )
    n_resamples: int = Field(default=1999, ge=99, le=MAX_ITEMS, description="of bootstraps")
    level: float = Field(default=0.95, gt=0, lt=1, description="level of intervals")


class RobustnessMediation(Settings):
    """Patching clean states into perturbed prompts, and back."""

    n_pairs: int = Field(default=120, ge=8, le=MAX_ITEMS, description="damaged prompts patched")
    families: list[Literal["typo", "obfuscation", "style", "rewrite", "given"]] = Field(
        default=["typo", "given"],
        min_length=1,
        description="kinds of variants whose damage is patched; sentences that a style adds have "
        "no clean states",
    )
    components: list[Literal["resid_post", "attn_out", "mlp_out"]] = Field(
        default=["resid_post", "attn_out", "mlp_out"],
        min_length=1,
        description="parts of each layer that are patched",
    )
    heads: bool = Field(default=True, description="patch each head's output")
    patterns: bool = Field(
        default=True,
        description="patch the answer's attention patterns: layer by layer, and by head where "
        "prompts are of equal length",
    )


class RobustnessSettings(Settings):
    """Robustness study: what typos, tone and paraphrase cost, and where the damage is carried."""

    models: Names | None = Field(default=None, description="names under `models`; null takes all")
    data: RobustnessData = RobustnessData()
    perturbations: Perturbations = Perturbations()
    semantics: SemanticPreservation = SemanticPreservation()
    inference: RobustnessInference = RobustnessInference()
    scoring: RobustnessScoring = RobustnessScoring()
    analysis: RobustnessAnalysis = RobustnessAnalysis()
    mediation: RobustnessMediation = RobustnessMediation()
