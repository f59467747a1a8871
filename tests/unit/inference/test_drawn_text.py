"""Drawn tokens follow the model's distribution, and depend on prompt and seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats

from interpflow.inference.generation import generate

PROMPT = "Count the fruit"


def test_draws_follow_the_models_distribution(tiny: Callable) -> None:
    model, tokenizer = tiny()
    n = 2000
    made = generate(model, tokenizer, [PROMPT] * n, max_new_tokens=1, seeds=list(range(n)))
    # An end token is no token of the text.
    drawn = Counter(each.token_ids[0] if each.token_ids else -1 for each in made)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probabilities = model(ids).logits[0, -1].softmax(-1).numpy()
    likely = [int(token) for token in np.argsort(-probabilities)[:12] if token > 1]
    observed = [drawn[token] for token in likely]
    expected = [n * float(probabilities[token]) for token in likely]
    observed.append(n - sum(observed))
    expected.append(n - sum(expected))
    assert min(expected) > 5
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_draw_is_the_same_whatever_stands_beside_it(tiny: Callable) -> None:
    model, tokenizer = tiny()
    prompts = [PROMPT, "Type fruit", PROMPT, "List apple pear fig dog cat", PROMPT]
    seeds = [7, 7, None, 9, 8]
    together = generate(model, tokenizer, prompts, max_new_tokens=8, seeds=seeds)
    for prompt, seed, made in zip(prompts, seeds, together, strict=True):
        assert generate(model, tokenizer, [prompt], max_new_tokens=8, seeds=[seed]) == [made]
    assert together[2] == generate(model, tokenizer, [PROMPT], max_new_tokens=8)[0]
    assert len({together[at].token_ids for at in (0, 2, 4)}) == 3
