"""Settings of the layer surgery study."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from interpflow.config.base import MAX_ITEMS, Names, Settings, Share

Count = Annotated[int, Field(ge=1, le=MAX_ITEMS)]
Policy = Literal["offline", "random", "fixed_sweep"]
Plant = Literal["no_op", "swapped", "scaled", "duplicated"]


class WrittenTasks(Settings):
    """Tasks that the role `generator` writes items for."""

    tasks: dict[str, str] = Field(
        min_length=1, description="name of each task: what its items are, in a sentence"
    )
    n_items: Count = Field(default=40, description="items wanted of each task")
    rounds: int = Field(default=3, ge=1, le=20, description="of writing and filtering")
    min_log_prob: float = Field(
        default=-8.0, le=0,
        description="nats per token; a written answer that the intact model finds less likely "
        "is left out",
    )  # fmt: skip
    max_similarity: Share = Field(
        default=0.95, description="largest embedding cosine of two prompts of a task"
    )


class SurgeryTasks(Settings):
    """Small tasks on which the damage of a plan is measured."""

    builtin: list[str] | None = Field(
        default=None, description="built-in tasks; null: all, empty: none but your own"
    )
    files: list[str] = Field(default=[], description="own task files, YAML or JSON")
    written: WrittenTasks | None = Field(
        default=None, description="also have items written by the role generator"
    )
    n_items: Count = Field(default=32, description="independent items of each task at most")
    shots: int = Field(default=0, ge=0, le=20, description="solved examples before each prompt")
    min_accuracy: Share = Field(
        default=0.3,
        description="a task that the intact model solves less often is reported, not analysed",
    )

    @model_validator(mode="after")
    def _complete(self) -> SurgeryTasks:
        if len(set(self.builtin or [])) < len(self.builtin or []):
            raise ValueError("builtin names a task twice")
        if self.builtin == [] and not self.files and self.written is None:
            raise ValueError("no tasks: name some in builtin, files or written")
        return self


class SurgeryTexts(Settings):
    """Neutral text on which loss is measured and lenses are trained."""

    source: Literal["stories", "file"] = Field(
        default="stories", description="built in, or a file of your own"
    )
    path: str | None = Field(
        default=None, description="with source file: .txt (a document a line) or .jsonl"
    )
    n_documents: Count = Field(default=120, description="documents whose loss is measured")
    n_lens: Count = Field(default=800, description="further documents that lenses are trained on")
    n_agent: int = Field(
        default=800, ge=0, le=MAX_ITEMS,
        description="further documents that only the agent's confirmatory tests read",
    )  # fmt: skip
    max_tokens: int = Field(default=64, ge=8, le=4096, description="a document is cut after these")

    @model_validator(mode="after")
    def _complete(self) -> SurgeryTexts:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("source file needs a path, and only it takes one")
        return self


class SurgeryPlans(Settings):
    """Which layer plans the sweep runs."""

    skip_ranges: bool = Field(default=True, description="ranges at the start, middle and end")
    keep: bool = Field(default=True, description="only the first n, only the last n blocks")
    repeats: list[Annotated[int, Field(ge=2, le=8)]] = Field(
        default=[2, 3, 5], description="times that each block is run in a row"
    )
    swaps: bool = Field(default=True, description="adjacent blocks change places")
    reverse: bool = Field(default=True, description="inner blocks in reverse order")
    parallel: bool = Field(default=True, description="inner ranges side by side")
    ablations: list[Literal["zero", "mean", "resample"]] = Field(
        default=["mean"], description="of each block's attention and MLP"
    )
    heads: bool = Field(default=False, description="ablate each head too")
    random_orders: int = Field(
        default=200, ge=0, le=100_000, description="orders of the null band, drawn by distance"
    )
    null_documents: Count = Field(
        default=24, description="documents that random orders and controls are run on"
    )
    controls: int = Field(
        default=8, ge=0, le=1000,
        description="random sets of as many blocks at like depth, for each skipped range",
    )  # fmt: skip
    own: list[dict[str, Any]] = Field(
        default=[], description="further plans, such as {kind: steps, steps: '0 1 (2|3) 4'}"
    )


class SurgeryMeasures(Settings):
    """What is read from a model under a plan."""

    top_tokens: int = Field(default=3, ge=0, le=100, description="tokens gained and lost per item")
    generate: list[str] = Field(
        default=["intact", "skip_each", "keep_first"],
        description="plans under which text is generated: intact, all, or families of plans",
    )
    n_generated: int = Field(default=6, ge=0, le=MAX_ITEMS, description="prompts of each task")
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="length of a generation")


class SurgeryLenses(Settings):
    """Logit lens and tuned lens."""

    steps: int = Field(default=250, ge=1, le=100_000, description="steps of training")
    documents_per_step: Count = Field(default=16, description="documents in a step")
    tokens_per_step: Count = Field(default=192, description="tokens of these that a step reads")
    learning_rate: float = Field(default=4e-3, gt=0, le=1, description="of Adam")
    weight_decay: float = Field(default=1e-3, ge=0, le=1, description="towards the identity")
    exit_kl: float = Field(
        default=0.5, gt=0, description="nats per token below which a depth counts as exited"
    )
    trajectories: list[str] = Field(
        default=[], description="prompts shown token by token; empty: some of the tasks'"
    )


class SurgerySearch(Settings):
    """Minimal sufficient and minimal necessary sets of blocks."""

    tasks: Names | None = Field(default=None, description="tasks searched; null: all analysed")
    keep_share: Share = Field(
        default=0.8, description="share of the intact accuracy that a sufficient set keeps"
    )
    lose_share: Share = Field(
        default=0.5, description="share of the intact accuracy that skipping a necessary set costs"
    )
    max_plans: Count = Field(default=60, description="plans tried for each task and kind of set")


class AgentBudget(Settings):
    """What an agent may spend; the first that is used up ends its work."""

    confirmatory: int = Field(default=16, ge=1, le=10_000, description="confirmatory runs")
    turns: int = Field(default=120, ge=1, le=100_000, description="actions")
    forward_tokens: int = Field(
        default=2_000_000, ge=1, description="tokens run through the model, cached runs free"
    )
    llm_tokens: int = Field(default=500_000, ge=1, description="tokens of the language model")
    cost_usd: float = Field(default=5.0, ge=0, description="money for the language model")
    seconds: float = Field(default=3600.0, gt=0, description="wall-clock time")


class SurgeryAgent(Settings):
    """The automated researcher."""

    goal: str = Field(
        default="Find blocks of this model that do not do what a block at their depth should: "
        "superfluous, out of order, too weak or strong, or repeated.",
        min_length=1,
        description="what the agent is to find out",
    )
    budget: AgentBudget = AgentBudget()
    smallest_effect: float = Field(
        default=0.02, gt=0, description="nats per token that matter, unless a prediction says else"
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="false discovery rate of its confirmed claims"
    )
    method: Literal["lord", "saffron", "e_lond", "spending"] = Field(
        default="lord", description="how alpha is spent over its sequence of tests"
    )
    n_units: int = Field(default=32, ge=8, le=MAX_ITEMS, description="documents of a test")
    placebo_share: Share = Field(
        default=0.1,
        description="share of confirmatory slots that secretly test nothing: plan and intact model "
        "change places at random; the test is run again at the end",
    )
    max_errors: int = Field(
        default=10, ge=1, le=1000, description="actions in a row that fail their schema"
    )


class SurgeryJudging(Settings):
    """How agents are judged: on copies of a model with planted anomalies, and on the model."""

    plants: list[Plant] = Field(
        default=["no_op", "swapped", "scaled", "duplicated"],
        description="anomalies planted; empty: agents are not judged",
    )
    places: int = Field(default=2, ge=1, le=100, description="places of each anomaly")
    policies: list[Policy] = Field(
        default=["offline", "random", "fixed_sweep"], min_length=1, description="who is judged"
    )
    with_agent: bool = Field(
        default=False, description="judge the language model of the role agent too"
    )
    seeds: int = Field(default=2, ge=1, le=10_000, description="runs of each policy and model")
    n_explored: int = Field(
        default=40, ge=8, le=MAX_ITEMS,
        description="documents that may be explored; each run draws 32 of them at most",
    )  # fmt: skip
    n_units: int = Field(default=16, ge=8, le=MAX_ITEMS, description="documents of a test")
    max_tokens: int = Field(default=48, ge=8, le=4096, description="a document is cut after these")


class SurgeryAnalysis(Settings):
    """The questions that are tested, named before the data are seen."""

    smallest_effect: float = Field(
        default=0.05, gt=0, description="nats per token of neutral text that matter"
    )
    n_permutations: int = Field(default=9999, ge=99, le=MAX_ITEMS, description="of each test")
    n_resamples: int = Field(default=1999, ge=99, le=MAX_ITEMS, description="of bootstraps")
    level: float = Field(default=0.95, gt=0, lt=1, description="level of intervals")


class LayerSurgerySettings(Settings):
    """Layer surgery study: what each block of a model is for, by running it otherwise."""

    models: Names | None = Field(default=None, description="names under `models`; null takes all")
    store: str = Field(
        default="experiments", min_length=1,
        description="directory of all runs, shared by sweeps and agents; outside results/",
    )  # fmt: skip
    tasks: SurgeryTasks = SurgeryTasks()
    texts: SurgeryTexts = SurgeryTexts()
    plans: SurgeryPlans = SurgeryPlans()
    measures: SurgeryMeasures = SurgeryMeasures()
    lenses: SurgeryLenses = SurgeryLenses()
    search: SurgerySearch = SurgerySearch()
    agent: SurgeryAgent | None = Field(
        default=SurgeryAgent(), description="the automated researcher; null: none"
    )
    judging: SurgeryJudging = SurgeryJudging()
    analysis: SurgeryAnalysis = SurgeryAnalysis()
