"""Copies of a decoder with an anomaly planted in its blocks.

A copy is a model of its own, with its own list of blocks, configuration and map; the weights that
the anomaly leaves alone are shared with the model, which stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpflow.engine.architecture import Architecture, BlockParts, find_architecture
from interpflow.engine.interventions import Intervention, Scale, ZeroAblation
from interpflow.engine.model import Model
from interpflow.engine.proofs.component_proof import prove
from interpflow.engine.sites import Site
from interpflow.errors import UserError
from interpflow.plans.anomalies import Anomaly
from interpflow.plans.layer_plan import LayerPlan

# Lists of a configuration with an entry for each block, read by a model's loop over its blocks.
BLOCK_LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers", "attention_layers")
# Largest difference of what a scaled module writes from the factor times what it wrote, relative.
SCALE_TOLERANCE = 1e-3


def planted(model: Model, anomaly: Anomaly) -> Model:
    """A copy of a model with an anomaly; its map is proven anew.

    Raises UserError for blocks that the model does not have, for a part whose output projection is
    not known or cannot be scaled by its weights, and where the copy cannot be proven.
    """
    n_layers = model.n_layers
    LayerPlan.of(anomaly.blocks).check(n_layers, model.n_heads, where=f"anomaly {anomaly}")
    changed = anomaly.blocks if anomaly.kind in ("no_op", "scaled") else ()
    own = {id(p) for b in changed for p in model.architecture.blocks[b].block.parameters()}
    module: PreTrainedModel = _copied(model.module, own)
    if anomaly.kind in ("no_op", "scaled"):
        parts = _parts_like(model.architecture, module, anomaly.blocks[0])
        factor = 0.0 if anomaly.kind == "no_op" else anomaly.factor
        for part in ("attention", "mlp"):
            _scale_outputs(model.architecture, parts, part, factor)
    elif anomaly.kind == "swapped":
        first, second = anomaly.blocks
        order = list(range(n_layers))
        order[first], order[second] = second, first
        _arrange(module, model.architecture, order)
    else:
        block = anomaly.blocks[0]
        _arrange(module, model.architecture, [*range(block + 1), *range(block, n_layers)])
    module.eval()
    return Model(module, model.tokenizer, prove(module, find_architecture(module)))


def as_interventions(anomaly: Anomaly) -> list[Intervention]:
    """What does to the parts of the model as it was what a no-op or a scaled block does: another
    way to the same numbers, by hooks instead of weights. Empty for the other kinds."""
    sites = [Site(part, anomaly.blocks[0]) for part in ("attn_out", "mlp_out")]
    if anomaly.kind == "no_op":
        return [ZeroAblation(site) for site in sites]
    if anomaly.kind == "scaled":
        return [Scale(site, factor=anomaly.factor) for site in sites]
    return []


def _copied(module: Any, own: set[int]) -> Any:
    """A copy whose weights are shared but for those whose ids are in `own`."""
    shared = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(state): state for state in shared if id(state) not in own})


def _parts_like(architecture: Architecture, module: PreTrainedModel, block: int) -> BlockParts:
    """The parts of a block of a copy, as they were proven on the model."""
    proven = architecture.blocks[block]
    names = {part: name for name, part in proven.block.named_modules()}
    copied = module.get_submodule(proven.name)

    def like(part: nn.Module | None) -> nn.Module | None:
        return None if part is None else copied.get_submodule(names[part])

    return BlockParts(
        name=proven.name,
        block=copied,
        attention=like(proven.attention),
        attention_projection=like(proven.attention_projection),
        mlp=like(proven.mlp),
        mlp_projection=like(proven.mlp_projection),
        attention_outputs=tuple(copied.get_submodule(names[p]) for p in proven.attention_outputs),
        mlp_outputs=tuple(copied.get_submodule(names[p]) for p in proven.mlp_outputs),
        attention_name=proven.attention_name,
    )


def _scale_outputs(architecture: Architecture, parts: BlockParts, part: str, factor: float) -> None:
    """Multiply what a part writes by changing the weights of its last module."""
    component = "attn_out" if part == "attention" else "mlp_out"
    refused = architecture.refused.get(component)
    outputs = parts.attention_outputs if part == "attention" else parts.mlp_outputs
    projection = parts.attention_projection if part == "attention" else parts.mlp_projection
    whole = parts.attention if part == "attention" else parts.mlp
    if refused is not None or not outputs:
        raise UserError(
            f"what {part} writes is not known: {refused}",
            where=parts.name,
            remedy="plant swapped or duplicated blocks in this model",
        )
    # What is added to the residual stream is written by a norm, or else by the last projection.
    last = projection if outputs[0] is whole else outputs[0]
    if last is None:
        raise UserError(
            f"{part} has no output projection of a known name",
            where=parts.name,
            remedy="plant swapped or duplicated blocks in this model",
        )
    _scale_module(last, factor, f"{parts.name}, {type(last).__name__}")


def _scale_module(module: nn.Module, factor: float, where: str) -> None:
    """Multiply a module's output by a factor through its weights, and check that it is."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor):
        raise UserError(
            "an output without a weight cannot be scaled", where=where,
            remedy="plant swapped or duplicated blocks in this model",
        )  # fmt: skip
    # In a projection from [d_in] to [d_out], and in a norm over [d]; transposed ones (Conv1D) have
    # their inputs first.
    width = getattr(module, "in_features", None) or weight.shape[0 if weight.ndim > 1 else -1]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(4, width, generator=generator).to(weight)
    before, former = module(probe).detach(), weight.detach().clone()
    # Some norms multiply by 1 + weight (Gemma).
    for offset in (0.0, 1.0):
        with torch.no_grad():
            weight.copy_((former + offset) * factor - offset)
            if isinstance(bias, Tensor) and offset == 0.0:
                bias.mul_(factor)
            off = (module(probe) - before * factor).abs().max()
        if off <= SCALE_TOLERANCE * before.abs().max():
            return
    raise UserError(
        "its output is not scaled by its weight", where=where,
        remedy="plant swapped or duplicated blocks in this model",
    )  # fmt: skip


