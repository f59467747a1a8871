"""The deterministic training loop of the embedded reward model."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from interpflow.models.reference.optimizer import Muon, rate_factor
from interpflow.models.reference.problem_corpus import ProblemMaterial
from interpflow.models.reference.recipe import recipe_of
from interpflow.models.reference.reward_architecture import build_reward_model
from interpflow.models.reference.reward_objective import (
    RewardLosses,
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
    train,
)


@dataclass
class RewardRun:
    """A trained reward model and the course of its training (on the training pairs)."""

    model: LlamaForSequenceClassification
    history: list[dict[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0


def train_reward(
    recipe: RewardRecipe,
    seed: int,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress,
    base: LlamaForCausalLM | None = None,
) -> RewardRun:
    """Train the base (or take a trained one), then exactly `recipe.steps` steps on pairs.

    Without `base`, recipe, seed and problem parts decide the weights.
    """
    spent = 0.0
    if base is None:
        base_recipe = recipe_of(recipe.base)
        run = train(base_recipe, seed + recipe.base_seed, ProblemMaterial(base_recipe), progress)
        base, spent = run.model, run.cpu_seconds
    with deterministic_single_thread():
        return _train(recipe, seed, tokenizer, progress, base, spent)


def _train(
    recipe: RewardRecipe,
    seed: int,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress,
    base: LlamaForCausalLM,
    spent: float,
) -> RewardRun:
    rng = random.Random(seed)
    probe = encode_reward_rows(*draw_rows(recipe, random.Random(seed)), tokenizer).ids
    model = build_reward_model(
        base, tokenizer, probe, new_layers=recipe.new_layers, new_width=recipe.new_width, seed=seed
    )
    readout = nn.Linear(model.config.hidden_size, 1)
    optimizers = _optimizers(model, readout, recipe)
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
        batch = encode_reward_rows(*draw_rows(recipe, rng), tokenizer)
        losses = reward_losses(model, readout, batch, recipe.token_weight)
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
            done = f"step {step + 1} of {recipe.steps}"
            progress(f"{recipe.name}: {done}, {values}, {left:.0f} s left")
            shown = now
        if (step + 1) % max(1, recipe.steps // HISTORY_POINTS) == 0:
            run.history.append({"step": step + 1, **_means(recent)})
            recent = []
    run.cpu_seconds = spent + time.process_time() - cpu_start
    model.eval()
    return run


def _optimizers(
    model: LlamaForSequenceClassification, readout: nn.Linear, recipe: RewardRecipe
) -> list[torch.optim.Optimizer]:
    """Muon on the new layers' matrices, AdamW on their norms, the last norm and the outputs. What
    the base brought stays as it is."""
    config = recipe.optimizer
    n_base = model.config.num_hidden_layers - recipe.new_layers
    model.requires_grad_(False)
    layers = list(model.model.layers)[n_base:]
    outputs = [model.model.norm, model.score, readout]
    for module in (*layers, *outputs):
        module.requires_grad_(True)
    inside = [parameter for layer in layers for parameter in layer.parameters()]
    others = [parameter for module in outputs for parameter in module.parameters()]
    return [
        Muon(
            [parameter for parameter in inside if parameter.ndim == 2],
            config.muon_lr,
            config.muon_momentum,
            config.weight_decay,
        ),
        torch.optim.AdamW(
            [*(parameter for parameter in inside if parameter.ndim == 1), *others],
            lr=config.adamw_lr,
            betas=(config.adamw_beta1, config.adamw_beta2),
            weight_decay=config.weight_decay,
        ),
    ]


def _means(losses: list[RewardLosses]) -> dict[str, float]:
    n = max(1, len(losses))
    return {
        key: round(sum(getattr(item, key) for item in losses) / n, 4)
        for key in ("pairs", "tokens", "ordered")
    }
