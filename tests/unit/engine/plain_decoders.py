"""Tiny decoders written out head by head in plain torch, for one prompt at a time: each receiver's
input is spelled out as a sum over senders, so that any edge can be given another sender's value."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Given a receiver's name and (sender name -> contribution), what the receiver reads instead.
Choose = dict[tuple[str, str], Tensor]


def run_plain(kind: str, module, ids: Tensor, cut: Choose | None = None) -> tuple[Tensor, dict]:
    """Logits [vocab] at the last position and the contributions of all senders, [position, d].

    cut: (receiver, sender) -> contribution that this receiver reads of this sender.
    """
    parts = {"gpt2": Gpt2, "gpt_neox": Neox, "llama_grouped": Llama}[kind](module)
    cut = cut or {}
    sent: dict[str, Tensor] = {"embed": parts.embed(ids)}
    constant = torch.zeros_like(sent["embed"])

    def read(receiver: str, known: list[str], constant: Tensor) -> Tensor:
        total = constant.clone()
        for sender in known:
            total = total + cut.get((receiver, sender), sent[sender])
        return total

    for layer in range(parts.n_layers):
        before = list(sent)
        for head in range(parts.n_heads):
            group = head // (parts.n_heads // parts.n_kv_heads)
            q = parts.query(layer, head, read(f"q.L{layer}.H{head}", before, constant))
            k = parts.key(layer, group, read(f"k.L{layer}.H{group}", before, constant))
            v = parts.value(layer, group, read(f"v.L{layer}.H{group}", before, constant))
            scores = q @ k.T / q.shape[-1] ** 0.5
            hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v
            sent[f"head_out.L{layer}.H{head}"] = parts.project(layer, head, mixed)
        after = constant + parts.attention_bias(layer)
        if parts.parallel:
            sent[f"mlp_out.L{layer}"] = parts.mlp(layer, read(f"mlp.L{layer}", before, constant))
        else:
            sent[f"mlp_out.L{layer}"] = parts.mlp(layer, read(f"mlp.L{layer}", list(sent), after))
        constant = after
    return parts.logits(read("logits", list(sent), constant))[-1], sent


class Gpt2:
    parallel = False

    def __init__(self, module) -> None:
        self.model, self.head = module.transformer, module.lm_head
        self.n_layers, self.n_heads = len(self.model.h), module.config.n_head
        self.n_kv_heads, self.width = self.n_heads, module.config.n_embd // self.n_heads

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.wte.weight[ids] + self.model.wpe.weight[: len(ids)]

    def _third(self, layer: int, which: int, head: int, x: Tensor) -> Tensor:
        block = self.model.h[layer]
        columns = slice(which * 32 + head * self.width, which * 32 + (head + 1) * self.width)
        projection = block.attn.c_attn
        return block.ln_1(x) @ projection.weight[:, columns] + projection.bias[columns]

    def query(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._third(layer, 0, head, x)

    def key(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._third(layer, 1, head, x)

    def value(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._third(layer, 2, head, x)

    def project(self, layer: int, head: int, mixed: Tensor) -> Tensor:
        rows = slice(head * self.width, (head + 1) * self.width)
        return mixed @ self.model.h[layer].attn.c_proj.weight[rows]

    def attention_bias(self, layer: int) -> Tensor:
        return self.model.h[layer].attn.c_proj.bias

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        block = self.model.h[layer]
        inner = block.ln_2(x) @ block.mlp.c_fc.weight + block.mlp.c_fc.bias
        inner = functional.gelu(inner, approximate="tanh")
        return inner @ block.mlp.c_proj.weight + block.mlp.c_proj.bias

    def logits(self, x: Tensor) -> Tensor:
        return self.model.ln_f(x) @ self.head.weight.T


class Neox:
    parallel = True

    def __init__(self, module) -> None:
        self.model, self.head = module.gpt_neox, module.lm_head
        self.n_layers, self.n_heads = len(self.model.layers), module.config.num_attention_heads
        self.n_kv_heads, self.width = self.n_heads, module.config.hidden_size // self.n_heads

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_in.weight[ids]

    def _third(self, layer: int, which: int, head: int, x: Tensor) -> Tensor:
        block = self.model.layers[layer]
        start = (head * 3 + which) * self.width
        rows = slice(start, start + self.width)
        projection = block.attention.query_key_value
        return block.input_layernorm(x) @ projection.weight[rows].T + projection.bias[rows]

    def _rotated(self, x: Tensor) -> Tensor:
        turning = int(self.width * 0.25)
        return torch.cat([rotated(x[:, :turning], 10000.0), x[:, turning:]], dim=-1)

    def query(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._rotated(self._third(layer, 0, head, x))

    def key(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._rotated(self._third(layer, 1, head, x))

    def value(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._third(layer, 2, head, x)

    def project(self, layer: int, head: int, mixed: Tensor) -> Tensor:
        columns = slice(head * self.width, (head + 1) * self.width)
        return mixed @ self.model.layers[layer].attention.dense.weight[:, columns].T

    def attention_bias(self, layer: int) -> Tensor:
        return self.model.layers[layer].attention.dense.bias

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        block = self.model.layers[layer]
        inner = functional.gelu(block.mlp.dense_h_to_4h(block.post_attention_layernorm(x)))
        return block.mlp.dense_4h_to_h(inner)

    def logits(self, x: Tensor) -> Tensor:
        return self.model.final_layer_norm(x) @ self.head.weight.T


class Llama:
    parallel = False

    def __init__(self, module) -> None:
        self.model, self.head, config = module.model, module.lm_head, module.config
        self.n_layers, self.n_heads = len(self.model.layers), config.num_attention_heads
        self.n_kv_heads, self.width = config.num_key_value_heads, config.head_dim

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens.weight[ids]

    def _part(self, projection, head: int, layer: int, x: Tensor) -> Tensor:
        rows = slice(head * self.width, (head + 1) * self.width)
        return self.model.layers[layer].input_layernorm(x) @ projection.weight[rows].T

    def query(self, layer: int, head: int, x: Tensor) -> Tensor:
        return rotated(self._part(self.model.layers[layer].self_attn.q_proj, head, layer, x), 1e4)

    def key(self, layer: int, head: int, x: Tensor) -> Tensor:
        return rotated(self._part(self.model.layers[layer].self_attn.k_proj, head, layer, x), 1e4)

    def value(self, layer: int, head: int, x: Tensor) -> Tensor:
        return self._part(self.model.layers[layer].self_attn.v_proj, head, layer, x)

    def project(self, layer: int, head: int, mixed: Tensor) -> Tensor:
        columns = slice(head * self.width, (head + 1) * self.width)
        return mixed @ self.model.layers[layer].self_attn.o_proj.weight[:, columns].T

    def attention_bias(self, layer: int) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        block = self.model.layers[layer]
        x = block.post_attention_layernorm(x)
        gate = functional.silu(x @ block.mlp.gate_proj.weight.T)
        return (gate * (x @ block.mlp.up_proj.weight.T)) @ block.mlp.down_proj.weight.T

    def logits(self, x: Tensor) -> Tensor:
        return self.model.norm(x) @ self.head.weight.T


def rotated(x: Tensor, theta: float) -> Tensor:
    """Rotary positions on x [position, d], the two halves of d turned against each other."""
    half = x.shape[1] // 2
    speeds = theta ** -(torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(len(x), dtype=torch.float32)[:, None] * speeds
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    left, right = x[:, :half], x[:, half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
