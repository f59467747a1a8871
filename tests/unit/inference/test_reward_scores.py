"""Scores of reward models: the same alone and among others, and which models are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classifier_models import (
    WORDS,
    bert_classifier,
    chat_classifier,
    llama_decoder,
    pair_tokenizer,
)
from transformers import LlamaConfig, LlamaForSequenceClassification

from interpflow.errors import UserError
from interpflow.inference import rewards
from interpflow.inference.rewards import batch_difference, score_pairs
from interpflow.models.acquire import ModelSource, load_transformer
from interpflow.models.reward import load_reward_model, reward_source


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load_reward_model(str(bert_classifier(tmp_path_factory.mktemp("bert"))))


def texts(n: int, seed: int, longest: int = 20) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(n)]


def plain_score(model: Any, tokenizer: Any, question: str, answer: str) -> float:
    with torch.no_grad():
        return float(model(**tokenizer(question, answer, return_tensors="pt")).logits[0, 0])


def test_scores_are_those_of_the_plain_model(bert: tuple[Any, Any]) -> None:
    questions, answers = texts(40, 0), texts(40, 1)
    found = score_pairs(*bert, questions, answers)
    plain = [plain_score(*bert, q, a) for q, a in zip(questions, answers, strict=True)]
    np.testing.assert_allclose(found.score, plain, atol=1e-5)
    assert found.score.std() > 0.01
    assert not found.truncated.any()
    lengths = [(len(q.split()), len(a.split())) for q, a in zip(questions, answers, strict=True)]
    assert found.n_tokens.tolist() == [q + a + 3 for q, a in lengths]
    assert found.n_answer_tokens.tolist() == [a for _, a in lengths]


def test_a_score_does_not_depend_on_what_else_is_scored(bert: tuple[Any, Any]) -> None:
    questions, answers = texts(60, 2), texts(60, 3)
    together = score_pairs(*bert, questions, answers).score
    alone = [score_pairs(*bert, [q], [a]).score[0] for q, a in zip(questions, answers, strict=True)]
    backwards = score_pairs(*bert, questions[::-1], answers[::-1]).score[::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-6)
    np.testing.assert_allclose(together, backwards, rtol=0, atol=2e-6)
    assert batch_difference(*bert, questions[:8], answers[:8]) < 1e-5


def test_equal_pairs_are_scored_once(
    bert: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = rewards._forward

    def counted(model: Any, inputs: dict[str, torch.Tensor], device: str) -> np.ndarray:
        rows.append(len(inputs["input_ids"]))
        return forward(model, inputs, device)

    monkeypatch.setattr(rewards, "_forward", counted)
    scores = score_pairs(*bert, ["w1 w2"] * 500, ["w3"] * 500).score
    assert len(rows) == 1
    assert np.unique(scores).size == 1


def test_a_long_question_keeps_its_end_and_the_whole_answer(bert: tuple[Any, Any]) -> None:
    words = [WORDS[i % 60] for i in range(50)]
    cut = score_pairs(*bert, [" ".join(words)], ["w1 w2 w3"], max_tokens=30)
    assert cut.truncated[0]
    assert (cut.n_tokens[0], cut.n_answer_tokens[0]) == (30, 3)
    assert cut.score[0] == pytest.approx(
        plain_score(*bert, " ".join(words[-24:]), "w1 w2 w3"), abs=1e-5
    )
    long_answer = score_pairs(*bert, [" ".join(words)], [" ".join(words)], max_tokens=40)
    assert (long_answer.n_tokens[0], long_answer.n_answer_tokens[0]) == (40, 21)
    expected = plain_score(*bert, " ".join(words[-16:]), " ".join(words[:21]))
    assert long_answer.score[0] == pytest.approx(expected, abs=1e-5)


def test_no_more_is_read_than_the_model_can(bert: tuple[Any, Any]) -> None:
    long = " ".join(WORDS * 3)
    found = score_pairs(*bert, [long], ["w1"], max_tokens=512)
    assert (found.max_tokens, found.n_tokens[0]) == (64, 64)
    with pytest.raises(UserError, match="no room"):
        score_pairs(*bert, ["w1"], ["w1"], max_tokens=3)


def test_silence_has_a_score_and_nothing_has_none(bert: tuple[Any, Any]) -> None:
    found = score_pairs(*bert, ["w1 w2"], [""])
    assert np.isfinite(found.score[0])
    assert found.n_answer_tokens[0] == 0
    assert score_pairs(*bert, [], []).score.size == 0


def test_a_chat_model_is_asked_in_its_template(tmp_path: Path) -> None:
    model, tokenizer = load_reward_model(str(chat_classifier(tmp_path)))
    found = score_pairs(model, tokenizer, ["w1 w2", "w4"], ["w3", "w5 w6"])
    ids = tokenizer(
        "<cls>user : w1 w2<sep><cls>assistant : w3<sep>",
        add_special_tokens=False, return_tensors="pt",
    )["input_ids"]  # fmt: skip
    with torch.no_grad():
        assert found.score[0] == pytest.approx(float(model(ids).logits[0, 0]), abs=1e-5)
    assert found.n_answer_tokens.tolist() == [1, 2]


def test_the_padding_is_what_the_model_takes_for_padding() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        num_labels=1, vocab_size=67, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=128, pad_token_id=66, initializer_range=0.5,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    tokenizer = pair_tokenizer()
    assert tokenizer.pad_token_id != model.config.pad_token_id
    pairs = ["w1 w2 w3", "w4 w5", "w6 " * 20], ["w7 w8", "w9", "w10 w11 w12"]
    assert batch_difference(model, tokenizer, *pairs) < 1e-5


def test_the_date_in_a_chat_template_is_no_part_of_a_score(tmp_path: Path) -> None:
    model, tokenizer = load_reward_model(str(chat_classifier(tmp_path)))
    plain = tokenizer.chat_template
    tokenizer.chat_template = "w{{ strftime_now('%d') }} " + plain
    today = score_pairs(model, tokenizer, ["w1 w2"], ["w3"])
    tokenizer.chat_template = f"w26 {plain}"
    assert today.score[0] == score_pairs(model, tokenizer, ["w1 w2"], ["w3"]).score[0]
    tokenizer.chat_template = f"w27 {plain}"
    assert today.score[0] != score_pairs(model, tokenizer, ["w1 w2"], ["w3"]).score[0]


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    model, tokenizer = load_reward_model(str(bert_classifier(tmp_path)))
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        score_pairs(model, tokenizer, ["w1"], ["w2"])


def refused(entry: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load_reward_model(str(entry))
    return str(caught.value)


def test_models_that_give_no_one_score_are_refused(tmp_path: Path) -> None:
    assert "3 outputs" in refused(bert_classifier(tmp_path / "three", 3))
    assert "without a head" in refused(llama_decoder(tmp_path / "decoder"))
    # A language model that calls itself a classifier: its head would be random.
    disguised = llama_decoder(tmp_path / "disguised")
    config = json.loads((disguised / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "score"}}
    (disguised / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "score.weight" in refused(disguised)
    foreign = bert_classifier(tmp_path / "foreign")
    (foreign / "config.json").write_text('{"model_type": "nothing"}', encoding="utf-8")
    assert "'nothing'" in refused(foreign)


def test_files_are_checked_before_they_are_read(tmp_path: Path) -> None:
    pickled = bert_classifier(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "pickles" in refused(pickled)
    bare = bert_classifier(tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert "no tokenizer" in refused(bare)
    assert "no config.json" in refused(tmp_path)


def test_names_stand_for_one_model_each() -> None:
    assert "needs a revision" in refused("OpenAssistant/reward-model-deberta-v3-large-v2")
    assert "no such directory" in refused("nowhere")
    assert "no such directory" in refused("/nowhere/at@all")
    source = reward_source("owner/name@abc123")
    assert (source.hub, source.revision) == ("owner/name", "abc123")


def test_an_encoder_is_refused_where_a_decoder_is_studied(tmp_path: Path) -> None:
    directory = bert_classifier(tmp_path)
    with pytest.raises(UserError, match=r"BertForSequenceClassification, not of a causal decoder"):
        load_transformer(ModelSource("m", "local", str(directory)))
