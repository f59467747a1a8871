"""Train the embedded reward model and write its directory: weights, tokenizer, record and card."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from interpflow.models.reference.release import PACKAGES, RECORD_NAME
from interpflow.models.reference.reward_card import reward_card_text
from interpflow.models.reference.reward_evaluate import reward_metrics
from interpflow.models.reference.reward_recipe import RewardRecipe
from interpflow.models.reference.reward_tokenizer import build_pair_tokenizer
from interpflow.models.reference.reward_train import RewardRun, train_reward
from interpflow.models.reference.train import (
    Progress,
    deterministic_single_thread,
    weights_digest,
)
from interpflow.tables.provenance import file_digest


def train_reward_reference(
    seed: int,
    out_dir: Path | str,
    progress: Progress = print,
    recipe: RewardRecipe | None = None,
) -> dict[str, Any]:
    """Train the reward model from scratch and write its Hugging Face directory.

    Writes bfloat16 weights, tokenizer, `training.json` and the card `README.md`; the numbers in
    both are measured on the files as written. Equal recipe, seed, problem parts and package
    versions give equal weights. Returns the content of training.json.
    """
    recipe = recipe or RewardRecipe()
    tokenizer = build_pair_tokenizer(recipe.max_positions)
    run = train_reward(recipe, seed, tokenizer, progress)
    progress(f"{recipe.name}: trained in {run.cpu_seconds:.0f} CPU s, evaluating")
    write_reward_release(recipe, seed, run, tokenizer, Path(out_dir))
    return evaluate_reward_release(Path(out_dir))


def write_reward_release(
    recipe: RewardRecipe,
    seed: int,
    run: RewardRun,
    tokenizer: PreTrainedTokenizerFast,
    out_dir: Path,
) -> None:
    """Save weights in bfloat16, tokenizer, and the record of the training without its metrics."""
    out_dir.mkdir(parents=True, exist_ok=True)
    model = run.model
    record = {
        "name": recipe.name,
        "seed": seed,
        "recipe": asdict(recipe),
        "cpu_seconds": round(run.cpu_seconds, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "history": run.history,
        "digests": {"float32_weights": weights_digest(model)},
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    for name in ("model.safetensors", "tokenizer.json"):
        record["digests"][name] = file_digest(out_dir / name)
    _write_record(record, out_dir)


def evaluate_reward_release(directory: Path) -> dict[str, Any]:
    """Measure the files of a release, and write the metrics into its record and card."""
    record = json.loads((directory / RECORD_NAME).read_text(encoding="utf-8"))
    with deterministic_single_thread():
        record["metrics"] = reward_metrics(*load_reward_reference(directory))
    _write_record(record, directory)
    (directory / "README.md").write_text(reward_card_text(record), encoding="utf-8")
    return record


def load_reward_reference(
    directory: Path,
) -> tuple[LlamaForSequenceClassification, PreTrainedTokenizerFast]:
    """Model in float32, in evaluation mode, and its tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert isinstance(model, LlamaForSequenceClassification)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model.eval(), tokenizer


def _write_record(record: dict[str, Any], directory: Path) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (directory / RECORD_NAME).write_text(text + "\n", encoding="utf-8")
