"""A decoder taken apart at its residual stream: what each part reads, and what it adds.

residual = embedding + sum over earlier senders of their contributions + what is the same in every
run (biases). A head contributes its state through its slice of the output projection, times the
residual multiplier. Where a norm stands between attention and the stream (Gemma, OLMo-2, GLM-4)
that norm only scales, so a head's contribution is its part scaled as its own run's norm scaled the
sum: contributions still add up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interpflow.engine.circuits.edges import EdgeMap
from interpflow.engine.circuits.gradients import tapped_pass
from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.passes.attention import AttentionPass, StopForward
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.path import joining_blocks, why_whole
from interpflow.errors import UserError

PROBE_SHAPE, PROBE_SEED = (2, 7), 20_240_103
# Rounding units of the numbers, times their size, that a sum of contributions may miss by; norms
# are computed in float32 whatever the model's type.
UNITS = 256

HeadStates = tuple[Tensor, Tensor, Tensor]


def residual_graph(model: Model) -> ResidualGraph:
    """The model taken apart, and proven on a few random tokens. Raises UserError saying what could
    not be proven."""
    graph = ResidualGraph(model)
    _prove(graph)
    return graph


class ResidualGraph:
    """Readers and contributions of a model's blocks; get one from `residual_graph`.

    States are [row, position, d] over whole prompts of equal length, heads [row, position, head,
    d]. Everything is differentiable unless gradients are off.
    """

    def __init__(self, model: Model) -> None:
        blocks = joining_blocks(model)
        if blocks is None:
            raise UserError(
                f"edges of this model cannot be told apart: {why_whole(model)}",
                where=model.architecture.family,
                remedy="use sites of whole passes instead of edges",
            )
        for component in ("head_out", "attn_out", "mlp_out"):
            model.check_site(Site(component))
        self.model, self.edges = model, EdgeMap.of(model)
        self._blocks: Blocks = blocks
        self._returned: dict[int, int | None] = {}
        self._length = 0

    def read_heads(self, layer: int, residual: Tensor) -> HeadStates:
        """Queries, keys and values of a block that reads this residual; nothing after them runs."""
        found: dict[str, Tensor] = {}

        def watch(component: str, _layer: int, state: Tensor) -> None:
            found[component] = state

        self._prepare(residual)
        run = self._attention(layer, watch, keys_only=frozenset([layer]))
        with run.active(self._blocks.configs), suppress(StopForward):
            self._blocks.call(layer, residual, 0, residual.shape[1])
        return found["q"], found["k"], found["v"]

    def attend(self, layer: int, residual: Tensor, given: HeadStates | None = None) -> Tensor:
        """Head states [row, position, head, d] of a block that reads this residual, or that has the
        given queries, keys and values."""
        seen: list[Tensor] = []

        def watch(component: str, _layer: int, _state: Tensor) -> Tensor | None:
            return None if given is None else given["qkv".index(component)]

        def stop(state: Tensor) -> None:
            seen.append(state)
            raise StopForward

        self._prepare(residual)
        run = self._attention(layer, watch)
        projection = self.model.architecture.hook_place(Site("head_out", layer))[0]
        with hooks.removed_afterwards() as handles, suppress(StopForward):
            handles.append(hooks.on_input(projection, stop))
            with run.active(self._blocks.configs):
                self._blocks.call(layer, residual, 0, residual.shape[1])
        if run.calls != {layer: 1}:
            raise RuntimeError(f"attention of block {layer} ran {run.calls}, expected once")
        return seen[0].reshape(*residual.shape[:2], self.edges.n_heads, -1)

    def add_heads(self, layer: int, heads: Tensor) -> Tensor:
        """What attention adds to the stream for these head states, [row, position, d_model]."""
        parts = self.model.architecture.blocks[layer]
        assert parts.attention_projection is not None  # `check_site` refused it
        total = parts.attention_projection(heads.flatten(2))
        norm = self._post_norm(layer)
        total = total if norm is None else norm(total)
        return total * self.model.architecture.multiplier(Site("attn_out", layer))

    def contributions(
        self, layer: int, heads: Tensor, chosen: Sequence[int] | None = None
    ) -> Tensor:
        """What each head adds to the stream, [head, row, position, d_model], biases left out.

        chosen: heads to return, all if None.
        """
        weight = self._head_weights(layer)
        picked = heads if chosen is None else heads[:, :, list(chosen)]
        own = weight if chosen is None else weight[list(chosen)]
        found = torch.einsum("rthe,hed->hrtd", picked, own)
        norm = self._post_norm(layer)
        if norm is not None:
            found = found * self._gain(layer, norm, heads)
        return found * self.model.architecture.multiplier(Site("attn_out", layer))

    def linear(self, layer: int) -> bool:
        """Whether head contributions are linear in the head states (no norm after attention)."""
        return self._post_norm(layer) is None

    def read_mlp(self, layer: int, residual: Tensor) -> Tensor:
        """What the MLP of a block adds to the stream when it reads this residual."""
        parts = self.model.architecture.blocks[layer]
        module = self.model.architecture.hook_place(Site("mlp_out", layer))[0]
        after = self.model.architecture.hook_place(Site("attn_out", layer))[0]
        assert parts.attention is not None
        rows, length, _ = residual.shape
        seen: list[Tensor] = []

        def stop(state: Tensor) -> None:
            seen.append(hooks.three_axes(state, rows, length, "mlp_out"))
            raise StopForward

        silent = {parts.attention: _silent(residual, self._n_returned(layer))}
        self._prepare(residual)
        with hooks.removed_afterwards() as handles, suppress(StopForward):
            handles.append(hooks.on_output(after, torch.zeros_like))
            handles.append(hooks.on_output(module, stop))
            run = AttentionPass(self._blocks.layers)
            with hooks.replaced_forwards(silent), run.active(self._blocks.configs):
                self._blocks.call(layer, residual, 0, residual.shape[1])
        return seen[0] * self.model.architecture.multiplier(Site("mlp_out", layer))

    def _attention(self, layer: int, watch: Any, **settings: Any) -> AttentionPass:
        watched = frozenset((component, layer) for component in ("q", "k", "v"))
        return AttentionPass(self._blocks.layers, watched=watched, watch=watch, **settings)

    def _prepare(self, residual: Tensor) -> None:
        """Let the blocks find their arguments for prompts of this length while none of our hooks
        are attached."""
        if residual.shape[1] != self._length:
            self._length = residual.shape[1]
            self._blocks.keys_values(0, residual[:1].detach(), 0, self._length)

    def _post_norm(self, layer: int) -> nn.Module | None:
        parts = self.model.architecture.blocks[layer]
        output = parts.attention_outputs[0]
        return None if output is parts.attention else output

    def _head_weights(self, layer: int) -> Tensor:
        """The output projection's weights, [head, d_head, d_model]."""
        projection: Any = self.model.architecture.blocks[layer].attention_projection
        if type(projection) is nn.Linear:
            weight = projection.weight.T
        elif type(projection) is Conv1D:
            weight = projection.weight
        else:
            width = self.edges.n_heads * self.model.head_dim
            unit = torch.eye(width, device=self.model.device, dtype=self.model.dtype)
            weight = projection(unit) - projection(torch.zeros_like(unit[:1]))
        return weight.detach().unflatten(0, (self.edges.n_heads, -1))

    def _gain(self, layer: int, norm: nn.Module, heads: Tensor) -> Tensor:
        """What the norm after attention multiplies its input by, [row, position, d_model]: a gain
        per feature, as the norm of a vector of ones shows, times one scale per place."""
        projection = self.model.architecture.blocks[layer].attention_projection
        assert projection is not None
        total = projection(heads.flatten(2))
        features = norm(torch.ones_like(total[:1, :1]))
        part, out = features * total, norm(total)
        size = (part * part).sum(dim=-1, keepdim=True)
        scale = (part * out).sum(dim=-1, keepdim=True) / size.clamp_min(
            torch.finfo(size.dtype).tiny
        )
        return features * scale

    def _n_returned(self, layer: int) -> int | None:
        """How many things the attention module returns; None for a bare tensor."""
        if layer not in self._returned:
            attention = self.model.architecture.blocks[layer].attention
            assert attention is not None

            def look(_module: nn.Module, _args: tuple, output: Any) -> None:
                self._returned[layer] = len(output) if isinstance(output, tuple) else None

            state = torch.zeros(1, 1, self.model.d_model).to(self.model.device, self.model.dtype)
            with hooks.removed_afterwards() as handles:
                handles.append(attention.register_forward_hook(look))
                self._blocks.run(layer, state, 0, 1)
            self._length = 1
        return self._returned[layer]


