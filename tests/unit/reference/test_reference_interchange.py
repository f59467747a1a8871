"""The swap reaches the model, at the right places and nowhere else."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM

from interpflow.models.reference.architecture import build_model, embed, logits_at, run_blocks
from interpflow.models.reference.interchange import PairBatch, rows_right, swapped_streams
from interpflow.models.reference.material import CountingMaterial
from interpflow.models.reference.recipe import RecipeConfig

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(small_recipe: RecipeConfig, small_material: CountingMaterial) -> LlamaForCausalLM:
    # A larger initial spread, so that a swap moves the stream by much more than rounding.
    wide = replace(small_recipe.architecture, initializer_range=0.3)
    return build_model(wide, small_material.tokenizer, seed=0).eval()


@pytest.fixture
def pairs(small_material: CountingMaterial) -> PairBatch:
    batch = small_material.pairs(random.Random(0))
    assert batch is not None
    return batch


def test_blocks_in_part_equal_the_whole_model(model: LlamaForCausalLM, pairs: PairBatch) -> None:
    rows = pairs.rows
    with torch.no_grad():
        expected = model(rows.ids).logits[rows.row, rows.position]
        found = logits_at(model, rows.ids, rows.row, rows.position)
    assert torch.allclose(found, expected, atol=TOLERANCE)


def test_swap_covers_exactly_the_shared_words(
    small_material: CountingMaterial, pairs: PairBatch
) -> None:
    ids = pairs.rows.ids
    for index in range(pairs.n):
        base, donor = ids[index], ids[pairs.n + index]
        covered = pairs.swap[index].nonzero().flatten()
        assert torch.equal(base[covered], donor[covered])
        words = pairs.rows.words[index]
        assert int(covered[-1]) == words[-1][1]
        assert int(covered[0]) in {first for first, _ in words[1:]}
        assert not torch.equal(base[: covered[0]], donor[: covered[0]])


@torch.no_grad()
def test_swapping_everything_gives_the_donor(model: LlamaForCausalLM, pairs: PairBatch) -> None:
    everything = replace(pairs, swap=torch.ones_like(pairs.swap))
    plain, patched, _ = swapped_streams(model, everything, after_layer=1)
    assert torch.allclose(patched, plain[pairs.n :], atol=TOLERANCE)


@torch.no_grad()
def test_swapping_nothing_gives_the_base(model: LlamaForCausalLM, pairs: PairBatch) -> None:
    nothing = replace(pairs, swap=torch.zeros_like(pairs.swap))
    plain, patched, _ = swapped_streams(model, nothing, after_layer=1)
    assert torch.allclose(patched, plain[: pairs.n], atol=TOLERANCE)


@torch.no_grad()
def test_the_swap_moves_the_answer_position(model: LlamaForCausalLM, pairs: PairBatch) -> None:
    plain, patched, middle = swapped_streams(model, pairs, after_layer=1)
    rows = pairs.rows
    of_base = rows.row < pairs.n
    at = (rows.row[of_base], rows.position[of_base])
    assert (patched[at] - plain[: pairs.n][at]).abs().max() > 100 * TOLERANCE
    before = pairs.swap.float().argmax(1).min()
    assert torch.equal(patched[:, :before], plain[: pairs.n, :before])
    assert torch.equal(middle, run_blocks(model, embed(model, rows.ids), 0, 1))


def test_a_row_is_right_only_if_all_its_tokens_are() -> None:
    logits = torch.eye(3)[[0, 1, 1, 2]]
    right = rows_right(logits, torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 1]), 2)
    assert right.tolist() == [True, False]
