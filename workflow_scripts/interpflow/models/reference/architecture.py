"""The Llama model of the reference specialists, and its blocks run in part."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from interpflow.models.reference.recipe import ArchitectureConfig
from interpflow.models.reference.tokenizer import EOS, PAD, spaced_twins, token_id


def build_model(
    architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerFast, seed: int
) -> LlamaForCausalLM:
    """A freshly initialised float32 model; `seed` alone decides the weights.

    A word with and without its leading space starts from the same embedding: the two forms mean
    the same, and what is learnt of one then holds for the other from the first step.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        intermediate_size=architecture.feed_forward,
        max_position_embeddings=architecture.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
        initializer_range=architecture.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=token_id(tokenizer, EOS),
        pad_token_id=token_id(tokenizer, PAD),
        use_cache=False,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    plain, spaced = torch.tensor(spaced_twins(tokenizer)).unbind(1)
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[plain] = embedding[spaced]
    return model


def run_blocks(
    model: LlamaForCausalLM, hidden: torch.Tensor, first: int, stop: int
) -> torch.Tensor:
    """Residual stream after blocks first … stop−1, given the one before block `first`.

    hidden: [row, position, hidden]. Rows are right-padded, so causality alone hides the padding.
    """
    positions = torch.arange(hidden.shape[1]).unsqueeze(0)
    rotary = model.model.rotary_emb(hidden, position_ids=positions)
    for block in model.model.layers[first:stop]:
        hidden = block(
            hidden, attention_mask=None, position_ids=positions, position_embeddings=rotary
        )
    return hidden


def embed(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Residual stream before the first block, [row, position, hidden]."""
    return model.model.embed_tokens(ids)


def unembed(model: LlamaForCausalLM, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocabulary] of residual vectors that left the last block."""
    return model.lm_head(model.model.norm(hidden))


def logits_at(
    model: LlamaForCausalLM, ids: torch.Tensor, row: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Logits [scored, vocabulary] at chosen places only: the unembedding is a third of the cost."""
    n_blocks = model.config.num_hidden_layers
    return unembed(model, run_blocks(model, embed(model, ids), 0, n_blocks)[row, position])
