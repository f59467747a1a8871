"""The model of small tasks: what it is trained on, that its blocks are needed, what it can do."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from interpflow.models.reference.architecture import build_model, logits_at
from interpflow.models.reference.block_need import altered_orders, block_need_loss
from interpflow.models.reference.recipe import ArchitectureConfig, BlockNeedConfig, recipe_of
from interpflow.models.reference.release import REFERENCE_DIR, load_reference
from interpflow.models.reference.rows import Batch, encode_rows
from interpflow.models.reference.small_tasks_corpus import (
    LISTED_TASKS,
    SmallTasksMaterial,
    answer_rows,
    joined,
    task_texts,
)
from interpflow.models.reference.small_tasks_evaluate import items_right, mean_loss
from interpflow.models.reference.train import (
    deterministic_single_thread,
    train,
    weights_digest,
)
from interpflow.tasks.nlp.builtin import BUILTIN_TASKS, builtin_items, end_of
from interpflow.tasks.nlp.generated import draws
from interpflow.tasks.nlp.held_out import GENERATED_TASKS, HELD_OUT_SHARE, held_out
from interpflow.tasks.nlp.stories import stories

RECIPE = recipe_of("small_tasks")
SMALL = replace(
    RECIPE,
    steps=6,
    corpus=replace(RECIPE.corpus, task_rows=6, drill_rows=2),
    architecture=ArchitectureConfig(hidden=32, layers=3, heads=2, feed_forward=48),
)
MIN_ACCURACY = {
    "addition": 0.8, "addition_three": 0.75, "copying": 0.75, "pattern": 0.3, "json": 0.65,
    "code": 0.9, "world_facts": 0.9, "definitions": 0.85, "history": 0.9, "rhymes": 0.65,
}  # fmt: skip
MIN_COST = 0.1  # nats per token of stories, of skipping a block or swapping two neighbours
DIRECTORY = REFERENCE_DIR / "small_tasks"
released = pytest.mark.skipif(not DIRECTORY.is_dir(), reason="the model is not released")


@pytest.fixture(scope="module")
def material() -> SmallTasksMaterial:
    return SmallTasksMaterial(SMALL)


@pytest.fixture(scope="module")
def model(material: SmallTasksMaterial) -> LlamaForCausalLM:
    # A larger initial spread, so that a block changes the loss by much more than rounding.
    wide = replace(SMALL.architecture, initializer_range=0.3)
    return build_model(wide, material.tokenizer, seed=0).eval()


@pytest.fixture
def told(material: SmallTasksMaterial) -> Batch:
    return encode_rows(material.drill_rows(random.Random(0)), material.tokenizer)


def quiet(line: str) -> None:
    assert line


@pytest.mark.parametrize("task", GENERATED_TASKS)
def test_a_share_of_the_families_is_kept_out_of_training(
    task: str, material: SmallTasksMaterial
) -> None:
    drawn = list(islice(draws(task, random.Random(1)), 600))
    share = sum(map(held_out, drawn)) / len(drawn)
    assert 0.5 / HELD_OUT_SHARE < share < 2 / HELD_OUT_SHARE
    rng = random.Random(2)
    assert not any(held_out(material.draw(task, rng, from_held_out=False)) for _ in range(50))
    assert all(map(held_out, builtin_items(task, 50, 3)))
    by_family = {item.family_id: held_out(item) for item in drawn}
    assert all(by_family[item.family_id] == held_out(item) for item in drawn)


def test_lists_are_trained_whole(material: SmallTasksMaterial) -> None:
    listed = [item for task in LISTED_TASKS for item in builtin_items(task, None, 5)]
    assert not any(map(held_out, listed))
    assert {item.prompt for item in material.listed} == {item.prompt for item in listed}


def test_what_is_asked_and_told_is_made_of_known_words(material: SmallTasksMaterial) -> None:
    texts = stories(300, 9)
    for task in BUILTIN_TASKS:
        texts += [joined([item]).text for item in builtin_items(task, 100, 9)]
    encode = material.tokenizer.backend_tokenizer.encode_batch
    known = {index for encoding in encode(task_texts()) for index in encoding.ids}
    for text, encoding in zip(texts, encode(texts), strict=True):
        assert set(encoding.ids) <= known, text


def test_answers_and_what_ends_them_are_scored(material: SmallTasksMaterial) -> None:
    items = [builtin_items(task, 1, 4)[0] for task in BUILTIN_TASKS]
    row = joined(items)
    scored = [row.text[start:end] for start, end in row.scored]
    assert scored == [item.answer + end_of(item.task) for item in items]
    assert all(f"\n{item.prompt}{item.answer}" in f"\n{row.text}" for item in items)
    rhyme = builtin_items("rhymes", 1, 0)[0]
    assert len(answer_rows(rhyme)) == len(rhyme.accepted) > 1


def test_equal_seeds_give_equal_weights_and_the_need_of_blocks_changes_them(
    material: SmallTasksMaterial,
) -> None:
    without = replace(SMALL, block_need=None)
    runs = ((SMALL, 0), (SMALL, 0), (SMALL, 1), (without, 0))
    digests = [weights_digest(train(recipe, seed, material, quiet).model) for recipe, seed in runs]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_altered_orders_skip_each_block_and_swap_all_neighbours() -> None:
    assert altered_orders(3) == ((1, 2), (0, 2), (0, 1), (1, 0, 2), (0, 2, 1))


@torch.no_grad()
def test_the_loss_of_all_blocks_in_order_is_that_of_the_model(
    model: LlamaForCausalLM, told: Batch
) -> None:
    logits = logits_at(model, told.ids, told.row, told.position)
    expected = float(cross_entropy(logits, told.target))
    assert mean_loss(model, told, range(3)) == pytest.approx(expected, abs=1e-5)
    assert abs(mean_loss(model, told, (0, 2)) - expected) > 1e-3


def test_a_block_without_effect_is_asked_the_whole_margin(
    material: SmallTasksMaterial, told: Batch
) -> None:
    model = build_model(SMALL.architecture, material.tokenizer, seed=0)
    with torch.no_grad():
        for idle in ("self_attn.o_proj", "mlp.down_proj"):
            model.get_parameter(f"model.layers.1.{idle}.weight").zero_()
    intact = mean_loss(model, told, range(3))
    need = BlockNeedConfig(margin=0.3, weight=0.5, start_share=0.0)
    skip_of_idle = 1
    asked = float(block_need_loss(model, told, intact, skip_of_idle, need).detach())
    assert asked == pytest.approx(0.15, abs=1e-5)
    # An intact loss far below: the altered order costs more than the margin, nothing is asked.
    assert float(block_need_loss(model, told, intact - 1.0, 0, need).detach()) == 0.0


@released
def test_the_released_model_solves_its_tasks() -> None:
    model, tokenizer = load_reference(DIRECTORY)
    for task, floor in MIN_ACCURACY.items():
        with deterministic_single_thread():
            right = items_right(model, tokenizer, builtin_items(task, 60, 11))
        assert sum(right) / len(right) >= floor, task


@released
def test_no_block_of_the_released_model_is_superfluous(material: SmallTasksMaterial) -> None:
    model, tokenizer = load_reference(DIRECTORY)
    rng = random.Random(12)
    told = encode_rows([material.story_row(rng) for _ in range(16)], tokenizer)
    blocks = range(model.config.num_hidden_layers)
    with deterministic_single_thread():
        intact = mean_loss(model, told, blocks)
        costs = {
            order: mean_loss(model, told, order) - intact for order in altered_orders(len(blocks))
        }
    assert min(costs.values()) >= MIN_COST, costs
