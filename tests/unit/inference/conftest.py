"""Tiny random models and tokenizers, saved and loaded by the real loading code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from interpflow.inference import exact_ways
from interpflow.models.acquire import load_transformer

# Threads that wait for each other cost more than they bring at this size.
torch.set_num_threads(1)

WORDS = [
    "Count",
    "the",
    "words",
    "that",
    "match",
    "Type",
    "fruit",
    "animal",
    "List",
    "Answer",
    "apple",
    "pear",
    "fig",
    "dog",
    "cat",
    "oak",
]


def byte_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    """All bytes and some whole words: anything else falls to bytes, "10" is two tokens."""
    pieces = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += WORDS + ["Ġ" + word for word in WORDS]
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def tiny_config(kind: str, vocab_size: int) -> Any:
    size = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    if kind == "llama":
        return LlamaConfig(**size)
    if kind == "mistral_window":
        return MistralConfig(**size, sliding_window=16)
    if kind == "gemma2":
        return Gemma2Config(
            **size, head_dim=8, sliding_window=200, final_logit_softcapping=2.0, pad_token_id=0
        )
    if kind == "bloom":
        return BloomConfig(vocab_size=vocab_size, hidden_size=32, n_layer=2, n_head=4)
    if kind == "mamba":
        return MambaConfig(vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2)
    return GPT2Config(vocab_size=vocab_size, n_positions=256, n_embd=32, n_layer=2, n_head=4)


def save_tiny(directory: Path, kind: str, bos: bool) -> Path:
    """Write a random model whose next-token distributions are far from flat."""
    tokenizer = byte_tokenizer(bos)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, len(tokenizer)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "A_log" not in name:
                parameter.mul_(8.0)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def forget_proofs() -> Callable[[], None]:
    """Nothing is proven when a test begins; call it where a test has broken what was."""
    exact_ways._KNOWN.clear()
    return exact_ways._KNOWN.clear


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Any]]:
    """tiny(kind, bos) -> (model, tokenizer), loaded once a session."""
    loaded: dict[tuple[str, bool], tuple[Any, Any]] = {}

    def load(kind: str = "llama", bos: bool = True) -> tuple[Any, Any]:
        if (kind, bos) not in loaded:
            directory = save_tiny(tmp_path_factory.mktemp(kind), kind, bos)
            loaded[kind, bos] = load_transformer(directory)
        return loaded[kind, bos]

    return load
