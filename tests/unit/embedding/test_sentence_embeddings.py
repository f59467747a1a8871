"""Embeddings: near texts are near, values depend on the text alone, wrong models are refused."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from interpflow.embedding import embed_texts, embedding_identity
from interpflow.embedding import sentences as sentences_module
from interpflow.embedding.equal_lengths import equal_length_batches, plan
from interpflow.embedding.sentences import cosines, load_encoder
from interpflow.errors import UserError
from tests.unit.embedding.tiny_encoders import WORDS

QUESTION = "Anna has 5 apples. Then Anna buys 3 more. How many apples does Anna have now?"


def random_texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 20))) for _ in range(n)]


def test_near_texts_are_nearer_than_far_ones() -> None:
    texts = [
        QUESTION,
        "Anna has 5 aples. Then Anna buys 3 more. How mny apples does Anna have now?",
        "Could you please tell me how many apples Anna has, if she had 5 and bought 3 more?",
        "The train to Vienna leaves at noon from the second platform.",
        QUESTION,
    ]
    found = embed_texts(texts)
    assert found.shape == (5, 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    typo, reworded, other = cosines(np.repeat(found[:1], 3, axis=0), found[1:4])
    assert typo > 0.8
    assert reworded > 0.8
    assert other < 0.3
    assert np.array_equal(found[0], found[4])


def test_the_identity_is_that_of_the_files_wherever_they_lie(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_encoder, tmp_path / "elsewhere")
    assert embedding_identity(str(copy)) == embedding_identity(str(tiny_encoder))
    assert embedding_identity() != embedding_identity(str(copy))
    pooling = next(copy.glob("1_*")) / "config.json"
    pooling.write_text(pooling.read_text().replace("mean", "max"))
    assert embedding_identity(str(copy)) != embedding_identity(str(tiny_encoder))


def test_values_are_those_of_the_library(tiny_encoder: Path) -> None:
    texts = random_texts(60)
    encoder = load_encoder(str(tiny_encoder))
    theirs = encoder.encode(texts, batch_size=7, normalize_embeddings=True)
    np.testing.assert_allclose(embed_texts(texts, model=str(tiny_encoder)), theirs, atol=2e-6)


def test_values_are_the_same_bytes_on_one_core_and_on_two(tiny_encoder: Path) -> None:
    texts = random_texts(400)
    one = embed_texts(texts, model=str(tiny_encoder))
    torch.set_num_threads(2)
    two = embed_texts(texts, model=str(tiny_encoder))
    assert torch.get_num_threads() == 2
    assert one.tobytes() == two.tobytes()


def test_equal_texts_are_embedded_once(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(lengths, device):
        seen.append(len(lengths))
        return plan(lengths, device)

    monkeypatch.setattr(sentences_module, "plan", counted)
    found = embed_texts(["a cat", "a dog", "a cat", "a cat"], model=str(tiny_encoder))
    assert seen == [2]
    assert np.array_equal(found[0], found[3])
    assert not np.array_equal(found[0], found[1])


def test_no_texts_give_no_rows(tiny_encoder: Path) -> None:
    assert embed_texts([], model=str(tiny_encoder)).shape == (0, 32)


def test_the_prompt_of_the_model_is_put_before_every_text(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    prompted = shutil.copytree(tiny_encoder, tmp_path / "prompted")
    path = prompted / "config_sentence_transformers.json"
    settings = json.loads(path.read_text())
    settings |= {"prompts": {"query": "the red "}, "default_prompt_name": "query"}
    path.write_text(json.dumps(settings))
    with_prompt = embed_texts(["cat runs"], model=str(prompted))
    spelled = embed_texts(["the red cat runs"], model=str(tiny_encoder))
    np.testing.assert_allclose(with_prompt, spelled, atol=1e-6)


def test_a_text_that_is_too_long_is_cut_and_counted(
    tiny_encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join(["cat"] * 40)
    with caplog.at_level(logging.WARNING):
        found = embed_texts([long, long + " dog", "a dog"], model=str(tiny_encoder))
    assert "2 of 3 texts are longer than 24 tokens" in caplog.text
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_batches_hold_equal_lengths_and_every_item_once() -> None:
    lengths = [3, 5, 3, 3, 8, 5, 3, 100]
    batches = equal_length_batches(lengths, token_budget=10, max_rows=2)
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    assert batches == [[7], [4], [1, 5], [0, 2], [3, 6]]


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("no-such", "there is no model 'no-such'"),
        ("./gone", "no such directory"),
        ("owner/name", "needs a revision"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(model: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        embed_texts(["a cat"], model=model)
    assert caught.value.where == f"embedding {model}"
    assert caught.value.remedy


def test_a_hub_that_is_offline_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="offline or cannot be reached"):
        embed_texts(["a cat"], model=f"owner/name@{'0' * 40}")


def test_a_model_that_is_no_sentence_encoder_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(tiny_encoder, tmp_path / "bare")
    (bare / "modules.json").unlink()
    with pytest.raises(UserError, match="not a sentence-transformers model"):
        embed_texts(["a cat"], model=str(bare))


def test_code_of_a_models_own_is_not_run(tiny_encoder: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(tiny_encoder, tmp_path / "foreign")
    modules = json.loads((foreign / "modules.json").read_text())
    modules[1]["type"] = "modeling_own.Pooling"
    (foreign / "modules.json").write_text(json.dumps(modules))
    (foreign / "modeling_own.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        embed_texts(["a cat"], model=str(foreign))


def test_weights_that_only_a_pickle_holds_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(tiny_encoder, tmp_path / "pickled")
    weights = next(pickled.rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match="pickles"):
        embed_texts(["a cat"], model=str(pickled))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tiny_encoder: Path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match="sentence-transformers cannot be imported") as caught:
        embed_texts(["a cat"], model=str(tiny_encoder))
    assert "requirements.lock" in caught.value.remedy
