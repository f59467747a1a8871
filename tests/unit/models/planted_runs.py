"""Runs of planted models: whole passes with plain hooks, and sweeps of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM

from interpflow.engine import Site, all_sites, load, sweep_sites
from interpflow.engine.metrics import logit_diff_metric
from interpflow.models.planted import (
    PlantedModel,
    PlantedPair,
    Task,
    planted_gpt2,
    planted_llama,
)
from interpflow.models.planted.heads import HEAD_DIM
from interpflow.models.planted.vocabulary import PROMPT_LENGTH

MAKERS: dict[str, Callable[[Task], PlantedModel]] = {"gpt2": planted_gpt2, "llama": planted_llama}


@cache
def planted(name: str, task: Task) -> PlantedModel:
    return MAKERS[name](task)


def tokens(pairs: Sequence[PlantedPair], side: str) -> Tensor:
    return torch.tensor([getattr(pair, side) for pair in pairs])


def projections(model: PlantedModel) -> list[nn.Module]:
    """What reads the heads of each layer: its input is [batch, position, head · HEAD_DIM]."""
    module = model.module
    if isinstance(module, GPT2LMHeadModel):
        return [block.attn.c_proj for block in module.transformer.h]  # type: ignore[union-attr]
    assert isinstance(module, LlamaForCausalLM)
    return [block.self_attn.o_proj for block in module.model.layers]  # type: ignore[union-attr]


def mlps(model: PlantedModel) -> list[nn.Module]:
    module = model.module
    if isinstance(module, GPT2LMHeadModel):
        return [block.mlp for block in module.transformer.h]  # type: ignore[union-attr]
    assert isinstance(module, LlamaForCausalLM)
    return [block.mlp for block in module.model.layers]  # type: ignore[union-attr]


def states(model: PlantedModel, ids: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Per layer the heads [batch, position, head, HEAD_DIM] and the MLP's output."""
    heads, outputs = [], []
    with ExitStack() as stack, torch.no_grad():
        for module in projections(model):
            hook = module.register_forward_pre_hook(lambda _m, args: heads.append(args[0]))
            stack.callback(hook.remove)
        for module in mlps(model):
            hook = module.register_forward_hook(lambda _m, _a, output: outputs.append(output))
            stack.callback(hook.remove)
        model.module(input_ids=ids)
    return [state.unflatten(-1, (-1, HEAD_DIM)) for state in heads], outputs


def logit_differences(
    model: PlantedModel,
    pairs: Sequence[PlantedPair],
    base: str,
    donor: str,
    heads: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Clean minus corrupted answer [pair] of the base run, with whole heads taken from the donor
    run at every position."""
    donors = states(model, tokens(pairs, donor))[0]

    def writer(layer: int) -> Callable:
        def write(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            state = args[0].unflatten(-1, (-1, HEAD_DIM)).clone()
            for at, head in heads:
                if at == layer:
                    state[:, :, head] = donors[layer][:, :, head]
            return (state.flatten(-2),)

        return write

    with ExitStack() as stack, torch.no_grad():
        for layer, module in enumerate(projections(model)):
            stack.callback(module.register_forward_pre_hook(writer(layer)).remove)
        logits = model.module(input_ids=tokens(pairs, base)).logits[:, -1]
    right, other = torch.tensor([pair.answers for pair in pairs]).unbind(1)
    rows = torch.arange(len(pairs))
    return (logits[rows, right] - logits[rows, other]).numpy()


def swept(
    model: PlantedModel,
    pairs: Sequence[PlantedPair],
    direction: str,
    *,
    sites: Sequence[Site] | None = None,
    positions: Sequence[int] = range(PROMPT_LENGTH),
    connected: bool = True,
) -> tuple[tuple[Site, ...], np.ndarray]:
    """Sites (heads and MLPs unless named) and effects [pair, site, position] of the engine's sweep
    on the logit difference. Not connected: the run is its own donor, as if no patch arrived."""
    engine = load(model.module)
    chosen = tuple(sites or all_sites(engine, ["head_out", "mlp_out"]))
    base, donor = ("corrupted", "clean") if direction == "denoise" else ("clean", "corrupted")
    metric = logit_diff_metric([p.answers[0] for p in pairs], [p.answers[1] for p in pairs])
    found = sweep_sites(
        engine,
        [getattr(pair, base) for pair in pairs],
        [getattr(pair, donor if connected else base) for pair in pairs],
        chosen,
        [[[place] for place in positions] for _ in pairs],
        metric,
    )
    return chosen, found.effect("logit_diff")
