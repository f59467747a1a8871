"""The encoder and the tokenizer of the embedded reward model."""

from __future__ import annotations

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from interpflow.models.reference.problem_corpus import problem_texts
from interpflow.models.reference.recipe import ArchitectureConfig
from interpflow.models.reference.tokenizer import PAD, build_tokenizer, spaced_twins, token_id
from interpflow.tasks.word_problems import load_parts

CLS, SEP, MASK = "<cls>", "<sep>", "<mask>"


def build_pair_tokenizer(max_positions: int) -> PreTrainedTokenizerFast:
    """The word problems' tokenizer for pairs: <cls> question <sep> answer <sep>, padded right."""
    parts = load_parts()
    known = build_tokenizer((*parts.names, *parts.items), problem_texts())
    backend = known.backend_tokenizer
    backend.add_special_tokens([CLS, SEP, MASK])
    ids = {symbol: backend.token_to_id(symbol) for symbol in (CLS, SEP)}
    backend.post_processor = TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=list(ids.items()),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        padding_side="right",
        truncation_side="right",
        model_max_length=max_positions,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_reward_model(
    architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerFast, seed: int
) -> ModernBertForSequenceClassification:
    """A freshly initialised float32 encoder with one output; `seed` alone decides the weights.

    As in the decoders, a word with and without its leading space starts from one embedding.
    """
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.feed_forward,
        max_position_embeddings=architecture.max_positions,
        initializer_range=architecture.initializer_range,
        layer_types=["full_attention"] * architecture.layers,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": architecture.rope_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": architecture.rope_theta},
        },
        classifier_pooling="cls",
        pad_token_id=token_id(tokenizer, PAD),
        cls_token_id=token_id(tokenizer, CLS),
        sep_token_id=token_id(tokenizer, SEP),
        bos_token_id=None,
        eos_token_id=None,
        problem_type="regression",
    )
    config.num_labels = 1
    torch.manual_seed(seed)
    model = ModernBertForSequenceClassification(config)
    plain, spaced = torch.tensor(spaced_twins(tokenizer)).unbind(1)
    with torch.no_grad():
        embedding = model.model.embeddings.tok_embeddings.weight
        embedding[plain] = embedding[spaced]
    return model
