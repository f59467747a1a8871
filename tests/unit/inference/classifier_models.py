"""Tiny random sequence classifiers on disk, each with a tokenizer of its own kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

WORDS = [f"w{i}" for i in range(60)]
CHAT = "{% for m in messages %}<cls>{{ m['role'] }} : {{ m['content'] }}<sep>{% endfor %}"


def pair_tokenizer(*, pad: bool = True) -> PreTrainedTokenizerFast:
    symbols = ["<pad>", "<cls>", "<sep>", "<unk>", ":", "user", "assistant", *WORDS]
    backend = Tokenizer(
        models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls> $A <sep> $B:1 <sep>:1",
        special_tokens=[("<cls>", 1), ("<sep>", 2)],
    )
    extra: dict[str, Any] = {"pad_token": "<pad>"} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<cls>",
        sep_token="<sep>",
        unk_token="<unk>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **extra,
    )


def bert_classifier(directory: Path, n_labels: int = 1) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=67, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    config.num_labels = n_labels
    BertForSequenceClassification(config).save_pretrained(directory)
    pair_tokenizer().save_pretrained(directory)
    return directory


def llama_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=67, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=None,
        bos_token_id=1, eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip


def llama_decoder(directory: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(llama_config()).save_pretrained(directory)
    pair_tokenizer().save_pretrained(directory)
    return directory


def chat_classifier(directory: Path) -> Path:
    """A decoder with a score head, a chat template and no padding token."""
    torch.manual_seed(0)
    config = llama_config()
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(directory)
    tokenizer = pair_tokenizer(pad=False)
    tokenizer.chat_template = CHAT
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(directory)
    return directory
