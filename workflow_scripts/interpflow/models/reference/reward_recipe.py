"""The recipe of the embedded reward model: everything that fixes its weights except the seed."""

from __future__ import annotations

from dataclasses import dataclass

from interpflow.models.reference.recipe import ArchitectureConfig, OptimizerConfig

REWARD_NAME = "reward_model"
ENCODER = ArchitectureConfig(layers=3, max_positions=256)
RATES = OptimizerConfig(adamw_lr=8e-3)


@dataclass(frozen=True)
class StepRows:
    """Rows of a step.

    problems: questions, each with its right answer and `wrong` wrong ones; masked: right answers
    with some words hidden; drills: rows of `equations` equations without a question, whose results
    are hidden or, some of them, wrong.
    """

    problems: int
    masked: int
    drills: int
    wrong: int = 3
    equations: int = 8


FIRST_ROWS = StepRows(problems=0, masked=26, drills=14)
ROWS = StepRows(problems=9, masked=6, drills=6)


@dataclass(frozen=True)
class RewardRecipe:
    """How many steps of which rows, weights of the two token losses, and the encoder's sizes.

    First the encoder learns to fill in hidden words of right answers, then to tell answers apart:
    pairs from the beginning teach next to no arithmetic in as many steps. made_up_share: of the
    questions, those with made-up names, which the tokenizer spells by bytes, as it does misspelt
    words.
    """

    name: str = REWARD_NAME
    first_steps: int = 380
    steps: int = 560
    first_rows: StepRows = FIRST_ROWS
    rows: StepRows = ROWS
    made_up_share: float = 0.2
    wrong_weight: float = 1.0
    masked_weight: float = 1.0
    architecture: ArchitectureConfig = ENCODER
    optimizer: OptimizerConfig = RATES
