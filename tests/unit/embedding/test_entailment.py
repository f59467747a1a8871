"""Entailment by a classifier: the right label, the right direction, wrong models refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from interpflow.embedding.entailment import entailment_label, entailment_probabilities
from interpflow.errors import UserError
from tests.unit.embedding.tiny_encoders import save_bare_encoder, save_classifier

PAIRS = [
    ("the cat sits", "a cat is here"),
    ("a cat is here", "the cat sits"),
    ("the dog eats now . a cat sleeps", "red"),
    ("the cat sits", "a cat is here"),
]


def test_probabilities_are_those_of_the_entailment_label(tmp_path: Path) -> None:
    directory = save_classifier(tmp_path, "contradiction", "Entailment", "neutral")
    found = entailment_probabilities(PAIRS, model=str(directory))
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for pair, value in zip(PAIRS, found, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(*pair, return_tensors="pt")).logits
        assert value == pytest.approx(torch.softmax(logits.double(), -1)[0, 1].item(), abs=1e-6)
    assert found[0] == found[3]
    # Which text is the premise matters.
    assert abs(found[0] - found[1]) > 1e-4


def test_a_pair_that_is_too_long_is_cut(tmp_path: Path) -> None:
    directory = save_classifier(tmp_path, "entailment", "not_entailment")
    long = " ".join(["cat"] * 60)
    found = entailment_probabilities([(long, "a dog"), ("a dog", long)], model=str(directory))
    assert np.isfinite(found).all()


def test_no_pairs_need_no_model() -> None:
    assert entailment_probabilities([], model="nowhere").shape == (0,)


def test_the_label_is_found_by_its_whole_name() -> None:
    assert entailment_label({0: "not_entailment", 1: "ENTAILMENT"}, "nli x") == 1
    with pytest.raises(UserError, match="none of the model's labels is called 'entailment'"):
        entailment_label({0: "LABEL_0", 1: "LABEL_1"}, "nli x")
    with pytest.raises(UserError, match="2 of the model's labels"):
        entailment_label({0: "entailment", 1: "Entailment"}, "nli x")


def test_an_encoder_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    save_bare_encoder(tmp_path / "bare")
    with pytest.raises(UserError, match="weights are missing"):
        entailment_probabilities(PAIRS, model=str(tmp_path / "bare"))
