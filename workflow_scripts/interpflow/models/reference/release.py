"""Train a reference model and write its directory: weights, tokenizer, record and model card."""

from __future__ import annotations

import importlib.metadata
import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from interpflow.models.reference.card import card_text
from interpflow.models.reference.evaluate import (
    EVALUATION_SEED,
    accuracy_table,
    exact_matches,
    running_count_probe,
    running_count_slope,
)
from interpflow.models.reference.material import CountingMaterial, Material
from interpflow.models.reference.problem_corpus import (
    ProblemMaterial,
    evaluation_rows,
)
from interpflow.models.reference.recipe import RecipeConfig, recipe_of
from interpflow.models.reference.small_tasks_corpus import SmallTasksMaterial
from interpflow.models.reference.small_tasks_evaluate import small_tasks_metrics
from interpflow.models.reference.train import (
    Progress,
    TrainingRun,
    deterministic_single_thread,
    train,
    weights_digest,
)
from interpflow.paths import RESOURCES_DIR
from interpflow.tables.provenance import file_digest

REFERENCE_DIR = RESOURCES_DIR / "reference"
RECORD_NAME = "training.json"
# The residual stream after half of the blocks: where the running-count claim of the cards is made.
MIDDLE_LAYER = 2
EVALUATION_LISTS = 520
EVALUATION_PAIRS = 512
PROBE_LISTS = 256
EVALUATION_PROBLEMS = 500
EVALUATION_ITEMS = 300
EVALUATION_STORIES = 200
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")


def make_material(recipe: RecipeConfig) -> Material:
    """The rows a recipe trains on."""
    if recipe.corpus.task == "counting":
        return CountingMaterial(recipe)
    if recipe.corpus.task == "small_tasks":
        return SmallTasksMaterial(recipe)
    return ProblemMaterial(recipe)


def train_reference(
    name: str, seed: int, out_dir: Path | str, progress: Progress = print
) -> dict[str, Any]:
    """Train a reference model from scratch and write its Hugging Face directory.

    Writes bfloat16 weights, tokenizer, `training.json` and the card `README.md`; the numbers in
    both are measured on the files as written. Equal recipe, seed, word lists and package versions
    give equal weights. Raises UserError for an unknown name. Returns the content of training.json.
    """
    recipe = recipe_of(name)
    material = make_material(recipe)
    run = train(recipe, seed, material, progress)
    progress(f"{name}: trained in {run.cpu_seconds:.0f} CPU s, evaluating")
    write_release(recipe, seed, run, material, Path(out_dir))
    return evaluate_release(Path(out_dir))


def write_release(
    recipe: RecipeConfig, seed: int, run: TrainingRun, material: Material, out_dir: Path
) -> None:
    """Save weights in bfloat16, tokenizer, and the record of the training without its metrics."""
    out_dir.mkdir(parents=True, exist_ok=True)
    record = {
        "name": recipe.name,
        "seed": seed,
        "recipe": asdict(recipe),
        "cpu_seconds": round(run.cpu_seconds, 1),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "history": run.history,
        "digests": {"float32_weights": weights_digest(run.model)},
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    for parameter in run.model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    run.model.config.dtype = torch.bfloat16
    run.model.config.use_cache = True
    run.model.save_pretrained(out_dir)
    material.tokenizer.save_pretrained(out_dir)
    for name in ("model.safetensors", "tokenizer.json"):
        record["digests"][name] = file_digest(out_dir / name)
    _write_record(record, out_dir)


def evaluate_release(directory: Path) -> dict[str, Any]:
    """Measure the files of a release, and write the metrics into its record and card."""
    record = json.loads((directory / RECORD_NAME).read_text(encoding="utf-8"))
    recipe = recipe_of(record["name"])
    model, tokenizer = load_reference(directory)
    record["metrics"] = measure(model, tokenizer, make_material(recipe))
    _write_record(record, directory)
    (directory / "README.md").write_text(card_text(record), encoding="utf-8")
    return record


def _write_record(record: dict[str, Any], directory: Path) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (directory / RECORD_NAME).write_text(text + "\n", encoding="utf-8")


def load_reference(directory: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Model in float32, in evaluation mode, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert isinstance(model, LlamaForCausalLM)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model.eval(), tokenizer


def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    material: Material,
    scale: float = 1.0,
    seed: int = EVALUATION_SEED,
) -> dict[str, Any]:
    """All metrics of a card on held-out items; `scale` shrinks the sample for a quick check."""

    def sized(n: int) -> int:
        return max(1, round(n * scale))

    with deterministic_single_thread():
        if isinstance(material, CountingMaterial):
            return _measure_counting(model, tokenizer, material, sized, seed)
        if isinstance(material, SmallTasksMaterial):
            n_items, n_stories = sized(EVALUATION_ITEMS), sized(EVALUATION_STORIES)
            return small_tasks_metrics(model, tokenizer, material, n_items, n_stories, seed)
        assert isinstance(material, ProblemMaterial)
        groups = evaluation_rows(material, random.Random(seed), sized(EVALUATION_PROBLEMS))
        accuracy = {
            key: _share(exact_matches(model, tokenizer, rows)) for key, rows in groups.items()
        }
        return {"accuracy": accuracy, "n_problems": sized(EVALUATION_PROBLEMS)}


def _measure_counting(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    material: CountingMaterial,
    sized: Callable[[int], int],
    seed: int,
) -> dict[str, Any]:
    corpus, n_layers = material.corpus, model.config.num_hidden_layers
    n_lists, n_pairs, n_probe = sized(EVALUATION_LISTS), sized(EVALUATION_PAIRS), sized(PROBE_LISTS)
    layers = range(1, n_layers + 1)
    return {
        "accuracy": accuracy_table(model, tokenizer, corpus, n_lists, seed),
        "n_lists": n_lists,
        "n_pairs": n_pairs,
        "n_probe_lists": n_probe,
        "middle_layer": MIDDLE_LAYER,
        "slope": {
            str(layer): running_count_slope(model, tokenizer, corpus, layer, n_pairs, seed)
            for layer in layers[:-1]  # nothing reads the list's words after the last block
        },
        "probe": {
            str(layer): running_count_probe(model, tokenizer, corpus, layer, n_probe, seed)
            for layer in layers
        },
    }


def _share(found: list[bool]) -> float:
    return sum(found) / len(found)
