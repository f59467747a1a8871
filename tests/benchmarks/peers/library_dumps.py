"""The same dump by TransformerLens and nnsight, their states saved by torch."""

# The peers lie in an environment of their own.
# pyright: reportMissingImports=false
from __future__ import annotations

import torch
from torch import Tensor

from tests.benchmarks.job import Job, Place
from tests.benchmarks.peers.plain_dumps import kept, saved_dump
from tests.benchmarks.peers.plain_hooks import blocks
from tests.benchmarks.works import DumpWork


def transformer_lens(work: DumpWork, place: Place) -> Job:
    """`run_with_cache` with a filter: without one it keeps every hook point."""
    from tests.benchmarks.peers.transformer_lens_bridge import load_bridge

    bridge = load_bridge(work, place)
    layers = range(work.shape.n_layers)
    states = [f"blocks.{i}.hook_resid_pre" for i in layers]
    states.append(f"blocks.{work.shape.n_layers - 1}.hook_resid_post")
    patterns = [f"blocks.{i}.attn.hook_pattern" for i in layers]
    wanted = {*states, *patterns}

    @torch.no_grad()
    def forward(ids: Tensor) -> dict[str, Tensor]:
        logits, cache = bridge.run_with_cache(ids, names_filter=lambda name: name in wanted)
        rows = torch.stack([cache[name][:, :, -1] for name in patterns], 1)
        return kept([cache[name] for name in states], rows, logits, work.top)

    return saved_dump(work, place, forward, "transformer_lens")


def nnsight(work: DumpWork, place: Place) -> Job:
    """One trace per batch; attention needs the eager implementation."""
    from nnsight import save

    from tests.benchmarks.peers.nnsight_traces import load_traced

    model = load_traced(work, place)
    model._module.set_attn_implementation("eager")
    layers = blocks(model)

    @torch.no_grad()
    def forward(ids: Tensor) -> dict[str, Tensor]:
        with model.trace(ids, use_cache=False):
            states, rows = save([]), save([])
            states.append(layers[0].input)
            for block in layers:
                attention = block.attn if hasattr(block, "attn") else block.self_attn
                rows.append(attention.output[1][:, :, -1])
                states.append(block.output)
            logits = save(model.output.logits)
        return kept(list(states), torch.stack(list(rows), 1), logits, work.top)

    return saved_dump(work, place, forward, "nnsight")
