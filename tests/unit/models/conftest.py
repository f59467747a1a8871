"""A tiny random Llama and a byte tokenizer, written by save_pretrained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

# Threads that wait for each other cost more than they bring at this size.
torch.set_num_threads(1)

MERGES = [("a", "p"), ("ap", "p"), ("app", "l"), ("appl", "e"), ("Ġ", "apple"), ("(", "3")]


@pytest.fixture
def make_tokenizer():
    """make(bos, template): byte-level BPE with the merges for "apple", " apple" and "(3"."""

    def make(bos: bool = True, template: str | None = None) -> PreTrainedTokenizerFast:
        pieces = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        pieces += [left + right for left, right in MERGES]
        backend = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, MERGES))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        if bos:
            backend.post_processor = processors.TemplateProcessing(
                single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
            )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
        )
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture
def model_dir(tmp_path: Path, make_tokenizer) -> Path:
    """A complete model directory."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    directory = tmp_path / "reference" / "tiny"
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
