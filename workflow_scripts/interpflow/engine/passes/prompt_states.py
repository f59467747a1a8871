"""Whole prompts through the blocks, keeping the states that patched rows will start from.

Tokens that all prompts share from the first one on are run once. At the last block only keys and
values are needed of all positions but the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interpflow.engine.passes.attention import Segment
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.sites import KEY_VALUE_COMPONENTS, Site


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """Number of first tokens that all prompts have in common, the last token never among them."""
    shortest, first = min(map(len, prompts)), prompts[0]
    for place in range(shortest - 1):
        if any(prompt[place] != first[place] for prompt in prompts):
            return place
    return shortest - 1


def run_prompts(
    blocks: Blocks,
    ids: Tensor,
    *,
    shared: int = 0,
    residuals: Iterable[int] = (),
    capture: Iterable[Site] = (),
    keep: bool = False,
    last_only: bool = True,
) -> PromptStates:
    """Run token ids [row, position] of equal length whose first `shared` tokens are the same.

    residuals: blocks whose inputs are kept. capture: sites to keep. keep: keep keys and values.
    last_only: run the last block for the last position alone, unless keys or values of that block
    are captured; its inner states are then those of the last position only.
    """
    length = ids.shape[1]
    embedded = blocks.embed(ids)
    prefix, state = embedded[:1, :shared], embedded[:, shared:]
    wanted = set(residuals)
    by_layer: dict[int, list[Site]] = {}
    for site in capture:
        by_layer.setdefault(site.layer, []).append(site)
    found = PromptStates(shared, length)
    for layer in range(blocks.n_layers):
        last = layer == blocks.n_layers - 1
        sites = [s for s in by_layer.get(layer, ()) if s.component != "resid_pre"]
        if layer in wanted:
            found.residuals[layer] = state
        if Site("resid_pre", layer) in by_layer.get(layer, ()):
            found.captured[Site("resid_pre", layer)] = (state, shared)
        before: list[Segment] = []
        if shared and last:
            before = [blocks.keys_values(layer, prefix, 0, length)]
        elif shared:
            part = blocks.run(layer, prefix, 0, length, keep=True)
            assert part.kept is not None
            prefix, before = part.states, [part.kept]
        if keep and before:
            found.prefix[layer] = before[0]
        whole = not last_only or any(s.component in KEY_VALUE_COMPONENTS for s in sites)
        first = shared
        if last and not whole and length - shared > 1:
            own = blocks.keys_values(layer, state[:, :-1], shared, length)
            before, state, first = [*before, own], state[:, -1:], length - 1
            if keep:
                found.own[layer] = own
        result = blocks.run(layer, state, first, length, segments=before, keep=keep, capture=sites)
        state = result.states
        if keep and layer not in found.own and result.kept is not None:
            found.own[layer] = result.kept
        for site, captured in result.captured.items():
            found.captured[site] = (captured, first)
    found.last = state[:, -1]
    return found


def joined(parts: Sequence[PromptStates]) -> PromptStates:
    """States of several batches of prompts with the same shared tokens, rows one after another."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return PromptStates(
        first.shared,
        first.length,
        {i: torch.cat([p.residuals[i] for p in parts]) for i in first.residuals},
        first.prefix,
        {
            i: Segment(
                torch.cat([p.own[i].keys for p in parts]),
                torch.cat([p.own[i].values for p in parts]),
            )
            for i in first.own
        },
        {
            site: (torch.cat([p.captured[site][0] for p in parts]), place)
            for site, (_, place) in first.captured.items()
        },
        torch.cat([p.last for p in parts]),
    )


@dataclass(eq=False)
class PromptStates:
    """What was kept of prompts [row, position] whose first `shared` tokens are the same.

    residuals: block -> its input [row, position - shared, d_model]. prefix: block -> keys and
    values of the shared positions, one row. own: those of the later positions, all rows (of the
    last block perhaps without the last position). captured: site -> (states, position of its
    place 0). last: output of the last block at the last position, [row, d_model].
    """

    shared: int
    length: int
    residuals: dict[int, Tensor] = field(default_factory=dict)
    prefix: dict[int, Segment] = field(default_factory=dict)
    own: dict[int, Segment] = field(default_factory=dict)
    captured: dict[Site, tuple[Tensor, int]] = field(default_factory=dict)
    last: Tensor = field(default_factory=lambda: torch.empty(0))

    def before(self, layer: int, position: int, rows: Tensor | None) -> list[Segment]:
        """Keys and values of the positions before `position`, for these rows (all if None)."""
        found = [self.prefix[layer].before(position)] if layer in self.prefix else []
        if position > self.shared:
            own = self.own[layer].before(position - self.shared)
            found.append(own if rows is None else Segment(own.keys[rows], own.values[rows]))
        return found
