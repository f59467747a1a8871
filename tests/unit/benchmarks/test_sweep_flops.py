"""Counts of operations against figures worked out by hand, and by running a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.flops import (
    SweepSize,
    block_flops,
    forward_flops,
    key_value_flops,
    naive_flops,
    necessary_flops,
    tight_flops,
    unembed_flops,
)
from tests.benchmarks.shapes import SHAPES, Shape, random_model

GPT2 = SHAPES["gpt2"]
TERA = 1e12


def test_a_block_of_a_gpt2_is_24_d_squared():
    assert block_flops(GPT2) == 24 * 768**2
    assert key_value_flops(GPT2) / block_flops(GPT2) == pytest.approx(1 / 6)
    assert unembed_flops(GPT2) == 2 * 768 * 50257


def test_the_sweep_of_8_pairs_of_32_tokens():
    size = SweepSize("resid_post", 8, 32)
    assert naive_flops(GPT2, size) / TERA == pytest.approx(24.35, abs=0.005)
    assert naive_flops(GPT2, size, logits=1) / TERA == pytest.approx(17.0, abs=0.05)
    assert necessary_flops(GPT2, size) / TERA == pytest.approx(3.54, abs=0.005)
    assert tight_flops(GPT2, size) / TERA == pytest.approx(3.39, abs=0.005)


@pytest.mark.parametrize(("shared", "ratio"), [(0, 5.84), (10, 12.7), (20, 44.8)])
def test_ratios_with_shared_tokens_and_one_unpatched_run(shared, ratio):
    size = SweepSize("resid_pre", 1, 30, shared)
    found = naive_flops(GPT2, size) / necessary_flops(GPT2, size, baselines=1)
    assert found == pytest.approx(ratio, rel=0.005)


def test_answer_columns_alone_against_whole_rows_of_logits():
    size, rows = SweepSize("resid_pre", 1, 30), SweepSize("resid_pre", 1, 30, answers=50257)
    naive = naive_flops(GPT2, size)
    assert naive / naive_flops(GPT2, size, logits=1) == pytest.approx(1.43, abs=0.005)
    assert naive / necessary_flops(GPT2, size, baselines=0) == pytest.approx(5.90, abs=0.01)
    assert naive / necessary_flops(GPT2, rows, baselines=1) == pytest.approx(5.5, abs=0.05)


def test_a_site_before_the_first_block_costs_more_than_one_after_the_last():
    pre, post = SweepSize("resid_pre", 8, 32), SweepSize("resid_post", 8, 32)
    assert necessary_flops(GPT2, pre) / TERA == pytest.approx(4.21, abs=0.005)
    assert necessary_flops(GPT2, pre) > necessary_flops(GPT2, post)
    assert naive_flops(GPT2, pre) == naive_flops(GPT2, post)


def test_heads_at_the_answer():
    size = SweepSize("head_out", 8, 32)
    assert naive_flops(GPT2, size) / TERA == pytest.approx(9.13, abs=0.005)
    assert naive_flops(GPT2, size) / necessary_flops(GPT2, size) == pytest.approx(48, abs=0.5)


def test_two_layers_by_hand():
    shape = Shape("hand", "llama", 2, 4, 2, 1, 2, 8, 3, 10)
    query, kv, mlp = 2 * 4 * 4 + 2 * 4 * 4, 2 * 4 * 2 * 2, 3 * 2 * 4 * 8
    block = query + kv + mlp
    assert block_flops(shape) == block
    attention = 4 * 4  # scores and weighted values, per query and key
    forward = 2 * (2 * block + attention * 3) + 2 * 2 * 4 * 10
    assert forward_flops(shape, 2) == forward
    # After the first block: one block; it needs keys and values of the patched positions (2 + 1)
    # and the final query of both sites. After the last: the last position's answer columns.
    once = 3 * kv + 2 * (query + mlp + attention * 2)
    answers = 3 * 2 * 4 * 2
    size = SweepSize("resid_post", 1, 2)
    assert necessary_flops(shape, size, baselines=0) == once + answers
    assert naive_flops(shape, size) == 4 * forward


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_forward_is_what_torch_counts(kind):
    grouped = 4 if kind == "gpt2" else 2
    shape = Shape("small", kind, 2, 32, 4, grouped, 8, 48, 2 if kind == "gpt2" else 3, 60)
    model: Any = random_model(shape)
    model.set_attn_implementation("eager")
    length = 6
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(length)[None], use_cache=False)
    # Eager attention computes all length² entries, of which the causal ones are needed.
    masked = length * (length - 1) // 2 * 4 * 32 * shape.n_layers
    assert counter.get_total_flops() == forward_flops(shape, length) + masked
