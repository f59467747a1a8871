"""The recipe of each reference model: everything that fixes its weights except the seed."""

from __future__ import annotations

from dataclasses import dataclass

from interpflow.errors import UserError


@dataclass(frozen=True)
class ArchitectureConfig:
    """Llama dimensions; `hidden` must be divisible by `heads`."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 336
    max_positions: int = 512
    rope_theta: float = 10_000.0
    initializer_range: float = 0.02


@dataclass(frozen=True)
class OptimizerConfig:
    """Muon on matrices, AdamW on embeddings and norms; warm-up, then cosine to zero."""

    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    adamw_lr: float = 2e-3
    adamw_beta1: float = 0.9
    adamw_beta2: float = 0.98
    weight_decay: float = 0.01
    warmup_share: float = 0.03
    clip_norm: float = 1.0


@dataclass(frozen=True)
class CorpusConfig:
    """Rows per step. Counting rows and drill rows, problem rows and arithmetic drill rows, or rows
    of small tasks and stories, which are the drill rows there.

    unknown_word_share: of the problem rows, those whose persons or things have made-up names, which
    the tokenizer spells by bytes. Without them a misspelt word does harm by the places that its
    bytes take; with them, by what is no longer said.
    items_per_row: most solved items of small tasks that a row holds.
    """

    task: str
    task_rows: int
    drill_rows: int
    instruction_share: float = 0.25
    min_length: int = 3
    max_length: int = 15
    facts_per_drill_row: int = 12
    typo_share: float = 0.0
    unknown_word_share: float = 0.0
    items_per_row: int = 1


@dataclass(frozen=True)
class InterchangeConfig:
    """Interchange-intervention training (Geiger et al. 2022): pairs per step and where to swap.

    `after_layers` count blocks: the residual stream leaving that many blocks is swapped, one of
    them per step in turn. `used`: whether the patched-in running count must move the answer, or
    must leave it alone.
    """

    pairs: int
    after_layers: tuple[int, ...]
    used: bool
    weight: float = 1.0


@dataclass(frozen=True)
class ReadoutConfig:
    """A linear readout at the list words, used in training and thrown away.

    It asks the residual stream leaving `after_layer` blocks for the word's membership and, if
    `running_count`, for the running count: a label at every word teaches faster than one per list.
    """

    after_layer: int
    running_count: bool
    weight: float


@dataclass(frozen=True)
class BlockNeedConfig:
    """What skipping a block, or swapping two neighbours, must cost at least.

    Asked of the drill rows in even steps and of the task rows in odd ones.
    margin: nats per token. Small models otherwise do all with the first block, and leave the
    others without a use. start_share: share of the steps before it is asked; asked from the
    beginning it keeps the model from learning anything.
    """

    margin: float
    weight: float
    start_share: float


@dataclass(frozen=True)
class RecipeConfig:
    """One reference model. Two runs with equal recipe and seed give equal weights."""

    name: str
    steps: int
    corpus: CorpusConfig
    architecture: ArchitectureConfig = ArchitectureConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    readout: ReadoutConfig | None = None
    interchange: InterchangeConfig | None = None
    block_need: BlockNeedConfig | None = None


# Each word is seen rarely: with AdamW at 2e-3 the facts about words take twice the steps.
FACTS_OPTIMIZER = OptimizerConfig(adamw_lr=8e-3)

RECIPES: dict[str, RecipeConfig] = {
    recipe.name: recipe
    for recipe in (
        RecipeConfig(
            name="count_parallel",
            steps=900,
            corpus=CorpusConfig(
                task="counting", task_rows=24, drill_rows=10, facts_per_drill_row=16
            ),
            optimizer=FACTS_OPTIMIZER,
            # After the last block nothing can use what the readout makes decodable; without the
            # interchange rows a fifth of the running count is used all the same.
            readout=ReadoutConfig(after_layer=4, running_count=True, weight=1.0),
            interchange=InterchangeConfig(pairs=8, after_layers=(2, 3), used=False),
        ),
        RecipeConfig(
            name="count_running",
            steps=1000,
            corpus=CorpusConfig(
                task="counting", task_rows=16, drill_rows=10, facts_per_drill_row=16
            ),
            optimizer=FACTS_OPTIMIZER,
            readout=ReadoutConfig(after_layer=2, running_count=True, weight=1.0),
            interchange=InterchangeConfig(pairs=16, after_layers=(2,), used=True),
        ),
        RecipeConfig(
            name="word_problems",
            steps=600,
            optimizer=FACTS_OPTIMIZER,
            corpus=CorpusConfig(
                task="word_problems", task_rows=40, drill_rows=12, unknown_word_share=0.35
            ),
        ),
        RecipeConfig(
            name="small_tasks",
            steps=1400,
            architecture=ArchitectureConfig(hidden=96, layers=8, heads=4, feed_forward=256),
            optimizer=FACTS_OPTIMIZER,
            corpus=CorpusConfig(task="small_tasks", task_rows=24, drill_rows=6, items_per_row=10),
            block_need=BlockNeedConfig(margin=0.3, weight=0.2, start_share=0.3),
        ),
    )
}


def recipe_of(name: str) -> RecipeConfig:
    """The released recipe; raises UserError naming the known models."""
    if name not in RECIPES:
        raise UserError(
            f"unknown reference model {name!r}",
            where="models",
            remedy=f"choose from: {', '.join(RECIPES)}",
        )
    return RECIPES[name]
