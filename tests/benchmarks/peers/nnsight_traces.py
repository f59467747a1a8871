"""nnsight 0.8: one trace per site, as its documentation patches."""

# The peers lie in an environment of their own.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nnsight import save
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor

from tests.benchmarks.job import Job, Place
from tests.benchmarks.peers.plain_hooks import (
    blocks,
    load_model,
    logit_difference,
    loop_job,
    output_projection,
    tensors,
)
from tests.benchmarks.works import SweepWork


def load_traced(work: Any, place: Place) -> Any:
    """The traced model around the same weights."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place.directory) if place.directory else None
    return TransformersModel(load_model(work, place), task="text-generation", tokenizer=tokenizer)


def sweep(work: SweepWork, place: Place, n_sites: int) -> Job:
    """A trace that reads every layer of the clean run, then one trace per site."""
    model = load_traced(work, place)
    clean, corrupted, answers = tensors(work, place.device)
    kept: dict[str, list[Tensor]] = {}
    size = work.shape.head_dim
    component = work.component
    layers = blocks(model)

    @torch.no_grad()
    def sources() -> Tensor:
        with model.trace(clean, use_cache=False):
            states = save([])
            for block in layers:
                if component == "head_out":
                    states.append(output_projection(block).input)
                elif component == "resid_pre":
                    states.append(block.input)
                else:
                    states.append(block.output)
        kept["states"] = list(states)
        with model.trace(corrupted, use_cache=False):
            logits = save(model.output.logits[:, -1])
        return logit_difference(logits, answers)

    @torch.no_grad()
    def patched(sites: Sequence[tuple[int, int]]) -> Tensor:
        values = []
        for layer, at in sites:
            donor = kept["states"][layer]
            block = layers[layer]
            with model.trace(corrupted, use_cache=False):
                if component == "head_out":
                    state = output_projection(block).input
                    begin, end = at * size, (at + 1) * size
                    state[:, -1, begin:end] = donor[:, -1, begin:end]
                elif component == "resid_pre":
                    block.input[:, at] = donor[:, at]
                else:
                    block.output[:, at] = donor[:, at]
                logits = save(model.output.logits[:, -1])
            values.append(logit_difference(logits, answers))
        return torch.stack(values)

    return loop_job(work, sources, patched, work.sample(n_sites))
