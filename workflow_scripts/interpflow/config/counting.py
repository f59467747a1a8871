"""Settings of the counting study."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from interpflow.config.base import MAX_ITEMS, Names, Range, Settings, Share


class CountingLlmData(Settings):
    """Lists written by the role `generator`, checked word by word, in rounds until all exist."""

    share: float = Field(default=0.5, gt=0, lt=1, description="of the lists, with source mixed")
    lists_per_call: int = Field(default=5, ge=1, le=50, description="lists asked for in one call")
    oversample: float = Field(
        default=1.2, ge=1, le=10, description="lists asked for per list missing"
    )
    max_rounds: int = Field(
        default=5, ge=1, le=50, description="rounds of generate, validate, refill"
    )
    max_word_uses: int = Field(
        default=30, ge=1, le=MAX_ITEMS, description="lists of a category that may share a word"
    )
    gold_words: int = Field(
        default=100,
        ge=0,
        le=MAX_ITEMS,
        description="words of known membership, and as many non-members, on which the validator "
        "is measured",
    )


class CountingData(Settings):
    """The factorial design of lists: category × length × count."""

    source: Literal["systematic", "llm", "mixed"] = Field(
        default="systematic",
        description="systematic: from the lexicon; llm: by the role generator; mixed: both",
    )
    llm: CountingLlmData = CountingLlmData()

    categories: Names | None = Field(default=None, description="names; null takes every category")
    lengths: Range = Field(default=Range(min=3, max=15), description="words in a list")
    counts: Range | None = Field(
        default=None, description="members in a list; null: 0 to the length"
    )
    replicates: int = Field(
        default=1, ge=1, le=MAX_ITEMS, description="lists per cell of the design"
    )
    templates: Names | None = Field(default=None, description="wording ids; null takes all")
    crossed_templates: bool = Field(
        default=False,
        description="true: every list in every wording; false: wordings in a Latin square",
    )
    max_similarity: Share = Field(default=0.8, description="largest Jaccard overlap of two lists")

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

    max_invalid_share: Share = Field(
        default=0.0, description="share of wrongly labelled lists allowed"
    )
    max_duplicate_share: Share = Field(
        default=0.01, description="share of near-duplicate lists allowed"
    )
    duplicate_similarity: Share = Field(
        default=0.8, description="Jaccard above which lists are duplicates"
    )
    max_imbalance: Share = Field(
        default=0.05, description="total variation of each factor from flat"
    )
    max_association: Share = Field(
        default=0.1, description="Cramér's V of count with a nuisance factor"
    )
    max_pair_imbalance: float = Field(
        default=0.1,
        ge=0,
        description="standardised mean difference between the swapped words of minimal pairs; "
        "below some 200 pairs chance alone exceeds 0.1",
    )


class CountingPairs(Settings):
    """Pairs of lists for the interventions."""

    n_minimal: int = Field(
        default=300, ge=8, le=MAX_ITEMS, description="minimal pairs per model (one word swapped)"
    )
    n_prefix: int = Field(
        default=300,
        ge=8,
        le=MAX_ITEMS,
        description="prefix pairs per model (running count differs)",
    )
    n_random: int = Field(
        default=0,
        ge=0,
        le=MAX_ITEMS,
        description="random pairs per model (the confounded original)",
    )
    lengths: Range = Field(default=Range(min=5, max=10), description="words in a list")
    templates: Names = Field(default=["parentheses"], min_length=1, description="wording ids")
    oversample: float = Field(
        default=1.5, ge=1, le=10, description="pairs made per pair used; a tokenizer refuses some"
    )
    min_used_share: Share = Field(
        default=0.8, description="share of the wanted pairs that must line up in the tokenizer"
    )
    max_delta: int = Field(
        default=3, ge=1, le=6, description="largest difference of running counts"
    )


class CountingBenchmark(Settings):
    """How answers are read and tested."""

    max_new_tokens: int = Field(default=8, ge=1, le=256, description="length of the greedy answer")
    n_permutations: int = Field(
        default=9999, ge=99, le=MAX_ITEMS, description="permutations per test"
    )
    gate_level: Share = Field(
        default=0.01, description="p-value below which answers depend on the input"
    )
    min_parse_rate: Share = Field(
        default=0.97, description="share of greedy answers that must parse"
    )


class CountingMediation(Settings):
    """The interventions and their tests."""

    components: list[Literal["resid_post", "attn_out", "mlp_out"]] = Field(
        default=["resid_post", "attn_out", "mlp_out"],
        description="parts of each layer to patch; the residual at every place, the others at the "
        "swapped word, the later words and the answer",
    )
    heads: bool = Field(
        default=True, description="patch each attention head at the answer position"
    )
    n_permutations: int = Field(
        default=9999, ge=99, le=MAX_ITEMS, description="sign flips of the max-T test"
    )
    smallest_effect: float = Field(
        default=0.1,
        gt=0,
        description="smallest slope or recovery of interest; smaller counts as none",
    )
    window: int = Field(default=3, ge=2, description="words patched together in the window test")
    probe_controls: int = Field(
        default=20, ge=19, le=MAX_ITEMS, description="random word sets a probe must beat"
    )
    level: float = Field(default=0.95, gt=0, lt=1, description="level of intervals")


class CountingSettings(Settings):
    """Counting study: can a model count, where, and does it hold a running count?"""

    models: Names | None = Field(default=None, description="names under `models`; null takes all")
    lexicon: str | None = Field(
        default=None, description="directory of own word lists; null: built in"
    )
    prompt_templates: str | None = Field(
        default=None, description="own wordings (YAML); null: built in"
    )
    data: CountingData = CountingData()
    validation: CountingValidation = CountingValidation()
    benchmark: CountingBenchmark = CountingBenchmark()
    pairs: CountingPairs = CountingPairs()
    mediation: CountingMediation = CountingMediation()