def _arrange(module: PreTrainedModel, architecture: Architecture, order: list[int]) -> None:
    """Give a copy its blocks in this order; a block that comes again is a copy that shares its
    weights. Each block knows its new place, by which caches are kept."""
    path = architecture.blocks[0].name.rpartition(".")[0]
    old = list(module.get_submodule(path))  # type: ignore[arg-type]
    new: list[nn.Module] = []
    for block in order:
        again = any(old[block] is other for other in new)
        new.append(_copied(old[block], set()) if again else old[block])
    for place, block in enumerate(new):
        _tell_place(block, place)
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, nn.ModuleList(new))
    for config in _configs(module):
        if len(order) != len(old):
            config.num_hidden_layers = len(order)
        for name in BLOCK_LISTS:
            entries = getattr(config, name, None)
            if not isinstance(entries, list | tuple) or len(entries) != len(old):
                continue
            try:
                setattr(config, name, type(entries)(entries[block] for block in order))
            except AttributeError as error:
                raise UserError(
                    f"the {name} of this model cannot be rearranged: {error}",
                    where=architecture.family,
                    remedy="use a decoder whose blocks are of one kind",
                ) from error


def _tell_place(block: nn.Module, place: int) -> None:
    for part in block.modules():
        if isinstance(getattr(part, "layer_idx", None), int):
            part.layer_idx = place  # type: ignore[assignment]


def _configs(module: PreTrainedModel) -> Iterable[Any]:
    """The configurations that the loop over blocks may read, each once. The copy's own ones."""
    found = [module.config, module.config.get_text_config(decoder=True)]
    found += [part.config for part in module.modules() if hasattr(part, "config")]
    known = {id(config): config for config in found}
    return [c for c in known.values() if hasattr(c, "num_hidden_layers")]
