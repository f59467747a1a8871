"""Embeddings and entailment on a GPU are those of the CPU, to float32 rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interpflow.embedding import embed_texts
from interpflow.embedding.entailment import entailment_probabilities
from tests.unit.embedding.tiny_encoders import save_classifier

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TEXTS = [f"Anna has {n} apples{' and pears' * (n % 4)}. How many has she?" for n in range(200)]


def test_embeddings_agree() -> None:
    cpu, cuda = (embed_texts(TEXTS, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cpu, cuda, atol=1e-4)


def test_probabilities_agree(tmp_path: Path) -> None:
    model = str(save_classifier(tmp_path / "nli", "contradiction", "entailment"))
    pairs = [("the cat sits", "a cat is here"), ("red", "the dog eats now")]
    cpu, cuda = (
        entailment_probabilities(pairs, model=model, device=device) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu, cuda, atol=1e-4)
