"""Planted models: real Hugging Face classes whose weights are set by hand, so that it is known
which head and which MLP does what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from interpflow.errors import UserError
from interpflow.models.planted.answers import unembedding
from interpflow.models.planted.edge_truth import PlantedEdge, planted_edges
from interpflow.models.planted.features import (
    D_MODEL,
    NORM_EPSILON,
    NORM_GAIN,
    Array,
    constant_row,
    position_embedding,
    reading,
    token_embedding,
    writing,
)
from interpflow.models.planted.heads import (
    HEAD_DIM,
    ROPE_THETA,
    embedded_position_layout,
    head_values,
    rotary_layout,
)
from interpflow.models.planted.mlps import ACTIVATION_SCALE, N_NEURONS
from interpflow.models.planted.pairs import PlantedPair, make_pairs
from interpflow.models.planted.plan import (
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    planned_heads,
    planned_mlps,
    planned_truth,
)
from interpflow.models.planted.truth import TASKS, PlantedSite, Task
from interpflow.models.planted.vocabulary import PROMPT_LENGTH, TOKENS

_Module = TypeVar("_Module", bound=PreTrainedModel)


def planted_gpt2(task: Task = "induction") -> PlantedModel:
    """A GPT2LMHeadModel (4 layers, 8 heads, width 256) that solves the planted tasks.

    See `planted_llama`. Positions are embedded one-hot (prompts of up to 16 tokens).
    """
    _check_task(task)
    config = GPT2Config(
        vocab_size=len(TOKENS),
        n_positions=PROMPT_LENGTH,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        n_inner=N_NEURONS,
        layer_norm_epsilon=NORM_EPSILON,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    module = _zeroed(GPT2LMHeadModel(config))
    trunk, layout = module.transformer, embedded_position_layout()
    blocks: Any = trunk.h
    _put(trunk.wte.weight, token_embedding(len(TOKENS)))
    _put(trunk.wpe.weight, position_embedding())
    for block in blocks:
        block.ln_1.weight.data.fill_(NORM_GAIN)
        block.ln_2.weight.data.fill_(NORM_GAIN)
    trunk.ln_f.weight.data.fill_(NORM_GAIN)
    # Conv1D weights are [in, out].
    for (layer, head), weights in planned_heads(layout, task).items():
        attention, own = blocks[layer].attn, slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        queries, keys, values = attention.c_attn.weight.data.split(D_MODEL, dim=1)
        _put(queries[:, own], reading(_scaled(weights.query)).T)
        _put(keys[:, own], reading(layout.key).T)
        _put(values[:, own], reading(head_values()).T)
        _put(attention.c_proj.weight[own], writing(weights.output).T)
    for layer, mlp in planned_mlps().items():
        own = slice(0, len(mlp.reads))
        _put(blocks[layer].mlp.c_fc.weight[:, own], ACTIVATION_SCALE * reading(mlp.reads).T)
        _put(blocks[layer].mlp.c_proj.weight[own], writing(mlp.writes).T / ACTIVATION_SCALE)
    _put(module.lm_head.weight, unembedding())
    return PlantedModel(module, task, planned_truth(task), planted_edges(task, N_HEADS))


def planted_llama(task: Task = "induction") -> PlantedModel:
    """A LlamaForCausalLM (4 layers, 8 heads sharing 2 keys and values, width 256) that solves the
    planted tasks.

    task: "induction", "counting" (see `pairs.make_pairs`; both have the same weights), or
    "redundant", in which either of two induction heads is enough. What that does to single-site
    effects: patched from the clean into the corrupted run (denoising) each of the two gives the
    whole effect; patched from the corrupted into the clean run (noising) neither changes anything,
    and only both together do. A ranking by noising effects must miss them.
    In float32 nothing of the mechanisms is rounded (`features` for the norms, `mlps` for the
    activations, `heads` for attention): dead and irrelevant parts have effects of exactly 0.
    Raises UserError for an unknown task.
    """
    _check_task(task)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=D_MODEL,
        intermediate_size=N_NEURONS,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KV_HEADS,
        head_dim=HEAD_DIM,
        rms_norm_eps=NORM_EPSILON,
        max_position_embeddings=PROMPT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    module = _zeroed(LlamaForCausalLM(config))
    trunk, layout = module.model, rotary_layout()
    blocks: Any = trunk.layers
    _put(trunk.embed_tokens.weight, token_embedding(len(TOKENS)))
    for block in blocks:
        block.input_layernorm.weight.data.fill_(NORM_GAIN)
        block.post_attention_layernorm.weight.data.fill_(NORM_GAIN)
    trunk.norm.weight.data.fill_(NORM_GAIN)
    for (layer, head), weights in planned_heads(layout, task).items():
        attention, own = blocks[layer].self_attn, _rows(head)
        shared = _rows(head // (N_HEADS // N_KV_HEADS))
        _put(attention.q_proj.weight[own], reading(_scaled(weights.query)))
        _put(attention.k_proj.weight[shared], reading(layout.key))
        _put(attention.v_proj.weight[shared], reading(head_values()))
        _put(attention.o_proj.weight[:, own], writing(weights.output))
    for layer, mlp in planned_mlps().items():
        own, into = slice(0, len(mlp.reads)), blocks[layer].mlp
        _put(into.gate_proj.weight[own], ACTIVATION_SCALE * reading(mlp.reads))
        _put(into.up_proj.weight[own], reading(constant_row()))
        _put(into.down_proj.weight[:, own], writing(mlp.writes) / ACTIVATION_SCALE)
    _put(module.lm_head.weight, unembedding())
    return PlantedModel(module, task, planned_truth(task), planted_edges(task, N_KV_HEADS))


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise UserError(f"unknown task {task!r}", remedy=f"use one of {', '.join(TASKS)}")


def _zeroed(module: _Module) -> _Module:
    for parameter in module.parameters():
        parameter.data.zero_()
    return module.eval()


def _rows(head: int) -> slice:
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


def _scaled(query: Array) -> Array:
    """Queries that undo the division of attention logits by √HEAD_DIM."""
    return query * HEAD_DIM**0.5


def _put(weight: torch.Tensor, values: Array) -> None:
    with torch.no_grad():
        weight.copy_(torch.from_numpy(values).expand(weight.shape))


@dataclass(frozen=True, eq=False)
class PlantedModel:
    """A planted model with what is known about it.

    truth: every head and every MLP with its role in the task; edge_truth: every edge between them.
    Token ids are those of `vocabulary.TOKENS`; there is no tokenizer.
    """

    module: PreTrainedModel
    task: Task
    truth: tuple[PlantedSite, ...]
    edge_truth: tuple[PlantedEdge, ...]

    def make_pairs(self, n: int, seed: int) -> tuple[PlantedPair, ...]:
        """`n` pairs of the task, answered rightly by the model; see `pairs.make_pairs`."""
        return make_pairs(self.task, n, seed)
