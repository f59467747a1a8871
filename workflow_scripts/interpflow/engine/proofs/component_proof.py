"""Proving an architecture map on a probe batch, by identities that hold only if the map is right.

Identities, on random tokens: the output of block l is the input of block l + 1; the last residual
through norm and unembedding gives the logits; block output = block input + attention + MLP; the
sum over heads through the output projection gives the attention output. The last two are checked
again while the states are replaced by noise: a hook that does not reach the model cannot pass, and
a contribution too small to show in the first check cannot hide. What is inside attention and the
MLP is proven in `inner_proof`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture, BlockParts
from interpflow.engine.passes.forward import run_forward
from interpflow.engine.proofs.inner_proof import prove_attention, prove_neurons
from interpflow.engine.proofs.probe_pass import ProbePass, miss, noise, probe_ids, refuse
from interpflow.engine.proofs.resume_proof import CANNOT
from interpflow.engine.sites import Site
from interpflow.errors import UserError

# Rounding units of the model's dtype, times the size of the numbers, that an identity may miss by:
# a residual is a sum of three terms; logits and projections are sums of products.
SUM_UNITS, PRODUCT_UNITS = 8, 64


def prove(module: PreTrainedModel, architecture: Architecture) -> Architecture:
    """The map with every component either proven or in `refused` with the reason.

    Raises UserError, naming the module, when the residual stream itself cannot be proven, or when
    the model does not run at all.
    """
    ids = probe_ids(module, architecture)
    try:
        seen = ProbePass(module, architecture, ids)
    except CANNOT as error:
        raise UserError(
            f"the model does not run on a probe batch: {type(error).__name__}: {error}",
            where=architecture.family,
            remedy="check its configuration and the dtype it is loaded in",
        ) from error
    architecture = replace(architecture, block_returns_tuple=seen.block_returns_tuple)
    _prove_chain(architecture, seen)
    _prove_causal(module, architecture, seen)
    architecture = _prove_unembedding(architecture, seen)
    architecture = _prove_contributions(module, architecture, seen)
    architecture = _prove_heads(module, architecture, seen)
    architecture = _prove_middle(module, architecture, seen)
    architecture = prove_attention(module, architecture, seen)
    return prove_neurons(module, architecture, seen)


def _prove_chain(architecture: Architecture, seen: ProbePass) -> None:
    for left, right in zip(architecture.blocks, architecture.blocks[1:]):
        if not torch.equal(seen.outputs[left.block], seen.inputs[right.block]):
            raise UserError(
                f"the output of {left.name} is not the input of {right.name}",
                where=architecture.family,
                remedy="this architecture carries more than one residual stream: not supported",
            )


def _prove_causal(module: PreTrainedModel, architecture: Architecture, seen: ProbePass) -> None:
    """Everything rests on it: padding on the right, prefixes that are not run again."""
    ids = seen.ids.clone()
    ids[:, -1] = (ids[:, -1] + 1) % architecture.vocab_size
    logits = run_forward(module, architecture, ids).logits
    if not miss(logits[:, :-1], seen.logits[:, :-1]) <= PRODUCT_UNITS:
        raise UserError(
            "the last token changes the logits of the tokens before it",
            where=architecture.family,
            remedy="use a causal decoder",
        )


def _prove_unembedding(architecture: Architecture, seen: ProbePass) -> Architecture:
    last = seen.outputs[architecture.blocks[-1].block]
    misses = []
    for norm in dict.fromkeys((architecture.final_norm, None)):
        candidate = replace(architecture, final_norm=norm)
        with torch.no_grad():
            misses.append(miss(candidate.unembed(last), seen.logits))
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
    module: PreTrainedModel, architecture: Architecture, seen: ProbePass
) -> Architecture:
    """Find which modules' outputs are added to the residual stream, the same in every block."""
    closest = float("inf")
    for candidate in _candidates(architecture):
        off = max(_sum_miss(candidate, parts, seen) for parts in candidate.blocks)
        if off <= SUM_UNITS:
            off = _perturbed_sum_miss(module, candidate, seen.ids)
            if off <= SUM_UNITS:
                return candidate
        closest = min(closest, off)
    bare = [p.name for p in architecture.blocks if not (p.attention_outputs and p.mlp_outputs)]
    reason = (
        "block input + attention + MLP is not the block's output "
        f"(off by {closest:.3g} rounding units)"
    )
    if bare:
        reason = f"{bare[0]} has no attention, or no MLP, of a known name"
    return refuse(architecture, reason, "attn_out", "mlp_out", "resid_mid")


