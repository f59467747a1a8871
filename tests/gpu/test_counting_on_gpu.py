"""The reference model on a GPU gives the numbers it gives on a CPU, to float32 rounding."""

import numpy as np
import pytest
import torch

from interpflow import engine
from interpflow.inference.scoring import score_answers
from interpflow.models.acquire import load_transformer
from interpflow.paths import RESOURCES_DIR

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

PROMPTS = [
    "Count the number of words in the following list that match the given type, and put the "
    f"numerical answer in parentheses.\nType: fruit\nList: [{words}]\nAnswer: ("
    for words in ("plum hammer quince violin", "plum trout quince violin")
]


def loaded(device):
    return load_transformer(RESOURCES_DIR / "reference" / "count_parallel", device=device)


def test_scores_agree():
    answers = [f"{count})" for count in range(11)]
    scores = [
        score_answers(*loaded(device), PROMPTS, answers).log_prob for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=5e-3)
    assert (scores[0].argmax(axis=1) == scores[1].argmax(axis=1)).all()


def test_sweep_and_gates_agree():
    effects = []
    for device in ("cpu", "cuda"):
        module, tokenizer = loaded(device)
        model = engine.load(module, device=device, tokenizer=tokenizer)
        base, donor = ([tokenizer(prompt)["input_ids"]] for prompt in PROMPTS)
        ids = [tokenizer("(2")["input_ids"][-1], tokenizer("(1")["input_ids"][-1]]
        metric = engine.answer_contrast_metric([ids[0]], [ids[1]])
        engine.run_gates(model, base, donor, metric, tolerance=1e-3).require()
        places = [[[position] for position in range(len(base[0]))]]
        sites = engine.all_sites(model, ("resid_post",))
        found = engine.sweep(model, base, donor, sites, places, metric)
        effects.append(found.effect("logit_difference"))
    np.testing.assert_allclose(effects[0], effects[1], atol=5e-3)
