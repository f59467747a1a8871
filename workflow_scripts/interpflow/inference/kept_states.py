"""One batch of prompts of equal length: what is to be kept of it, site by site, as it comes.

Where the model's blocks are proven to run one at a time, each state is handed on as soon as its
block has run, blocks that nothing depends on are left out, and the last block that is needed runs
from the first kept position on. Any other model runs whole, with hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.model import Model
from interpflow.engine.passes.attention import Segment
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.passes.forward import run_forward
from interpflow.engine.sites import Site
from interpflow.inference.top_logits import TopLogits

TOP_LOGITS, TOP_IDS = "top_logits", "top_ids"

Put = Callable[[str, Tensor], None]


def pattern_name(query: str, layer: int) -> str:
    """Name of a query's attention in a layer."""
    return f"pattern_{query}.L{layer}"


def run_batch(
    model: Model,
    blocks: Blocks | None,
    ids: Tensor,
    kept: KeptPlaces,
    wanted: Wanted,
    put: Put,
    top: TopLogits | None = None,
) -> None:
    """Run token ids [batch, position] once and `put(name, values)` everything wanted, values
    [kept token, width] row after row. What is put may be changed by what runs next: copy it.
    `top` searches for the `wanted.top_k` logits; handed over so that its memory is used again.

    Raises RuntimeError when a hook or the attention did not run exactly once.
    """
    with torch.no_grad():
        if blocks is not None:
            residual = _run_blocks(blocks, ids, kept, wanted, put)
        else:
            residual = _run_whole(model, ids, kept, wanted, put)
        if wanted.top_k:
            search = top or TopLogits(model.architecture, wanted.top_k)
            logits, tokens = search.of(residual)
            put(TOP_LOGITS, logits)
            put(TOP_IDS, tokens)


def _run_blocks(blocks: Blocks, ids: Tensor, kept: KeptPlaces, wanted: Wanted, put: Put) -> Tensor:
    """Returns the residual after the last block that ran, at the kept places [token, d_model]."""
    length, n_blocks = ids.shape[1], wanted.n_blocks(blocks.n_layers)
    state, first = blocks.embed(ids), 0
    if Site("embed") in wanted.sites:
        put("embed", kept.of(state))
    for layer in range(n_blocks):
        sites = [s for s in wanted.sites if s.layer == layer and s.component != "embed"]
        before, after = Site("resid_pre", layer), Site("resid_post", layer)
        if before in sites:
            put(str(before), kept.of(state))
        earlier: tuple[Segment, ...] = ()
        if layer == n_blocks - 1 and kept.first:
            first = kept.first
            earlier = (blocks.keys_values(layer, state[:, :first], 0, length),)
            state = state[:, first:]
        inner = [site for site in sites if site not in (before, after)]
        asked = None
        if layer in wanted.pattern_layers:
            asked = (kept.queries - first).clamp_(min=0)
        result = blocks.run(
            layer,
            state,
            first,
            length,
            segments=earlier,
            capture=inner,
            pattern_rows=asked,
        )
        state = result.states
        for site, values in result.captured.items():
            put(str(site), kept.of(values, first))
        if result.pattern is not None:
            for number, query in enumerate(wanted.queries):
                paid = kept.of(result.pattern[:, number].transpose(1, 2))
                put(pattern_name(query, layer), kept.asked(paid, number, first))
        if after in sites:
            put(str(after), kept.of(state, first))
    if wanted.top_k or n_blocks == 0:
        return kept.of(state, first)
    return state


def _run_whole(model: Model, ids: Tensor, kept: KeptPlaces, wanted: Wanted, put: Put) -> Tensor:
    """Returns the residual after the last block at the kept places [token, d_model]."""
    batch, length = ids.shape
    final = Site("resid_post", model.n_layers - 1)
    patterns = [Site("pattern", layer) for layer in wanted.pattern_layers]
    capture = [*wanted.sites, *patterns, *([final] if wanted.top_k else [])]
    result = run_forward(
        model.module,
        model.architecture,
        ids,
        capture=capture,
        captured_places=kept.with_queries(batch, length),
        logits_at=torch.full((batch,), length - 1, device=ids.device),
    )
    for site in wanted.sites:
        put(str(site), result.states[site][kept.rows, kept.slots])
    for site in patterns:
        for number, query in enumerate(wanted.queries):
            pattern = result.states[site][:, number - len(wanted.queries)].transpose(1, 2)
            put(pattern_name(query, site.layer), kept.asked(kept.of(pattern), number, 0))
    if not wanted.top_k:
        return ids.new_empty(0)
    return result.states[final][kept.rows, kept.slots]


@dataclass(frozen=True)
class Wanted:
    """What is kept of every kept token: states of sites, in `pattern_layers` the attention that
    each of the prompt's `queries` (their names) pays to it, and the `top_k` largest logits."""

    sites: tuple[Site, ...]
    pattern_layers: tuple[int, ...] = ()
    queries: tuple[str, ...] = ()
    top_k: int = 0

    def n_blocks(self, n_layers: int) -> int:
        """How many blocks have to run, of `n_layers`."""
        if self.top_k:
            return n_layers
        inputs = ("embed", "resid_pre")
        ends = [s.layer + (s.component not in inputs) for s in self.sites]
        return max([*ends, *(layer + 1 for layer in self.pattern_layers)], default=0)


@dataclass(frozen=True, eq=False)
class KeptPlaces:
    """The kept tokens of a batch, prompts one after the other: row, place and number within its
    row (int64 [token] each, on the model's device); first: the smallest place; all: every token of
    the batch, in order. queries: int64 [batch, query], the place of each; −1: the row has none."""

    rows: Tensor
    places: Tensor
    slots: Tensor
    first: int
    all: bool
    queries: Tensor

    def of(self, state: Tensor, first: int = 0) -> Tensor:
        """The kept tokens' part [token, d] of a state [batch, position, d] whose place 0 is
        position `first`."""
        if self.all and first == 0:
            return state.flatten(0, 1)
        return state[self.rows, self.places - first]

    def asked(self, paid: Tensor, number: int, first: int) -> Tensor:
        """Attention [token, head] that a query pays to the kept tokens, 0 in rows without it.
        In a pass from place `first` on, an earlier query is none: it looks at no kept token."""
        absent = self.queries[:, number] < first
        if not bool(absent.any()):
            return paid
        return paid.masked_fill(absent[self.rows, None], 0)

    def with_queries(self, batch: int, length: int) -> Tensor:
        """int64 [batch, n]: the kept places of each row, whatever fills the row up to one width,
        then the places of the queries."""
        width = int(self.slots.max()) + 1
        places = torch.full((batch, width), length - 1, device=self.rows.device)
        places[self.rows, self.slots] = self.places
        return torch.cat([places, self.queries.clamp(min=0)], dim=1)
