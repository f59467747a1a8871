"""The classifier of the embedded reward model: a trained decoder, widened and made deeper."""

from __future__ import annotations

import math

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from interpflow.models.reference.tokenizer import EOS, PAD, token_id

# Norm of what the new dimensions hold, as a share of the stream's: so small that the base hardly
# sees it in its own norms.
TOKEN_SHARE = 0.025
# Per pair of rotated dimensions, of the heads that look at one place: no other within a hundred
# tokens comes within a sixth of it.
FOCUS = (14.0, 11.0, 10.0, 8.5, 7.0)


def build_reward_model(
    base: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    probe: torch.Tensor,
    *,
    new_layers: int,
    new_width: int,
    seed: int,
) -> LlamaForSequenceClassification:
    """A float32 classifier with one output; `seed` decides the weights that are drawn.

    To judge a token is to compare it with what was expected. The base expects, one position
    earlier, but by its last layer it hardly holds any more which token it has read. So the residual
    stream gets `new_width` further dimensions (of whole heads) that the base leaves alone, with a
    projection of the token's embedding. The first of the `new_layers` starts with heads that fetch
    the state of the token before, and others that make the projection as large as the rest.

    probe: int64 [row, position], rows of the kind that will be scored, by which scales are set.
    """
    old = base.config
    head = old.hidden_size // old.num_attention_heads
    n_heads = old.num_attention_heads + new_width // head
    if new_width % head:
        raise ValueError(f"{new_width} dimensions are no whole number of heads of {head}")
    config = LlamaConfig(
        vocab_size=old.vocab_size,
        hidden_size=old.hidden_size + new_width,
        num_hidden_layers=old.num_hidden_layers + new_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        head_dim=head,
        intermediate_size=old.intermediate_size,
        max_position_embeddings=old.max_position_embeddings,
        rope_parameters=dict(old.rope_parameters or {}),
        rms_norm_eps=old.rms_norm_eps,
        initializer_range=old.initializer_range,
        attention_bias=True,
        tie_word_embeddings=False,  # there is no unembedding
        bos_token_id=None,
        eos_token_id=token_id(tokenizer, EOS),
        pad_token_id=token_id(tokenizer, PAD),
        use_cache=False,
    )
    config.num_labels = 1
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        _take_over(model, base, probe)
        _start_new_layers(model, base, probe)
    return model


def _take_over(
    model: LlamaForSequenceClassification, base: LlamaForCausalLM, probe: torch.Tensor
) -> None:
    """The base's weights in the first dimensions of the residual stream, zero in the new ones.

    All that is added to the stream is made smaller by one factor, which the norms undo: new layers
    start small, and would add next to nothing to a stream as large as the base's.
    """
    width, wide = base.config.hidden_size, model.config.hidden_size
    found = base.model(probe, output_hidden_states=True).hidden_states
    assert found is not None
    size = float(found[-2].pow(2).mean().sqrt())
    own = dict(model.model.named_parameters())
    for name, weight in base.model.named_parameters():
        target = own[name]
        if weight.ndim == 1:
            # The mean square is taken over more dimensions, of which the new ones are small.
            target.fill_(1.0)
            target[:width] = weight * math.sqrt(width / wide)
        else:
            target.zero_()
            adds = name.endswith(("o_proj.weight", "down_proj.weight"))
            target[: weight.shape[0], : weight.shape[1]] = weight / size if adds else weight
    projection = torch.nn.init.orthogonal_(torch.empty(wide - width, width))
    embedding = base.model.embed_tokens.weight
    norm = float(embedding.norm(dim=1).mean()) / size
    token_norm = TOKEN_SHARE * math.sqrt(width)
    unit = torch.nn.functional.normalize(embedding, dim=1)
    projected = torch.nn.functional.normalize(unit @ projection.T, dim=1)
    model.model.embed_tokens.weight.copy_(torch.cat([norm * unit, token_norm * projected], 1))
    # Before the first layer, the new dimensions are the larger ones.
    square = norm**2 + token_norm**2
    first = own["layers.0.input_layernorm.weight"]
    first[:width] *= math.sqrt(square) / norm


def _start_new_layers(
    model: LlamaForSequenceClassification, base: LlamaForCausalLM, probe: torch.Tensor
) -> None:
    """Set the attention of the first new layer: each head looks at one place, wherever it is."""
    config, width = base.config, base.config.hidden_size
    n_back = config.num_attention_heads
    head = width // n_back
    found = model.model(probe, output_hidden_states=True).hidden_states
    assert found is not None
    states = found[config.num_hidden_layers]
    size = float(states[..., :width].pow(2).mean().sqrt())
    layer = list(model.model.layers)[config.num_hidden_layers]
    layer.input_layernorm.weight[width:] = size / float(states[..., width:].pow(2).mean().sqrt())
    attention = layer.self_attn
    pull = torch.zeros(head // 2)
    pull[: len(FOCUS)] = torch.tensor(FOCUS).sqrt() * head**0.25
    angles = model.model.rotary_emb.inv_freq
    # Query and key are constants but for the rotation, of which the query undoes one step, or none.
    here = torch.cat([pull, torch.zeros(head // 2)])
    back = torch.cat([pull * angles.cos(), -pull * angles.sin()])
    n_here = len(attention.q_proj.bias) // head - n_back
    for projection, vectors in (
        (attention.q_proj, [*[back] * n_back, *[here] * n_here]),
        (attention.k_proj, [here] * (n_back + n_here)),
    ):
        projection.weight.zero_()
        projection.bias.copy_(torch.cat(vectors))
    for projection, gain in ((attention.v_proj, 1.0), (attention.o_proj, size)):
        projection.weight.copy_(gain * torch.eye(len(projection.weight)))
