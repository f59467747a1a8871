"""The deterministic training loop of the reference models."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import LlamaForCausalLM

from interpflow.models.reference.architecture import build_model, embed, run_blocks, unembed
from interpflow.models.reference.block_need import block_need_loss, need_is_asked
from interpflow.models.reference.interchange import interchange_losses, rows_right
from interpflow.models.reference.material import Material
from interpflow.models.reference.optimizer import make_optimizers, rate_factor
from interpflow.models.reference.recipe import ReadoutConfig, RecipeConfig
from interpflow.models.reference.rows import Batch, Row, encode_rows

Progress = Callable[[str], None]
ROWS_PER_PASS = 24  # rows of like length go together, so that little is spent on padding
PROGRESS_SECONDS = 5.0
HISTORY_POINTS = 40


@dataclass
class _Tally:
    """Sums since the last progress line."""

    loss: float = 0.0
    tokens: int = 0
    right: int = 0
    rows: int = 0
    drill_loss: float = 0.0
    drill_tokens: int = 0
    patched_right: int = 0
    patched_rows: int = 0

    def line(self) -> dict[str, float]:
        values = {
            "loss": self.loss / max(1, self.tokens),
            "accuracy": self.right / max(1, self.rows),
        }
        if self.drill_tokens:
            values["drill_loss"] = self.drill_loss / self.drill_tokens
        if self.patched_rows:
            values["interchange_accuracy"] = self.patched_right / self.patched_rows
        return {key: round(value, 4) for key, value in values.items()}


@dataclass
class TrainingRun:
    """A trained model and the course of its training (accuracy on the training rows)."""

    model: LlamaForCausalLM
    history: list[dict[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0


class WordReadout(torch.nn.Linear):
    """Membership (one logit) and running count (one logit per count) read from a list word."""

    def __init__(self, recipe: RecipeConfig, config: ReadoutConfig) -> None:
        n_counts = recipe.corpus.max_length + 1 if config.running_count else 0
        super().__init__(recipe.architecture.hidden, 1 + n_counts)
        self.config = config

    def loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Weighted, summed over the words whose membership is known; hidden [row, position, d]."""
        logits = self(hidden[batch.word_places[:, 0], batch.word_places[:, 1]])
        member, running = batch.word_labels.unbind(1)
        loss = binary_cross_entropy_with_logits(logits[:, 0], member.float(), reduction="sum")
        if self.config.running_count:
            loss = loss + cross_entropy(logits[:, 1:], running, reduction="sum")
        return self.config.weight * loss


@contextmanager
def deterministic_single_thread() -> Iterator[None]:
    """One thread and deterministic kernels: sums in another order give other weights."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def train(recipe: RecipeConfig, seed: int, material: Material, progress: Progress) -> TrainingRun:
    """Train for exactly `recipe.steps` steps; recipe, seed and word lists decide the weights."""
    with deterministic_single_thread():
        return _train(recipe, seed, material, progress)


def _train(recipe: RecipeConfig, seed: int, material: Material, progress: Progress) -> TrainingRun:
    rng = random.Random(seed)
    model = build_model(recipe.architecture, material.tokenizer, seed)
    readout = WordReadout(recipe, recipe.readout) if recipe.readout else None
    optimizers = make_optimizers(model, recipe.optimizer)
    if readout is not None:
        optimizers.append(torch.optim.AdamW(readout.parameters(), lr=recipe.optimizer.adamw_lr))
    full_rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    run = TrainingRun(model)
    model.train()
    start, cpu_start = time.monotonic(), time.process_time()
    shown, tally, total = start, _Tally(), _Tally()
    for step in range(recipe.steps):
        factor = rate_factor(step, recipe.steps, recipe.optimizer.warmup_share)
        for optimizer, rates in zip(optimizers, full_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        _backward(recipe, material, rng, model, readout, step, (tally, total))
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % max(1, recipe.steps // HISTORY_POINTS) == 0:
            run.history.append({"step": step + 1, **total.line()})
            total = _Tally()
        now = time.monotonic()
        if now - shown >= PROGRESS_SECONDS or step + 1 == recipe.steps:
            progress(_progress_line(recipe, step + 1, tally, now - start))
            shown, tally = now, _Tally()
    run.cpu_seconds = time.process_time() - cpu_start
    model.eval()
    return run


def _backward(
    recipe: RecipeConfig,
    material: Material,
    rng: random.Random,
    model: LlamaForCausalLM,
    readout: WordReadout | None,
    step: int,
    tallies: tuple[_Tally, ...],
) -> None:
    tasks, drills = material.task_rows(rng), material.drill_rows(rng)
    split = recipe.readout.after_layer if recipe.readout else 0
    pairs = material.pairs(rng)
    passes = [*_passes(tasks), *([drills] if drills else [])]
    batches = [encode_rows(rows, material.tokenizer) for rows in passes]
    n_tokens = sum(len(batch.target) for batch in batches)
    n_tokens += len(pairs.rows.target) if pairs else 0
    for rows, batch in zip(passes, batches, strict=True):
        middle = run_blocks(model, embed(model, batch.ids), 0, split)
        final = run_blocks(model, middle, split, recipe.architecture.layers)
        logits = unembed(model, final[batch.row, batch.position])
        loss = cross_entropy(logits, batch.target, reduction="sum")
        total = loss / n_tokens
        if readout is not None and len(batch.word_places):
            total = total + readout.loss(middle, batch) / n_tokens
        total.backward()
        need = recipe.block_need
        if need is not None and need_is_asked(need, step, recipe.steps, rows is drills):
            intact = float(loss.detach()) / len(batch.target)
            block_need_loss(model, batch, intact, step, need).backward()
        right = rows_right(logits, batch.target, batch.row, len(rows))
        for tally in tallies:
            tally.loss += float(loss.detach())
            tally.tokens += len(batch.target)
            if rows is drills:
                tally.drill_loss += float(loss.detach())
                tally.drill_tokens += len(batch.target)
            else:
                tally.right += int(right.sum())
                tally.rows += len(rows)
    if pairs and recipe.interchange:
        layers = recipe.interchange.after_layers
        after_layer = layers[step % len(layers)]
        plain, patched, right, middle = interchange_losses(
            model, pairs, after_layer, recipe.interchange.used
        )
        total = plain + recipe.interchange.weight * patched
        if readout is not None and readout.config.after_layer == after_layer:
            total = total + readout.loss(middle, pairs.rows)
        (total / n_tokens).backward()
        for tally in tallies:
            tally.loss += float(plain.detach())
            tally.tokens += len(pairs.rows.target)
            tally.patched_right += int(right.sum())
            tally.patched_rows += pairs.n


def _passes(rows: list[Row]) -> list[list[Row]]:
    ordered = sorted(rows, key=lambda row: len(row.text))
    return [ordered[i : i + ROWS_PER_PASS] for i in range(0, len(ordered), ROWS_PER_PASS)]


def _progress_line(recipe: RecipeConfig, step: int, tally: _Tally, elapsed: float) -> str:
    left = elapsed / step * (recipe.steps - step)
    values = ", ".join(f"{key} {value:.3f}" for key, value in tally.line().items())
    return f"{recipe.name}: step {step} of {recipe.steps}, {values}, {left:.0f} s left"


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of all weights in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
