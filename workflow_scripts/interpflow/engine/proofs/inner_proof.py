"""Proof that what is inside attention and the MLP is read and written where the sites say.

Every block is given the input that it has in the model's own pass, so that each layer is compared
by itself and errors do not add up. Queries, keys, values and patterns are then those of
`attention.attend`; the input of the attention's output projection, seen by a hook, must be what
the model's own attention gives it, and what pattern and values say it is, also while noise is
written in their place. The MLP's output must be the last projection of what is written before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture
from interpflow.engine.passes.attention import AttentionNotSupported, bypassing
from interpflow.engine.passes.edits import AnyEdit
from interpflow.engine.proofs.probe_pass import SMALLEST_UNIT, ProbePass, miss, noise, own, refuse
from interpflow.engine.proofs.resume_proof import CANNOT
from interpflow.engine.sites import ATTENTION_COMPONENTS, Site

# Rounding units that one block's attention or projection may miss by, and a whole pass.
LOCAL_UNITS, WHOLE_UNITS = 32, 512


def prove_attention(
    module: PreTrainedModel, architecture: Architecture, seen: ProbePass
) -> Architecture:
    """The map with q, k, v and pattern proven, or refused with the reason."""
    try:
        proven = _attention(module, architecture, seen)
    except AttentionNotSupported as error:
        proven = f"its attention cannot be taken over: {error}"
    except CANNOT as error:
        own = bypassing(module, architecture, seen.ids)
        if own is None:
            proven = f"its attention cannot be taken over ({type(error).__name__}: {error})"
        else:
            proven = (
                f"{own} computes attention by itself, not through the attention interface of "
                "transformers, so that its inside cannot be reached"
            )
    if isinstance(proven, str):
        return refuse(architecture, proven, *ATTENTION_COMPONENTS)
    return proven


def prove_neurons(
    module: PreTrainedModel, architecture: Architecture, seen: ProbePass
) -> Architecture:
    """The map with `mlp_act` proven, or refused with the reason."""
    widths = set()
    for parts in architecture.blocks:
        projection = parts.mlp_projection
        if projection is None or projection not in seen.inputs:
            reason = (
                f"the MLP of {parts.name} has no single last projection that runs once "
                "(a mixture of experts has one for each)"
            )
            return refuse(architecture, reason, "mlp_act")
        widths.add(seen.inputs[projection].shape[-1])
    if len(widths) != 1:
        return refuse(architecture, f"its MLPs have several widths {sorted(widths)}", "mlp_act")
    proven = replace(architecture, d_mlp=widths.pop())
    edits = [
        noise(Site("mlp_act", layer), seen.ids, proven.d_mlp) for layer in range(proven.n_layers)
    ]
    noisy = ProbePass(module, proven, seen.ids, edits)
    for probe in (seen, noisy):
        for layer, parts in enumerate(proven.blocks):
            if probe is noisy and not _holds(probe.inputs, parts.mlp_projection, edits[layer]):
                reason = f"what is written before the last projection of {parts.name} is lost"
                return refuse(architecture, reason, "mlp_act")
            if _projection_miss(parts.mlp, parts.mlp_projection, parts.mlp_outputs, probe):
                reason = f"the MLP of {parts.name} is more than its last projection"
                return refuse(architecture, reason, "mlp_act")
    return proven


def _holds(inputs: dict[nn.Module, Tensor], part: nn.Module | None, edit: Any) -> bool:
    assert part is not None
    return torch.equal(inputs[part].flatten(0, 1), edit.values.to(inputs[part]))


def _projection_miss(
    mlp: nn.Module | None,
    projection: nn.Module | None,
    outputs: tuple[nn.Module, ...],
    probe: ProbePass,
) -> bool:
    assert projection is not None
    with torch.no_grad():
        found = projection(probe.inputs[projection])
    whole = [part for part in (mlp, *outputs) if part in probe.outputs]
    return not any(
        found.shape == probe.outputs[part].shape
        and miss(found, probe.outputs[part], smallest=SMALLEST_UNIT) <= LOCAL_UNITS
        for part in whole
    )


def _attention(
    module: PreTrainedModel, architecture: Architecture, seen: ProbePass
) -> Architecture | str:
    if "head_out" in architecture.refused:
        return architecture.refused["head_out"]
    layers = range(architecture.n_layers)
    sites = {c: [Site(c, layer) for layer in layers] for c in ATTENTION_COMPONENTS}
    every = [site for group in sites.values() for site in group]
    forced = [own(Site("resid_pre", i), seen.inputs[architecture.blocks[i].block]) for i in layers]
    clean = ProbePass(module, architecture, seen.ids, forced, every)
    fault = _windows_fault(module, architecture, clean)
    if fault is not None:
        return fault
    sized = _sized(architecture, clean)
    if isinstance(sized, str):
        return sized
    for layer, parts in enumerate(architecture.blocks):
        projection = parts.attention_projection
        assert projection is not None
        gap = miss(clean.inputs[projection], seen.inputs[projection], smallest=SMALLEST_UNIT)
        if not gap <= LOCAL_UNITS:
            return f"{parts.attention_name} does something else than attention (off by {gap:.3g})"
        fault = _pattern_fault(sized, layer, clean)
        if fault is not None:
            return fault
    whole = ProbePass(module, sized, seen.ids, (), every)
    gap = miss(whole.logits, seen.logits, smallest=SMALLEST_UNIT)
    if not gap <= WHOLE_UNITS:
        return f"its attention, taken over, misses the logits by {gap:.3g} rounding units"
    written = ProbePass(module, sized, seen.ids, [own(s, whole.states[s]) for s in every])
    if not torch.equal(written.logits, whole.logits):
        return "writing its queries, keys, values and patterns back changes the logits"
    return _written_fault(module, sized, seen, forced, clean) or sized


def _written_fault(
    module: PreTrainedModel,
    architecture: Architecture,
    seen: ProbePass,
    forced: list[Any],
    clean: ProbePass,
) -> str | None:
    """What is wrong when noise is written: in values and patterns, then in queries and keys."""
    layers, length = range(architecture.n_layers), seen.ids.shape[1]
    for components in (("v", "pattern"), ("q", "k")):
        edits: list[AnyEdit] = [
            noise(Site(c, layer, head), seen.ids, architecture.width(Site(c, layer, head), length))
            for layer in layers
            for c in components
            for head in range(architecture.n_kv_heads if c in ("k", "v") else architecture.n_heads)
        ]
        capture = [Site(c, layer) for c in ATTENTION_COMPONENTS for layer in layers]
        noisy = ProbePass(module, architecture, seen.ids, [*forced, *edits], capture)
        for layer, parts in enumerate(architecture.blocks):
            if _recombined_miss(architecture, layer, noisy) > LOCAL_UNITS:
                return f"what is written in {parts.attention_name} does not reach its output"
            pattern = Site("pattern", layer)
            moved = (noisy.states[pattern] - clean.states[pattern]).abs().amax(dim=(0, 1, 3))
            if not bool((moved > 0).all()):
                return f"queries and keys written in {parts.attention_name} change no pattern"
    return None


def _sized(architecture: Architecture, clean: ProbePass) -> Architecture | str:
    """The map with the numbers and widths of heads that attention was called with."""
    shapes = {
        c: {clean.states[Site(c, layer)].shape[2] for layer in range(architecture.n_layers)}
        for c in ATTENTION_COMPONENTS
    }
    if any(len(found) != 1 for found in shapes.values()):
        return f"its blocks have attention of several widths {shapes}"
    queries, keys, values, heads = (shapes[c].pop() for c in ATTENTION_COMPONENTS)
    n_kv = values // architecture.head_dim if architecture.head_dim else 0
    if heads != architecture.n_heads or queries % heads or n_kv * architecture.head_dim != values:
        return f"attention has {heads} heads of queries, the map {architecture.n_heads}"
    width = queries // heads
    if n_kv == 0 or keys != n_kv * width or heads % n_kv:
        return f"{keys} and {values} features of keys and values do not divide into {heads} heads"
    return replace(architecture, key_dim=width, n_kv_heads=n_kv)


def _pattern_fault(architecture: Architecture, layer: int, clean: ProbePass) -> str | None:
    parts = architecture.blocks[layer]
    pattern = clean.states[Site("pattern", layer)].transpose(1, 2)
    if bool(pattern.triu(1).count_nonzero()):
        return f"{parts.attention_name} looks at later positions"
    total = pattern.double().sum(dim=-1)
    tolerance = LOCAL_UNITS * max(torch.finfo(pattern.dtype).eps, SMALLEST_UNIT)
    # A sink takes its share of the probability.
    sinks = hasattr(parts.attention, "sinks")
    if bool((total > 1 + tolerance).any()) or (not sinks and bool((total < 1 - tolerance).any())):
        return f"the pattern of {parts.attention_name} does not sum to 1"
    if _recombined_miss(architecture, layer, clean) > LOCAL_UNITS:
        return f"the head outputs of {parts.attention_name} are not its pattern times its values"
    return None


def _recombined_miss(architecture: Architecture, layer: int, probe: ProbePass) -> float:
    """Pattern times values, against what the output projection reads."""
    projection = architecture.blocks[layer].attention_projection
    assert projection is not None
    pattern = probe.states[Site("pattern", layer)].transpose(1, 2)
    values = probe.states[Site("v", layer)].unflatten(2, (architecture.n_kv_heads, -1))
    group = architecture.n_heads // architecture.n_kv_heads
    values = values.transpose(1, 2).repeat_interleave(group, dim=1)
    found = (pattern @ values).transpose(1, 2).flatten(2)
    return miss(found, probe.inputs[projection], values, smallest=SMALLEST_UNIT)


def _windows_fault(
    module: PreTrainedModel, architecture: Architecture, clean: ProbePass
) -> str | None:
    """A window wider than the probe shows only in what attention is called with: it must be what
    the configuration says of that layer."""
    declared = declared_windows(module, architecture.n_layers)
    if isinstance(declared, str):
        return declared
    for layer, (window, parts) in enumerate(zip(declared, architecture.blocks)):
        if clean.windows.get(layer) != window:
            return (
                f"{parts.attention_name} uses a window of {clean.windows.get(layer)} positions, "
                f"declared is {window}"
            )
    return None


def declared_windows(module: PreTrainedModel, n_layers: int) -> list[int | None] | str:
    """Per layer, the window of attention that the configuration declares (None: no limit), or the
    reason why a layer's attention is not of a kind that `attend` computes."""
    config: Any = module.config.get_text_config(decoder=True)
    if getattr(config, "attention_chunk_size", None):
        return "its attention works in chunks"
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if not types:
        return [window if getattr(config, "use_sliding_window", True) else None] * n_layers
    unknown = sorted(set(types) - {"full_attention", "sliding_attention"})
    if unknown:
        return f"block {types.index(unknown[0])} is of type {unknown[0]!r}"
    return [window if kind == "sliding_attention" else None for kind in types[:n_layers]]
