"""Tiny decoders with random weights, one per family of module layout."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from interpflow.engine import Model, load

VOCABULARY = 50
# Larger than the usual 0.02, so that every part of the network matters to the logits.
WEIGHT_SD = 0.3

_LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": WEIGHT_SD,
    "pad_token_id": 0,
}
# transformers computes some steps of these in float32 whatever the model's type.
PARTLY_FLOAT32 = ("gemma2",)
CONFIGS: dict[str, tuple[str, dict]] = {
    "llama": ("llama", _LLAMA_LIKE),
    "llama_grouped": ("llama", {**_LLAMA_LIKE, "num_key_value_heads": 2, "head_dim": 16}),
    "qwen2": ("qwen2", {**_LLAMA_LIKE, "num_key_value_heads": 2}),
    "mistral_window": ("mistral", {**_LLAMA_LIKE, "num_key_value_heads": 2, "sliding_window": 4}),
    "gemma2": (
        "gemma2",
        {
            **_LLAMA_LIKE,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "final_logit_softcapping": 5.0,
            "sliding_window": 4,
        },
    ),
    "gpt2": (
        "gpt2",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "initializer_range": WEIGHT_SD,
        },
    ),
    "gpt_neox": (
        "gpt_neox",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "initializer_range": WEIGHT_SD,
        },
    ),
    "gpt_neox_serial": (
        "gpt_neox",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "initializer_range": WEIGHT_SD,
            "use_parallel_residual": False,
        },
    ),
    "glm4": (
        "glm4",
        {**_LLAMA_LIKE, "num_key_value_heads": 2, "head_dim": 8, "partial_rotary_factor": 0.5},
    ),
    "opt": (
        "opt",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            "init_std": WEIGHT_SD,
        },
    ),
}

# Further layouts, for tests of the map itself.
_GROUPED = {**_LLAMA_LIKE, "num_key_value_heads": 2}
_FALCON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": WEIGHT_SD,
}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 3}
_MIXED_WINDOWS = {
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
MORE_CONFIGS: dict[str, tuple[str, dict]] = {
    "bloom": (
        "bloom",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "n_layer": 3,
            "n_head": 4,
            "initializer_range": WEIGHT_SD,
        },
    ),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "gemma3": ("gemma3_text", {**_GROUPED, "head_dim": 8, **_MIXED_WINDOWS}),
    "phi3": ("phi3", _GROUPED),
    "olmo2": ("olmo2", _GROUPED),
    "falcon_new": ("falcon", {**_FALCON, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon_old": ("falcon", {**_FALCON, "multi_query": True, "parallel_attn": True}),
    "falcon_alibi": (
        "falcon",
        {**_FALCON, "alibi": True, "parallel_attn": False, "multi_query": False, "bias": True},
    ),
    "stablelm": ("stablelm", _GROUPED),
    "stablelm_parallel": ("stablelm", {**_GROUPED, "use_parallel_residual": True}),
    "granite": (
        "granite",
        {
            **_GROUPED,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.3,
            "logits_scaling": 4.0,
            "embedding_multiplier": 3.0,
        },
    ),
    "mixtral": ("mixtral", {**_GROUPED, **_EXPERTS}),
    "gpt_oss": ("gpt_oss", {**_GROUPED, **_EXPERTS, "head_dim": 8, "sliding_window": 4}),
}
# Blocks that carry a state from position to position: run whole, or not at all.
RECURRENT_CONFIGS: dict[str, tuple[str, dict]] = {
    "jamba": (
        "jamba",
        {
            **_GROUPED,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
        },
    ),
    "qwen3_next": (
        "qwen3_next",
        {
            **_GROUPED,
            "head_dim": 8,
            "layer_types": ["linear_attention", "linear_attention", "full_attention"],
            "num_experts": 3,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "lfm2": ("lfm2", {**_GROUPED, "layer_types": ["conv", "full_attention", "conv"]}),
}
ALL_CONFIGS = {**CONFIGS, **MORE_CONFIGS, **RECURRENT_CONFIGS}


def tiny_module(name: str, **changes: object) -> PreTrainedModel:
    """A model of the named layout; the same weights every time."""
    kind, settings = ALL_CONFIGS[name]
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**{**settings, **changes})
    if hasattr(config, "num_experts_per_tok"):
        config._experts_implementation = "eager"  # the others know no float64
    module = AutoModelForCausalLM.from_config(config)
    for parameter in module.parameters():  # biases and norms start at 0 and 1: make them count
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def tiny_model(name: str, dtype: str = "float64", **changes: object) -> Model:
    return load(tiny_module(name, **changes), dtype=dtype)


def tiny_pairs(
    n_pairs: int = 3, length: int = 11, seed: int = 1
) -> tuple[list[list[int]], list[list[int]]]:
    """Base and donor prompts that differ at two or three positions, from the third one on."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(1, VOCABULARY, (n_pairs, length), generator=generator).tolist()
    donor = [list(row) for row in base]
    for i, row in enumerate(donor):
        for place in {2 + i % 3, length // 2, length - 3}:
            row[place] = 1 + row[place] % (VOCABULARY - 1)
    return base, donor


def hook_count(model: Model) -> int:
    """Forward hooks and replaced forwards anywhere in the model."""
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in m.__dict__)
        for m in model.module.modules()
    )
