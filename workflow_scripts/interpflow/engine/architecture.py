"""Finding the parts of a Hugging Face decoder by declared candidate names.

What is found here is only a proposal: `interpflow.engine.proofs.component_proof` checks it on a
forward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpflow.engine.sites import COMPONENTS, KEY_VALUE_COMPONENTS, Site
from interpflow.errors import UserError

BLOCK_PATHS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.decoder.layers",
    "transformer.blocks",
    "transformer.layers",
    "backbone.layers",
    "model.language_model.layers",
    "language_model.model.layers",
)
FINAL_NORM_NAMES = (
    "norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "layer_norm",
    "embedding_norm",
)  # fmt: skip
AFTER_NORM_NAMES = ("project_out",)
ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
# Some attention modules wrap the one that holds the projections (GPT-Neo).
INNER_ATTENTION_NAMES = ("attention",)
ATTENTION_PROJECTION_NAMES = ("o_proj", "c_proj", "out_proj", "dense", "wo")
ATTENTION_POST_NORM_NAMES = ("post_attention_layernorm", "post_self_attn_layernorm")
MLP_NAMES = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "fc2")
MLP_PROJECTION_NAMES = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2")
MLP_POST_NORM_NAMES = ("post_feedforward_layernorm", "post_mlp_layernorm")

RESIDUAL_MULTIPLIER_NAMES = ("residual_multiplier",)
# What a block multiplies by its residual multiplier before it is added to the stream.
SCALED_COMPONENTS = ("attn_out", "resid_mid", "mlp_out")


def find_architecture(module: PreTrainedModel) -> Architecture:
    """Propose the parts of a decoder-only model. Raises UserError naming what is not found."""
    config = module.config.get_text_config(decoder=True)
    if getattr(module.config, "is_encoder_decoder", False):
        raise UserError(
            f"{type(module).__name__} has an encoder", remedy="use a decoder-only language model"
        )
    path, blocks = _find_blocks(module)
    parent = module.get_submodule(path.rpartition(".")[0])
    embedding, unembedding = module.get_input_embeddings(), module.get_output_embeddings()
    if not isinstance(embedding, nn.Module) or not isinstance(unembedding, nn.Module):
        raise UserError(
            f"{type(module).__name__} has no token embedding or no unembedding",
            remedy="load it with AutoModelForCausalLM",
        )
    n_heads = int(getattr(config, "num_attention_heads", None) or 0)
    if n_heads == 0:
        raise UserError(
            f"{type(module).__name__} names no number of attention heads",
            remedy="use a decoder-only transformer",
        )
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    return Architecture(
        family=str(module.config.model_type),
        embedding=embedding,
        blocks=tuple(_find_parts(b, f"{path}.{i}") for i, b in enumerate(blocks)),
        final_norm=_first_child(parent, FINAL_NORM_NAMES)[1],
        after_norm=_first_child(parent, AFTER_NORM_NAMES)[1],
        unembedding=unembedding,
        logit_scale=scale,
        softcap=getattr(config, "final_logit_softcapping", None),
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        d_model=int(config.hidden_size),
        vocab_size=int(config.vocab_size),
        residual_multiplier=_declared_multiplier(config),
        takes_position_ids="position_ids" in inspect.signature(module.forward).parameters,
    )


def _declared_multiplier(config: Any) -> float:
    found = [getattr(config, name, None) for name in RESIDUAL_MULTIPLIER_NAMES]
    return float(next((value for value in found if value is not None), 1.0))


def _find_blocks(module: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    for path in BLOCK_PATHS:
        try:
            found = module.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList) and len(found) > 0:
            return path, found
    n_layers = getattr(module.config.get_text_config(decoder=True), "num_hidden_layers", 0)
    lists = [
        (name, found)
        for name, found in module.named_modules()
        if isinstance(found, nn.ModuleList) and 0 < len(found) == n_layers
    ]
    if len(lists) == 1:
        return lists[0]
    raise UserError(
        f"no list of blocks was found in {type(module).__name__}",
        where=f"looked at {', '.join(BLOCK_PATHS)}; {len(lists)} other lists have {n_layers} parts",
        remedy="use a decoder-only Hugging Face model of a known layout",
    )


def _find_parts(block: nn.Module, name: str) -> BlockParts:
    attention_name, attention = _first_child(block, ATTENTION_NAMES)
    projection = None
    if attention is not None:
        _, projection = _first_child(attention, ATTENTION_PROJECTION_NAMES)
        if projection is None:
            _, inner = _first_child(attention, INNER_ATTENTION_NAMES)
            _, projection = _first_child(inner, ATTENTION_PROJECTION_NAMES)
    _, mlp = _first_child(block, MLP_NAMES)
    _, mlp_projection = _first_child(mlp, MLP_PROJECTION_NAMES)
    if mlp_projection is None and mlp is not None and not list(mlp.children()):
        mlp_projection = mlp  # an MLP without a module of its own (OPT)
    return BlockParts(
        name=name,
        block=block,
        attention=attention,
        attention_projection=projection,
        mlp=mlp,
        mlp_projection=mlp_projection,
        attention_outputs=_present(attention, block, ATTENTION_POST_NORM_NAMES, projection),
        mlp_outputs=_present(mlp, block, MLP_POST_NORM_NAMES, mlp_projection),
        attention_name=f"{name}.{attention_name}",
    )


def _present(
    first: nn.Module | None, block: nn.Module, names: Sequence[str], last: nn.Module | None
) -> tuple[nn.Module, ...]:
    found = [first, *(getattr(block, name, None) for name in names), last]
    return tuple(dict.fromkeys(m for m in found if isinstance(m, nn.Module)))


def _first_child(parent: nn.Module | None, names: Sequence[str]) -> tuple[str, nn.Module | None]:
    for name in names:
        child = getattr(parent, name, None)
        if isinstance(child, nn.Module):
            return name, child
    return "", None


@dataclass(frozen=True)
class BlockParts:
    """The parts of one block; `attention_outputs` and `mlp_outputs` are the modules whose output
    might be what is added to the residual stream, likeliest first: a norm may stand between, or
    the module itself may do the adding after its last projection (BLOOM)."""

    name: str
    block: nn.Module
    attention: nn.Module | None
    attention_projection: nn.Module | None
    mlp: nn.Module | None
    mlp_projection: nn.Module | None
    attention_outputs: tuple[nn.Module, ...]
    mlp_outputs: tuple[nn.Module, ...]
    attention_name: str


@dataclass(frozen=True)
class Architecture:
    """The map of a decoder. `head_dim` (of values), `key_dim`, `d_mlp`, `parallel`,
    `block_returns_tuple`, `residual_multiplier` and `refused` (component -> reason) are settled by
    the proof."""

    family: str
    embedding: nn.Module
    blocks: tuple[BlockParts, ...]
    final_norm: nn.Module | None
    after_norm: nn.Module | None
    unembedding: nn.Module
    logit_scale: float
    softcap: float | None
    n_heads: int
    n_kv_heads: int
    d_model: int
    vocab_size: int
    head_dim: int = 0
    key_dim: int = 0
    d_mlp: int = 0
    parallel: bool = False
    block_returns_tuple: bool = False
    takes_position_ids: bool = True
    residual_multiplier: float = 1.0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.embedding.weight.device  # type: ignore[return-value]

    def require(self, site: Site) -> None:
        """Raise UserError when the site's component was not proven for this model."""
        reason = self.refused.get(site.component)
        if reason is not None:
            raise UserError(
                f"{site} cannot be used on a {self.family} model: {reason}",
                where=self.blocks[site.layer].name,
                remedy=f"use {', '.join(c for c in COMPONENTS if c not in self.refused)}",
            )

    def refusing(self, reasons: dict[str, str]) -> Architecture:
        """This map with these components refused (component -> reason)."""
        return replace(self, refused={**self.refused, **reasons})

    def width(self, site: Site, n_keys: int) -> int:
        """Number of features of a site in prompts of `n_keys` positions, heads together."""
        heads = 1
        if site.head is None:
            heads = self.n_kv_heads if site.component in KEY_VALUE_COMPONENTS else self.n_heads
        if site.component == "pattern":
            return heads * n_keys
        if site.component == "mlp_act":
            return self.d_mlp
        if site.component in ("q", "k"):
            return heads * self.key_dim
        return heads * self.head_dim if site.component in ("v", "head_out") else self.d_model

    def multiplier(self, site: Site) -> float:
        """What the hooked module's state is multiplied by to give the site's."""
        return self.residual_multiplier if site.component in SCALED_COMPONENTS else 1.0

    def hook_place(self, site: Site) -> tuple[nn.Module, bool]:
        """The module whose input (True) or output (False) is the site's state.

        `resid_mid` and what is inside attention have none. Raises UserError when the component was
        not proven for this model.
        """
        self.require(site)
        parts = self.blocks[site.layer]
        module, is_input = {
            "embed": (parts.block, True),
            "resid_pre": (parts.block, True),
            "head_out": (parts.attention_projection, True),
            "attn_out": (parts.attention_outputs[0] if parts.attention_outputs else None, False),
            "mlp_act": (parts.mlp_projection, True),
            "mlp_out": (parts.mlp_outputs[0] if parts.mlp_outputs else None, False),
            "resid_post": (parts.block, False),
        }[site.component]
        assert module is not None  # what was not found was refused by the proof
        return module, is_input

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits [..., vocab] of a residual stream [..., d_model] taken after the last block."""
        return self.scaled(self.unembedding(self.normalized(residual)))

    def normalized(self, residual: Tensor) -> Tensor:
        """What the unembedding reads of a residual stream [..., d_model]."""
        state = residual if self.final_norm is None else self.final_norm(residual)
        return state if self.after_norm is None else self.after_norm(state)

    def scaled(self, logits: Tensor) -> Tensor:
        """Logits from the unembedding's output, any shape."""
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits
