"""The recipe of the embedded reward model: everything that fixes its weights except the seed."""

from __future__ import annotations

from dataclasses import dataclass

from interpflow.models.reference.recipe import OptimizerConfig

REWARD_NAME = "reward_model"
RATES = OptimizerConfig(muon_lr=0.03, adamw_lr=2e-3, warmup_share=0.05)


@dataclass(frozen=True)
class RewardRecipe:
    """A decoder of word problems, some further layers, and how they learn to score.

    base: the reference model that is trained first, from a seed of its own (base_seed is added to
    the seed), so that the reward model shares no weights with the released one. new_layers are put
    on top of its layers, which stay as they are, and new_width is added to the residual stream
    beside theirs. problems: questions per step, each with its right answer and wrong ones.
    token_weight: of the loss at single tokens beside that of the pairs. made_up_share: of the
    questions, those with made-up names, which the tokenizer spells by bytes, as it does misspelt
    words.
    """

    name: str = REWARD_NAME
    base: str = "word_problems"
    base_seed: int = 1000
    new_layers: int = 2
    new_width: int = 32
    steps: int = 240
    problems: int = 10
    token_weight: float = 1.0
    made_up_share: float = 0.2
    max_positions: int = 512
    optimizer: OptimizerConfig = RATES
