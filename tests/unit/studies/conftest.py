"""A tiny random model that speaks the counting prompts."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interpflow.models.reference.counting_corpus import corpus_texts
from interpflow.models.reference.tokenizer import build_tokenizer
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Directory of a Llama with random weights: it answers without regard to its input."""
    lexicon = load_lexicon()
    tokenizer = build_tokenizer(lexicon.words, corpus_texts(lexicon, load_templates()))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
