"""Proving an architecture map on a probe batch, by identities that hold only if the map is right.

Identities, on random tokens: the output of block l is the input of block l + 1; the last residual
through norm and unembedding gives the logits; block output = block input + attention + MLP; the
sum over heads through the output projection gives the attention output. The last two are checked
again while the states are replaced by noise: a hook that does not reach the model cannot pass, and
a contribution too small to show in the first check cannot hide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpflow.engine import hooks
from interpflow.engine.architecture import Architecture, BlockParts
from interpflow.engine.forward import Edit, Resume, run_forward
from interpflow.engine.sites import ATTENTION_COMPONENTS, Site
from interpflow.errors import UserError

PROBE_ROWS, PROBE_POSITIONS = 2, 7
PROBE_SEED = 20_240_101
# Rounding units of the model's dtype, times the size of the numbers, that an identity may miss by:
# a residual is a sum of three terms; logits and projections are sums of products.
SUM_UNITS, PRODUCT_UNITS = 8, 64


def prove(module: PreTrainedModel, architecture: Architecture) -> Architecture:
    """The map with every component either proven or in `refused` with the reason.

    Raises UserError, naming the module, when the residual stream itself cannot be proven.
    """
    ids = _probe_ids(module, architecture)
    seen = _Probe(module, architecture, ids)
    architecture = replace(architecture, block_returns_tuple=seen.block_returns_tuple)
    _prove_chain(architecture, seen)
    architecture = _prove_unembedding(architecture, seen)
    architecture = _prove_contributions(module, architecture, seen)
    architecture = _prove_heads(module, architecture, seen)
    architecture = _prove_middle(module, architecture, seen)
    reason = "these sites are not proven yet"
    return _refuse(architecture, reason, *ATTENTION_COMPONENTS, "mlp_act")


def fastest_path(module: PreTrainedModel, architecture: Architecture) -> str:
    """How much of a pass may be left out: "full" (nothing), "resume" (blocks before the patch),
    "resume+prefix" (also positions before it). Proven by equality with the whole pass."""
    ids = _probe_ids(module, architecture)
    layers = range(architecture.n_layers)
    sites = [Site("resid_pre", i) for i in layers]
    sites.append(Site("resid_post", architecture.n_layers - 1))
    whole = run_forward(module, architecture, ids, capture=sites, keep_keys_values=True)
    starts = sorted({0, 1, architecture.n_layers // 2, architecture.n_layers})
    path = "full"
    for name, first in (("resume", 0), ("resume+prefix", PROBE_POSITIONS // 2)):
        if first and (whole.keys_values is None or not architecture.takes_position_ids):
            return path
        for start in starts:
            prefix = None
            if first and whole.keys_values is not None:
                prefix = tuple((k[:, :, :first], v[:, :, :first]) for k, v in whole.keys_values)
            residual = whole.states[sites[start]][:, first:] if start else None
            resume = Resume(start, residual, first, prefix)
            try:
                part = run_forward(module, architecture, ids[:, first:], resume=resume)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
                return path  # a model that cannot be entered halfway is run whole
            if _miss(part.logits, whole.logits[:, first:]) > PRODUCT_UNITS:
                return path
        path = name
    return path


def _probe_ids(module: PreTrainedModel, architecture: Architecture) -> Tensor:
    generator = torch.Generator().manual_seed(PROBE_SEED)
    shape = (PROBE_ROWS, PROBE_POSITIONS)
    ids = torch.randint(architecture.vocab_size, shape, generator=generator)
    return ids.to(next(module.parameters()).device)


def _miss(found: Tensor, expected: Tensor, *terms: Tensor) -> float:
    """Largest difference in rounding units of the largest number involved."""
    found, expected = found.to(expected.device), expected
    scale = max(float(t.abs().max()) for t in (expected, *terms))
    unit = torch.finfo(expected.dtype).eps * max(scale, torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max()) / unit


def _prove_chain(architecture: Architecture, seen: _Probe) -> None:
    for left, right in zip(architecture.blocks, architecture.blocks[1:]):
        if not torch.equal(seen.outputs[left.block], seen.inputs[right.block]):
            raise UserError(
                f"the output of {left.name} is not the input of {right.name}",
                where=architecture.family,
                remedy="this architecture carries more than one residual stream: not supported",
            )


def _prove_unembedding(architecture: Architecture, seen: _Probe) -> Architecture:
    last = seen.outputs[architecture.blocks[-1].block]
    misses = []
    for norm in dict.fromkeys((architecture.final_norm, None)):
        candidate = replace(architecture, final_norm=norm)
        with torch.no_grad():
            misses.append(_miss(candidate.unembed(last), seen.logits))
        if misses[-1] <= PRODUCT_UNITS:
            return candidate
    raise UserError(
        "the last residual through final norm and unembedding does not give the logits "
        f"(off by {min(misses):.3g} rounding units)",
        where=f"{architecture.family}: final norm {type(architecture.final_norm).__name__}, "
        f"unembedding {type(architecture.unembedding).__name__}",
        remedy="this architecture does something else between its last block and its logits",
    )


def _prove_contributions(
    module: PreTrainedModel, architecture: Architecture, seen: _Probe
) -> Architecture:
    """Find which modules' outputs are added to the residual stream, the same in every block."""
    closest = float("inf")
    blocks = architecture.blocks
    for a in range(min(len(p.attention_outputs) for p in blocks)):
        for m in range(min(len(p.mlp_outputs) for p in blocks)):
            picked = tuple(
                replace(
                    p,
                    attention_outputs=(p.attention_outputs[a],),
                    mlp_outputs=(p.mlp_outputs[m],),
                )
                for p in blocks
            )
            miss = max(_sum_miss(p, seen) for p in picked)
            if miss <= SUM_UNITS:
                candidate = replace(architecture, blocks=picked)
                miss = _perturbed_sum_miss(module, candidate, seen.ids)
                if miss <= SUM_UNITS:
                    return candidate
            closest = min(closest, miss)
    reason = (
        "block input + attention + MLP is not the block's output "
        f"(off by {closest:.3g} rounding units)"
    )
    return _refuse(architecture, reason, "attn_out", "mlp_out", "resid_mid")


