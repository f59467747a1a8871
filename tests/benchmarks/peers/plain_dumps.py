"""A plain forward, and what transformers alone offers to keep its states."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.clock import timed
from tests.benchmarks.job import Job, Part, Place
from tests.benchmarks.peers.plain_hooks import load_model
from tests.benchmarks.shapes import scratch
from tests.benchmarks.works import DumpWork

READ_REPEATS = 50


def plain_forward(work: DumpWork, place: Place) -> Job:
    """Logits at all positions and nothing kept: what the dump's rate is compared with."""
    model = load_model(work, place)
    last: dict[str, Tensor] = {}

    @torch.no_grad()
    def run() -> None:
        for ids in batches(work, place.device):
            last["logits"] = model(ids, use_cache=False).logits

    def values() -> np.ndarray:
        return np.zeros(0)

    return Job([Part("forward", run)], values, facts=lambda: {"tokens": n_tokens(work)})


def hidden_states(work: DumpWork, place: Place) -> Job:
    """`output_hidden_states` and `output_attentions` (which need eager attention), saved by torch.

    The last of these hidden states is already normed: the last block's own output is not in it.
    """
    model = load_model(work, place)
    model.set_attn_implementation("eager")

    @torch.no_grad()
    def forward(ids: Tensor) -> dict[str, Tensor]:
        out = model(ids, use_cache=False, output_hidden_states=True, output_attentions=True)
        rows = torch.stack([a[:, :, -1] for a in out.attentions], 1)
        return kept(out.hidden_states, rows, out.logits, work.top)

    return saved_dump(work, place, forward, "transformers")


def kept(
    states: tuple[Tensor, ...] | list[Tensor], rows: Tensor, logits: Tensor, top: int
) -> dict[str, Tensor]:
    """What the work asks for of one batch: states [layer, batch, position, d] and attention in
    fp16, the top logits with their ids."""
    best = logits.topk(top, dim=-1)
    return {
        "states": torch.stack([s.half() for s in states]).cpu(),
        "attention": rows.half().cpu(),
        "top_logits": best.values.cpu(),
        "top_ids": best.indices.cpu(),
    }


def saved_dump(
    work: DumpWork, place: Place, forward: Callable[[Tensor], dict[str, Tensor]], folder: str
) -> Job:
    """A dump of one torch.save per batch."""
    target = scratch() / "dumps" / work.shape.name / folder

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for index, ids in enumerate(batches(work, place.device)):
            torch.save(forward(ids), target / f"{index:05d}.pt")

    def facts() -> dict[str, Any]:
        return {
            "tokens": n_tokens(work),
            "bytes_per_token": folder_bytes(target) // n_tokens(work),
            "read_ms": read_milliseconds(lambda i: read(target, i, work)),
            "read_mmap_ms": read_milliseconds(lambda i: read(target, i, work, mmap=True)),
        }

    return Job([Part("dump", run)], lambda: read_states(target, work), facts=facts)


def read(target: Path, prompt: int, work: DumpWork, *, mmap: bool = False) -> Tensor:
    """The middle layer of one prompt, [position, d] fp16."""
    index, row = divmod(prompt % work.n_prompts, work.batch)
    states = torch.load(target / f"{index:05d}.pt", weights_only=True, mmap=mmap)["states"]
    return states[work.shape.n_layers // 2, row].clone()


def read_states(target: Path, work: DumpWork) -> np.ndarray:
    """The first batch, [prompt, layer, position, d], to compare the ways with each other."""
    states = torch.load(target / "00000.pt", weights_only=True)["states"]
    return states[: work.shape.n_layers].permute(1, 0, 2, 3).float().numpy()


def read_milliseconds(read_one: Callable[[int], object]) -> float:
    """Median wall time of reading one layer of one prompt, prompts in a scattered order."""
    times = [timed(lambda i=i: read_one(i * 37))["wall_s"] for i in range(READ_REPEATS)]
    return round(1000 * float(np.median(times)), 4)


def batches(work: DumpWork, device: str) -> list[Tensor]:
    """int64 [batch, position] tensors of all prompts."""
    return list(torch.tensor(work.prompts(), device=device).split(work.batch))


def n_tokens(work: DumpWork) -> int:
    """Tokens of all prompts."""
    return work.n_prompts * work.length


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
