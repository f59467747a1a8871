"""A release loads from its files, and the released models do what their cards say."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interpflow.errors import UserError
from interpflow.models.reference import release
from interpflow.models.reference.card import SAMPLES, card_text
from interpflow.models.reference.material import CountingMaterial
from interpflow.models.reference.recipe import RECIPES, RecipeConfig, recipe_of
from interpflow.models.reference.seeds import seed_row
from interpflow.models.reference.train import train

SAMPLE_SCALE = 0.1
RELEASED = [name for name in RECIPES if (release.REFERENCE_DIR / name).is_dir()]
COUNTING = [name for name in RELEASED if RECIPES[name].corpus.task == "counting"]
# Bounds of the two claims: a control that must show a running count, and one that must not.
MIN_RUNNING_SLOPE = 0.8
MAX_PARALLEL_SLOPE = 0.1
MIN_ACCURACY = 0.97
MIN_PROBE_R2 = 0.8
KEYS = ("template/", "steps/", "task/")
SEEDS_TABLE = release.REFERENCE_DIR / "seeds.csv"


def record_of(name: str) -> dict[str, Any]:
    path = release.REFERENCE_DIR / name / release.RECORD_NAME
    return json.loads(path.read_text(encoding="utf-8"))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="count_parallel"):
        recipe_of("count_sideways")


def test_a_release_loads_with_the_same_weights(
    small_recipe: RecipeConfig, small_material: CountingMaterial, tmp_path: Path
) -> None:
    run = train(replace(small_recipe, steps=2), 0, small_material, [].append)
    kept = {key: value.clone() for key, value in run.model.state_dict().items()}
    release.write_release(small_recipe, 0, run, small_material, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert model.config.use_cache
    for key, value in model.state_dict().items():
        assert torch.equal(value, kept[key].to(torch.bfloat16)), key
    assert tokenizer.eos_token_id == model.config.eos_token_id
    record = json.loads((tmp_path / release.RECORD_NAME).read_text(encoding="utf-8"))
    weights = tmp_path / "model.safetensors"
    assert record["digests"]["model.safetensors"] == release.file_digest(weights)


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_are_those_of_the_record(name: str) -> None:
    directory, record = release.REFERENCE_DIR / name, record_of(name)
    for file in ("model.safetensors", "tokenizer.json"):
        assert record["digests"][file] == release.file_digest(directory / file), file


@pytest.mark.parametrize("name", RELEASED)
def test_the_tokenizer_still_fits_word_lists_and_wordings(name: str) -> None:
    _, tokenizer = release.load_reference(release.REFERENCE_DIR / name)
    assert tokenizer.get_vocab() == release.make_material(recipe_of(name)).tokenizer.get_vocab()


@pytest.mark.parametrize("name", RELEASED)
def test_card_accuracy_holds_on_a_new_sample(name: str) -> None:
    metrics = measured(name)
    recorded, n = record_of(name)["metrics"]["accuracy"], metrics["n"]
    for key in ("overall", *(key for key in recorded if key.startswith(KEYS))):
        p = min(max(recorded[key], 0.01), 0.99)
        assert abs(metrics["accuracy"][key] - recorded[key]) < 4 * math.sqrt(p * (1 - p) / n), key


@pytest.mark.parametrize("name", COUNTING)
def test_card_slope_holds_on_a_new_sample(name: str) -> None:
    metrics, recorded = measured(name), record_of(name)["metrics"]
    middle = str(recorded["middle_layer"])
    slope = metrics["slope"][middle]
    if name == "count_running":
        assert slope["estimate"] > MIN_RUNNING_SLOPE
    else:
        assert abs(slope["estimate"]) < MAX_PARALLEL_SLOPE
    assert abs(slope["estimate"] - recorded["slope"][middle]["estimate"]) < 0.1


@pytest.mark.skipif(not SEEDS_TABLE.exists(), reason="no table of seeds is released")
def test_the_claims_hold_for_every_training_seed() -> None:
    with SEEDS_TABLE.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        assert float(row["accuracy"]) >= MIN_ACCURACY, row
        assert float(row["probe_r2"]) >= MIN_PROBE_R2, row
        if row["name"] == "count_running":
            assert float(row["slope_ci_low"]) >= MIN_RUNNING_SLOPE, row
        else:
            assert float(row["slope_ci_high"]) <= MAX_PARALLEL_SLOPE, row
    for name in COUNTING:
        released = seed_row(record_of(name))
        assert {key: str(value) for key, value in released.items()} in rows


_MEASURED: dict[str, dict[str, Any]] = {}


def measured(name: str) -> dict[str, Any]:
    """Metrics of a tenth of the card's sample, other lists; measured once per test session."""
    if name not in _MEASURED:
        model, tokenizer = release.load_reference(release.REFERENCE_DIR / name)
        material = release.make_material(recipe_of(name))
        found = release.measure(model, tokenizer, material, SAMPLE_SCALE, seed=1)
        found["n"] = next(found[key] for key in SAMPLES if key in found)
        _MEASURED[name] = found
    return _MEASURED[name]


@pytest.mark.parametrize("name", RELEASED)
def test_the_card_is_that_of_the_record(name: str) -> None:
    card = (release.REFERENCE_DIR / name / "README.md").read_text(encoding="utf-8")
    assert card == card_text(record_of(name))
