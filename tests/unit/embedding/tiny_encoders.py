"""Tiny random encoders in directories, as save_pretrained writes them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

WORDS = [
    *[
        "the",
        "a",
        "cat",
        "dog",
        "sits",
        "sleeps",
        "eats",
        "runs",
        "here",
        "there",
        "now",
        "red",
        "blue",
    ],
    *"123.",
    "is",
    "not",
]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
POSITIONS = 24


def save_encoder(directory: Path, bert: Path) -> Path:
    """A sentence-transformers model: tiny random BERT, mean pooling, not normalised. `bert` takes
    the bare BERT."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    save_bare_encoder(bert)
    modules = [Transformer(str(bert)), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(directory))
    return directory


def save_bare_encoder(directory: Path) -> Path:
    torch.manual_seed(0)
    BertModel(_config()).save_pretrained(directory)
    _save_tokenizer(directory)
    return directory


def save_classifier(directory: Path, *labels: str) -> Path:
    """A random classifier of pairs with these labels."""
    torch.manual_seed(1)
    names = dict(enumerate(labels))
    config = _config(id2label=names, label2id={name: i for i, name in names.items()})
    BertForSequenceClassification(config).save_pretrained(directory)
    _save_tokenizer(directory)
    return directory


def _config(**more) -> BertConfig:
    return BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=POSITIONS,
        initializer_range=0.5, **more,
    )  # fmt: skip


def _save_tokenizer(directory: Path) -> None:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )  # fmt: skip
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=POSITIONS,
    ).save_pretrained(directory)  # fmt: skip
