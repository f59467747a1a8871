"""Training is deterministic, learns, and its parts do what they say."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from interpflow.models.reference.architecture import build_model
from interpflow.models.reference.material import CountingMaterial
from interpflow.models.reference.optimizer import orthogonalize, rate_factor
from interpflow.models.reference.recipe import RecipeConfig
from interpflow.models.reference.rows import encode_rows
from interpflow.models.reference.tokenizer import spaced_twins
from interpflow.models.reference.train import WordReadout, train, weights_digest


def quiet(line: str) -> None:
    assert line


def test_equal_seeds_give_equal_weights(
    small_recipe: RecipeConfig, small_material: CountingMaterial
) -> None:
    digests = [
        weights_digest(train(small_recipe, seed, small_material, quiet).model) for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_training_lowers_the_loss(
    small_recipe: RecipeConfig, small_material: CountingMaterial
) -> None:
    longer = replace(small_recipe, steps=60)
    lines: list[str] = []
    run = train(longer, 0, small_material, lines.append)
    assert run.history[-1]["loss"] < 0.75 * run.history[0]["loss"]
    assert "step 60 of 60" in lines[-1]
    assert "s left" in lines[-1]


def test_interchange_and_readout_change_the_weights(
    small_recipe: RecipeConfig, small_material: CountingMaterial
) -> None:
    digests = {
        weights_digest(train(recipe, 0, small_material, quiet).model)
        for recipe in (small_recipe, replace(small_recipe, readout=None))
    }
    no_pairs = replace(small_recipe, interchange=None)
    material = CountingMaterial(no_pairs, small_material.corpus.lexicon)
    digests.add(weights_digest(train(no_pairs, 0, material, quiet).model))
    assert len(digests) == 3


def test_readout_sees_the_hidden_state(
    small_recipe: RecipeConfig, small_material: CountingMaterial
) -> None:
    assert small_recipe.readout is not None
    readout = WordReadout(small_recipe, small_recipe.readout)
    batch = encode_rows(small_material.task_rows(random.Random(0)), small_material.tokenizer)
    hidden = torch.zeros(*batch.ids.shape, small_recipe.architecture.hidden, requires_grad=True)
    readout.loss(hidden, batch).backward()
    touched = hidden.grad.abs().sum(-1).nonzero()  # pyright: ignore[reportOptionalMemberAccess]
    assert {tuple(place) for place in touched.tolist()} == {
        tuple(place) for place in batch.word_places.tolist()
    }


def test_both_forms_of_a_word_start_equal(
    small_recipe: RecipeConfig, small_material: CountingMaterial
) -> None:
    model = build_model(small_recipe.architecture, small_material.tokenizer, seed=3)
    embedding = model.model.embed_tokens.weight
    for plain, spaced in spaced_twins(small_material.tokenizer):
        assert torch.equal(embedding[plain], embedding[spaced])


def test_orthogonalized_updates_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 16, 16), (3, 24, 8), (1, 8, 24)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        # Jordan et al. (2024): the quintic iteration ends within about 0.7 to 1.2.
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_rate_warms_up_and_falls_to_zero() -> None:
    rates = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
