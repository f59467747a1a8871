"""A decoder without norms: ReLU MLPs, learned positions, causal attention.

Compiled programs (Tracr) are such models. It is a `PreTrainedModel`, so that whatever works on
Hugging Face decoders works on it: `save_pretrained`, caches, attention implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_others: Any,
) -> tuple[Tensor, Tensor]:
    """Attention output [batch, position, head, d] and pattern [batch, head, position, key] of
    states [batch, head, position, d]; attention_mask is added to the scores."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    pattern = scores.softmax(dim=-1)
    return (pattern @ value).transpose(1, 2), pattern


class PlainDecoderConfig(PreTrainedConfig):
    """Sizes of a `PlainDecoderForCausalLM`, and what its tokens and directions mean.

    tokens: of each id; output_labels: of each logit (there may be fewer than tokens, or one that is
    a number); residual_labels: of each direction of the residual stream.
    """

    model_type = "interpflow_plain_decoder"

    vocab_size: int = 2
    n_outputs: int = 2
    hidden_size: int = 8
    head_dim: int = 4
    intermediate_size: int = 8
    num_hidden_layers: int = 1
    num_attention_heads: int = 1
    max_position_embeddings: int = 16
    tokens: list[str] | None = None
    output_labels: list[str] | None = None
    residual_labels: list[str] | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None


class PlainAttention(nn.Module):
    """Multi-head attention with biases; scores are divided by √head_dim."""

    def __init__(self, config: PlainDecoderConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        self.num_key_value_groups = 1  # read by attention implementations
        width = config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, width)
        self.v_proj = nn.Linear(config.hidden_size, width)
        self.o_proj = nn.Linear(width, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            str(self.config._attn_implementation), eager_attention
        )
        output, pattern = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **others
        )
        return self.o_proj(output.flatten(-2)), pattern


class PlainMlp(nn.Module):
    def __init__(self, config: PlainDecoderConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(self.up_proj(hidden_states).relu())


class PlainBlock(nn.Module):
    def __init__(self, config: PlainDecoderConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = PlainAttention(config, layer)
        self.mlp = PlainMlp(config)

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        hidden_states = hidden_states + self.self_attn(hidden_states, **arguments)[0]
        return hidden_states + self.mlp(hidden_states)


class PlainDecoderPreTrainedModel(PreTrainedModel):
    config: PlainDecoderConfig
    config_class = PlainDecoderConfig
    base_model_prefix = "model"
    _no_split_modules = ["PlainBlock"]  # noqa: RUF012 (as in transformers)
    _supports_sdpa = True
    _supports_attention_backend = True


class PlainDecoderModel(PlainDecoderPreTrainedModel):
    """Embeddings and blocks; there is no final norm."""

    def __init__(self, config: PlainDecoderConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(PlainBlock(config, i) for i in range(config.num_hidden_layers))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPast:
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            first = 0 if past_key_values is None else past_key_values.get_seq_length()
            places = torch.arange(first, first + input_ids.shape[1], device=input_ids.device)
            position_ids = places.unsqueeze(0)
        state = self.embed_tokens(input_ids) + self.embed_positions(position_ids)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=state,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        for block in self.layers:
            state = block(state, attention_mask=mask, past_key_values=past_key_values, **others)
        return BaseModelOutputWithPast(last_hidden_state=state, past_key_values=past_key_values)


class PlainDecoderForCausalLM(PlainDecoderPreTrainedModel, GenerationMixin):
    """A plain decoder with its unembedding [n_outputs, hidden_size]."""

    def __init__(self, config: PlainDecoderConfig) -> None:
        super().__init__(config)
        self.model = PlainDecoderModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.n_outputs, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [batch, position, n_outputs] (of the last `logits_to_keep` positions if not 0) of
        token ids [batch, position]."""
        others.pop("return_dict", None)
        found = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **others,
        )
        state = found.last_hidden_state
        return CausalLMOutputWithPast(
            logits=self.lm_head(state[:, -logits_to_keep:]),  # all of them if 0
            past_key_values=found.past_key_values,
        )


AutoConfig.register(PlainDecoderConfig.model_type, PlainDecoderConfig, exist_ok=True)
AutoModelForCausalLM.register(PlainDecoderConfig, PlainDecoderForCausalLM, exist_ok=True)