def _sum_miss(parts: BlockParts, seen: _Probe) -> float:
    terms = [seen.inputs[parts.block]]
    for part in (parts.attention_outputs[0], parts.mlp_outputs[0]):
        if part not in seen.outputs or seen.outputs[part].shape != terms[0].shape:
            return float("inf")
        terms.append(seen.outputs[part])
    return _miss(terms[0] + terms[1] + terms[2], seen.outputs[parts.block], *terms)


def _perturbed_sum_miss(module: PreTrainedModel, architecture: Architecture, ids: Tensor) -> float:
    layers = range(architecture.n_layers)
    parts = ("attn_out", "mlp_out")
    edits = [_noise(architecture, Site(c, i), ids) for i in layers for c in parts]
    sites = [Site(c, i) for i in layers for c in ("resid_pre", *parts, "resid_post")]
    states = run_forward(module, architecture, ids, edits=edits, capture=sites).states
    misses = []
    for i in layers:
        terms = [states[Site(c, i)] for c in ("resid_pre", *parts)]
        found = terms[0] + terms[1] + terms[2]
        misses.append(_miss(found, states[Site("resid_post", i)], *terms))
    return max(misses)


def _prove_heads(module: PreTrainedModel, architecture: Architecture, seen: _Probe) -> Architecture:
    """The head outputs, each through its part of the projection, sum to the attention output."""
    widths = set()
    for parts in architecture.blocks:
        projection = parts.attention_projection
        if projection is None or projection not in seen.inputs:
            return _refuse(architecture, f"{parts.name} has no attention projection", "head_out")
        widths.add(seen.inputs[projection].shape[-1])
    if len(widths) != 1 or next(iter(widths)) % architecture.n_heads:
        reason = f"head widths {sorted(widths)} do not divide into {architecture.n_heads} heads"
        return _refuse(architecture, reason, "head_out")
    proven = replace(architecture, head_dim=next(iter(widths)) // architecture.n_heads)
    layers, heads = range(proven.n_layers), range(proven.n_heads)
    edits = [_noise(proven, Site("head_out", i, h), seen.ids) for i in layers for h in heads]
    noisy = _Probe(module, proven, seen.ids, edits)
    for probe in (seen, noisy):
        for parts in proven.blocks:
            if _head_miss(parts, proven.n_heads, probe) > PRODUCT_UNITS:
                reason = f"the head outputs of {parts.attention_name} do not sum to its output"
                return _refuse(architecture, reason, "head_out")
    return proven


def _head_miss(parts: BlockParts, n_heads: int, probe: _Probe) -> float:
    projection, attention = parts.attention_projection, parts.attention
    if projection is None or attention is None or attention not in probe.outputs:
        return float("inf")
    heads = probe.inputs[projection].unflatten(-1, (n_heads, -1))
    with torch.no_grad():
        total = bias = projection(torch.zeros_like(heads.flatten(-2)))
        for head in range(n_heads):
            alone = torch.zeros_like(heads)
            alone[..., head, :] = heads[..., head, :]
            total = total + (projection(alone.flatten(-2)) - bias)
    expected = probe.outputs[attention]
    if total.shape != expected.shape:
        return float("inf")
    return _miss(total, expected)


def _prove_middle(
    module: PreTrainedModel, architecture: Architecture, seen: _Probe
) -> Architecture:
    """Find whether the MLP reads what attention wrote: only then is there a residual between."""
    if "attn_out" in architecture.refused:
        return architecture
    reads = []
    for layer in {0, architecture.n_layers - 1}:
        site, edit = Site("mlp_out", layer), _noise(architecture, Site("attn_out", layer), seen.ids)
        noisy = run_forward(module, architecture, seen.ids, edits=[edit], capture=[site])
        reads.append(not torch.equal(noisy.states[site], seen.outputs[_mlp(architecture, layer)]))
    architecture = replace(architecture, parallel=not any(reads))
    if all(reads):
        return architecture
    return _refuse(architecture, "attention and MLP of a block run in parallel", "resid_mid")


def _mlp(architecture: Architecture, layer: int) -> nn.Module:
    return architecture.blocks[layer].mlp_outputs[0]


def _noise(architecture: Architecture, site: Site, ids: Tensor) -> Edit:
    """Standard normal values at every place of the site."""
    rows = torch.arange(ids.shape[0]).repeat_interleave(ids.shape[1])
    places = torch.arange(ids.shape[1]).repeat(ids.shape[0])
    width = architecture.d_model if site.head is None else architecture.head_dim
    generator = torch.Generator().manual_seed(PROBE_SEED + 1 + site.layer)
    values = torch.randn(len(rows), width, generator=generator)
    return Edit(site, rows.to(ids.device), places.to(ids.device), values)


def _refuse(architecture: Architecture, reason: str, *components: str) -> Architecture:
    return replace(
        architecture, refused={**architecture.refused, **dict.fromkeys(components, reason)}
    )


class _Probe:
    """Inputs and outputs of every module the map names, from one pass over the probe tokens.

    Modules that did not run exactly once, or whose state has another shape, are left out.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        architecture: Architecture,
        ids: Tensor,
        edits: list[Edit] | None = None,
    ) -> None:
        self.ids = ids
        self.block_returns_tuple = False
        raw_inputs: dict[nn.Module, list[Tensor]] = {}
        raw_outputs: dict[nn.Module, list[Tensor]] = {}

        def keep(kept: dict[nn.Module, list[Tensor]], part: nn.Module) -> hooks.StateFunction:
            def function(state: Tensor) -> None:
                kept.setdefault(part, []).append(state.detach().clone())

            return function

        def returned(_module: nn.Module, _args: tuple, output: Any) -> None:
            self.block_returns_tuple = isinstance(output, tuple)

        def observe(handles: list[Any]) -> None:
            handles.append(architecture.blocks[0].block.register_forward_hook(returned))
            for part in _modules_with_inputs(architecture):
                handles.append(hooks.on_input(part, keep(raw_inputs, part)))
            for part in _modules_with_outputs(architecture):
                handles.append(hooks.on_output(part, keep(raw_outputs, part)))

        result = run_forward(module, architecture, ids, edits=edits or (), observe=observe)
        self.logits = result.logits
        self.inputs = _once(raw_inputs, ids)
        self.outputs = _once(raw_outputs, ids)
        for parts in architecture.blocks:
            if parts.block not in self.inputs or parts.block not in self.outputs:
                raise UserError(
                    f"{parts.name} does not run once on states [batch, position, d]",
                    where=architecture.family,
                )


def _modules_with_inputs(architecture: Architecture) -> list[nn.Module]:
    found = [m for p in architecture.blocks for m in (p.block, p.attention_projection)]
    return list(dict.fromkeys(m for m in found if m is not None))


def _modules_with_outputs(architecture: Architecture) -> list[nn.Module]:
    found = [
        m
        for p in architecture.blocks
        for m in (p.block, p.attention, *p.attention_outputs, *p.mlp_outputs)
    ]
    return list(dict.fromkeys(m for m in found if m is not None))


def _once(kept: dict[nn.Module, list[Tensor]], ids: Tensor) -> dict[nn.Module, Tensor]:
    """The states [batch, position, d] of the modules that ran exactly once."""
    states = {}
    for part, seen in kept.items():
        if len(seen) == 1 and seen[0].shape[:-1] in (ids.shape, (ids.numel(),)):
            states[part] = seen[0].view(*ids.shape, -1)
    return states