def _candidates(architecture: Architecture) -> Iterator[Architecture]:
    """The map with each choice of contributions and of their multiplier."""
    blocks = architecture.blocks
    for multiplier in dict.fromkeys((architecture.residual_multiplier, 1.0)):
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
                yield replace(architecture, blocks=picked, residual_multiplier=multiplier)


def _sum_miss(architecture: Architecture, parts: BlockParts, seen: ProbePass) -> float:
    terms = [seen.inputs[parts.block]]
    for part in (parts.attention_outputs[0], parts.mlp_outputs[0]):
        if part not in seen.outputs or seen.outputs[part].shape != terms[0].shape:
            return float("inf")
        terms.append(seen.outputs[part] * architecture.residual_multiplier)
    return miss(terms[0] + terms[1] + terms[2], seen.outputs[parts.block], *terms)


def _perturbed_sum_miss(module: PreTrainedModel, architecture: Architecture, ids: Tensor) -> float:
    layers = range(architecture.n_layers)
    parts = ("attn_out", "mlp_out")
    edits = [noise(Site(c, i), ids, architecture.d_model) for i in layers for c in parts]
    sites = [Site(c, i) for i in layers for c in ("resid_pre", *parts, "resid_post")]
    states = run_forward(module, architecture, ids, edits=edits, capture=sites).states
    misses = []
    for i in layers:
        terms = [states[Site(c, i)] for c in ("resid_pre", *parts)]
        found = terms[0] + terms[1] + terms[2]
        misses.append(miss(found, states[Site("resid_post", i)], *terms))
    return max(misses)


def _prove_heads(
    module: PreTrainedModel, architecture: Architecture, seen: ProbePass
) -> Architecture:
    """The head outputs, each through its part of the projection, sum to the attention output."""
    widths = set()
    for parts in architecture.blocks:
        projection = parts.attention_projection
        if projection is None or projection not in seen.inputs:
            return refuse(architecture, f"{parts.name} has no attention projection", "head_out")
        widths.add(seen.inputs[projection].shape[-1])
    if len(widths) != 1 or next(iter(widths)) % architecture.n_heads:
        reason = f"head widths {sorted(widths)} do not divide into {architecture.n_heads} heads"
        return refuse(architecture, reason, "head_out")
    proven = replace(architecture, head_dim=next(iter(widths)) // architecture.n_heads)
    layers, heads = range(proven.n_layers), range(proven.n_heads)
    edits = [
        noise(Site("head_out", i, h), seen.ids, proven.head_dim) for i in layers for h in heads
    ]
    noisy = ProbePass(module, proven, seen.ids, edits)
    for probe in (seen, noisy):
        for parts in proven.blocks:
            if _head_miss(parts, proven.n_heads, probe) > PRODUCT_UNITS:
                reason = f"the head outputs of {parts.attention_name} do not sum to its output"
                return refuse(architecture, reason, "head_out")
    return proven


def _head_miss(parts: BlockParts, n_heads: int, probe: ProbePass) -> float:
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
    # A module that adds the residual itself (BLOOM) has proven to contribute its projection.
    whole = projection if parts.attention_outputs == (projection,) else attention
    expected = probe.outputs[whole]
    if total.shape != expected.shape:
        return float("inf")
    return miss(total, expected)


def _prove_middle(
    module: PreTrainedModel, architecture: Architecture, seen: ProbePass
) -> Architecture:
    """Find whether the MLP reads what attention wrote: only then is there a residual between."""
    if "attn_out" in architecture.refused:
        return architecture
    reads = []
    for layer in {0, architecture.n_layers - 1}:
        edit = noise(Site("attn_out", layer), seen.ids, architecture.d_model)
        noisy = ProbePass(module, architecture, seen.ids, [edit])
        # What goes into the MLP, not what comes out: an MLP may give zeros whatever it reads.
        mlp = architecture.blocks[layer].mlp
        if mlp is not None and mlp in seen.inputs:
            reads.append(not torch.equal(noisy.inputs[mlp], seen.inputs[mlp]))
        else:
            out = architecture.blocks[layer].mlp_outputs[0]
            reads.append(not torch.equal(noisy.outputs[out], seen.outputs[out]))
    architecture = replace(architecture, parallel=not any(reads))
    if all(reads):
        return architecture
    return refuse(architecture, "attention and MLP of a block run in parallel", "resid_mid")
