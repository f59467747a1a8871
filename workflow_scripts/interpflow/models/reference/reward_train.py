"""The deterministic training loop of the embedded reward model."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import torch
from transformers import ModernBertForSequenceClassification, PreTrainedTokenizerFast

from interpflow.models.reference.optimizer import make_optimizers, rate_factor
from interpflow.models.reference.reward_architecture import build_reward_model
from interpflow.models.reference.reward_objective import (
    RewardLosses,
    TokenReadouts,
    draw_rows,
    encode_reward_rows,
    reward_losses,
)
from interpflow.models.reference.reward_recipe import RewardRecipe
from interpflow.models.reference.train import (
    HISTORY_POINTS,
    PROGRESS_SECONDS,
    Progress,
    deterministic_single_thread,
)


@dataclass
class RewardRun:
    """A trained reward model and the course of its training (on the training pairs)."""

    model: ModernBertForSequenceClassification
    history: list[dict[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0


def train_reward(
    recipe: RewardRecipe, seed: int, tokenizer: PreTrainedTokenizerFast, progress: Progress
) -> RewardRun:
    """Train for exactly `recipe.steps` steps; recipe, seed and problem parts decide the weights."""
    with deterministic_single_thread():
        return _train(recipe, seed, tokenizer, progress)


def _train(
    recipe: RewardRecipe, seed: int, tokenizer: PreTrainedTokenizerFast, progress: Progress
) -> RewardRun:
    rng = random.Random(seed)
    model = build_reward_model(recipe.architecture, tokenizer, seed)
    readouts = TokenReadouts(recipe.architecture.hidden, len(tokenizer))
    optimizers = make_optimizers(model, recipe.optimizer)
    optimizers.append(torch.optim.AdamW(readouts.parameters(), lr=recipe.optimizer.adamw_lr))
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    run = RewardRun(model)
    model.train()
    start, cpu_start = time.monotonic(), time.process_time()
    shown, recent = start, []
    for step in range(recipe.steps):
        factor = rate_factor(step, recipe.steps, recipe.optimizer.warmup_share)
        for optimizer, full in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = rate * factor
        step_rows = recipe.first_rows if step < recipe.first_steps else recipe.rows
        batch = encode_reward_rows(*draw_rows(recipe, step_rows, rng), tokenizer)
        losses = reward_losses(model, readouts, batch, recipe)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent.append(losses)
        now = time.monotonic()
        if now - shown >= PROGRESS_SECONDS or step + 1 == recipe.steps:
            left = (now - start) / (step + 1) * (recipe.steps - step - 1)
            values = ", ".join(f"{key} {value:.3f}" for key, value in _means(recent[-20:]).items())
            progress(
                f"{recipe.name}: step {step + 1} of {recipe.steps}, {values}, {left:.0f} s left"
            )
            shown = now
        if (step + 1) % max(1, recipe.steps // HISTORY_POINTS) == 0:
            run.history.append({"step": step + 1, **_means(recent)})
            recent = []
    run.cpu_seconds = time.process_time() - cpu_start
    model.eval()
    return run


def _means(losses: list[RewardLosses]) -> dict[str, float]:
    means = {}
    for key in ("pairs", "tokens", "masked", "ordered"):
        values = [value for item in losses if (value := getattr(item, key)) is not None]
        if values:
            means[key] = round(sum(values) / len(values), 4)
    return means
