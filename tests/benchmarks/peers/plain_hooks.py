"""The naive loop: one whole forward per site, a torch hook that edits. The reference for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.shapes import random_model
from tests.benchmarks.works import SweepWork

Run = Callable[[Tensor], Tensor]


def load_model(work: Any, place: Place) -> Any:
    """The transformers model; one that has no directory is made on the device."""
    if not place.directory:
        return random_model(work.shape, place.device, place.dtype)
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, place.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(place.directory, dtype=dtype)
    return model.to(device=place.device).eval()


def sweep(work: SweepWork, place: Place, n_sites: int, *, last_only: bool = False) -> Job:
    """Hooks on the transformers model; `last_only` asks for the last position's logits alone."""
    model = load_model(work, place)
    loop = _Loop(work, model, work.sample(n_sites), last_only)
    return loop_job(work, loop.sources, loop.patched, loop.sites)


def loop_job(
    work: SweepWork,
    sources: Callable[[], Tensor],
    patched: Callable[[Sequence[tuple[int, int]]], Tensor],
    sites: Sequence[tuple[int, int]],
) -> Job:
    """A job of a per-site loop. sources() runs clean and corrupted and returns the corrupted
    metric [pair]; patched(sites) returns the metric [site, pair]."""
    found: dict[str, Tensor] = {}

    def first() -> None:
        found["base"] = sources()

    def rest() -> None:
        found["patched"] = patched(sites)

    def values() -> np.ndarray:
        effects = found["patched"].double() - found["base"].double()
        return effects_grid(work, sites, effects.cpu().numpy())

    scale = len(work.sites()) / len(sites)
    note = "" if scale == 1 else f"{len(sites)} of {len(work.sites())} sites, scaled"
    return Job([Part("sources", first), Part("sites", rest, scale)], values, note)


def effects_grid(
    work: SweepWork, sites: Sequence[tuple[int, int]], effects: np.ndarray
) -> np.ndarray:
    """Effects [site, pair] as [pair, layer, position or head]; NaN where nothing was run."""
    grid = np.full(
        (work.n_pairs, work.shape.n_layers, len(work.sites()) // work.shape.n_layers), np.nan
    )
    for row, (layer, at) in zip(effects, sites):
        grid[:, layer, at] = row
    return grid


def logit_difference(logits: Tensor, answers: Tensor) -> Tensor:
    """logits [pair, vocab], answers [pair, 2] -> [pair]."""
    picked = logits.float().gather(1, answers)
    return picked[:, 0] - picked[:, 1]


def tensors(work: SweepWork, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """clean [pair, T], corrupted [pair, T], answers [pair, 2], all int64."""
    pairs = work.pairs()
    names = ("clean", "corrupted", "answers")
    clean, corrupted, answers = (
        torch.tensor([list(pair[name]) for pair in pairs], device=device) for name in names
    )
    return clean, corrupted, answers


def blocks(model: Any) -> Any:
    """The blocks of a GPT-2 or a Llama (a module list, or a library's wrapping of one)."""
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def output_projection(block: Any) -> Any:
    """Its input is the heads' outputs side by side."""
    return block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj


class _Loop:
    def __init__(
        self, work: SweepWork, model: Any, sites: list[tuple[int, int]], last_only: bool
    ) -> None:
        self.work, self.model, self.sites = work, model, sites
        self.options = {"use_cache": False, **({"logits_to_keep": 1} if last_only else {})}
        self.clean, self.corrupted, self.answers = tensors(work, str(model.device))
        self.states: list[Tensor] = []

    def metric(self, ids: Tensor) -> Tensor:
        return logit_difference(self.model(ids, **self.options).logits[:, -1], self.answers)

    @torch.no_grad()
    def sources(self) -> Tensor:
        states: list[Tensor] = []
        handles = [self.attach(layer, states.append) for layer in range(self.work.shape.n_layers)]
        try:
            self.metric(self.clean)
        finally:
            for handle in handles:
                handle.remove()
        self.states = states
        return self.metric(self.corrupted)

    @torch.no_grad()
    def patched(self, sites: Sequence[tuple[int, int]]) -> Tensor:
        return torch.stack([self.one(layer, at) for layer, at in sites])

    def one(self, layer: int, at: int) -> Tensor:
        donor = self.states[layer]
        size = self.work.shape.head_dim

        def edit(state: Tensor) -> Tensor:
            state = state.clone()
            if self.work.component == "head_out":
                columns = slice(at * size, (at + 1) * size)
                state[:, -1, columns] = donor[:, -1, columns]
            else:
                state[:, at] = donor[:, at]
            return state

        handle = self.attach(layer, edit)
        try:
            return self.metric(self.corrupted)
        finally:
            handle.remove()

    def attach(self, layer: int, function: Callable[[Tensor], Tensor | None]) -> Any:
        """Read or (when the function returns a tensor) replace the work's state at a layer."""
        block = blocks(self.model)[layer]
        if self.work.component == "resid_post":

            def after(_module: Any, _args: Any, output: Any) -> Any:
                bare = isinstance(output, Tensor)
                new = function(output if bare else output[0])
                if new is None:
                    return None
                return new if bare else (new, *output[1:])

            return block.register_forward_hook(after)

        def before(_module: Any, args: tuple) -> Any:
            new = function(args[0])
            return None if new is None else (new, *args[1:])

        head = self.work.component == "head_out"
        return (output_projection(block) if head else block).register_forward_pre_hook(before)