def _silent(residual: Tensor, n_returned: int | None) -> Any:
    """The forward of an attention module that adds nothing."""

    def forward(*_args: Any, **_kwargs: Any) -> Any:
        zeros = torch.zeros_like(residual)
        return zeros if n_returned is None else (zeros, *[None] * (n_returned - 1))

    return forward


@torch.no_grad()
def _prove(graph: ResidualGraph) -> None:
    """The parts, put together again, give the model's own logits and residuals."""
    model, n_layers = graph.model, graph.edges.n_layers
    generator = torch.Generator().manual_seed(PROBE_SEED)
    ids = torch.randint(model.vocab_size, PROBE_SHAPE, generator=generator).to(model.device)
    outputs = [("resid_post", layer) for layer in range(n_layers)]
    run = tapped_pass(model, ids, [("embed", 0), *outputs])
    state = run.states["embed", 0]
    zeros = torch.zeros_like(state)
    for layer in range(n_layers):
        heads = graph.attend(layer, zeros, graph.read_heads(layer, state))
        added = graph.add_heads(layer, heads)
        constant = zeros
        if graph.linear(layer):
            constant = graph.add_heads(layer, torch.zeros_like(heads))
        total = graph.contributions(layer, heads).sum(dim=0) + constant
        middle = state if graph.edges.parallel else state + added
        following = state + added + graph.read_mlp(layer, middle)
        own = run.states["resid_post", layer]
        for found, expected, what in (
            (total, added, "head contributions do not add up to the attention's"),
            (following, own, "attention and MLP, run apart, do not give the output"),
        ):
            unit = max(torch.finfo(own.dtype).eps, torch.finfo(torch.float32).eps)
            scale = max(float(expected.abs().max()), float(own.abs().max()))
            miss = float((found - expected).abs().max()) / (unit * scale)
            if not miss <= UNITS:
                raise UserError(
                    f"edges of this model cannot be told apart: {what} of "
                    f"{model.architecture.blocks[layer].name} (off by {miss:.3g} rounding units)",
                    where=model.architecture.family,
                    remedy="use sites of whole passes instead of edges",
                )
        state = own
