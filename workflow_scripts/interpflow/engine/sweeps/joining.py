"""Patched rows of one first position, run together: each joins at the block that it patches.

A patch at block l and position p changes nothing before l and p. So the rows of a pass hold the
positions from p on, read the recipient's keys and values of the positions before p, and enter the
pass at block l with the recipient's own residual. At the last block only the last position goes
further than keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.passes.attention import Segment
from interpflow.engine.passes.blocks import Blocks, PackedPart
from interpflow.engine.passes.prompt_states import PromptStates
from interpflow.engine.passes.recorder import Edit
from interpflow.engine.sites import KEY_VALUE_COMPONENTS, Site
from interpflow.engine.sweeps.plan import Row


def plan_passes(rows: Sequence[Row], n_layers: int, max_tokens: int, length: int) -> list[Pass]:
    """Passes for the rows of one chunk of pairs, at most about `max_tokens` token places each.

    All pairs of a pass patch the same sites and groups, so that the pass is a full table
    [entry, pair] and the keys and values of a pair serve all its rows uncopied.
    """
    by_first: dict[int, dict[int, list[Row]]] = {}
    for row in rows:
        by_first.setdefault(row.positions[0], {}).setdefault(row.pair, []).append(row)
    passes: list[Pass] = []
    for first in sorted(by_first):
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for pair, mine in by_first[first].items():
            mine.sort(key=lambda row: (_join_layer(row.place, n_layers), row.site_index, row.group))
            key = tuple((row.site_index, row.group) for row in mine)
            alike.setdefault(key, []).append(pair)
        max_rows = max(1, max_tokens // (length - first))
        for key, pairs in alike.items():
            n_pairs = min(len(pairs), max_rows)
            n_entries = max(1, max_rows // n_pairs)
            for a in range(0, len(pairs), n_pairs):
                chosen = pairs[a : a + n_pairs]
                for b in range(0, len(key), n_entries):
                    entries = tuple(
                        Entry(by_first[first][chosen[0]][e].place,
                              tuple(by_first[first][pair][e] for pair in chosen))
                        for e in range(b, min(b + n_entries, len(key)))
                    )  # fmt: skip
                    passes.append(Pass(first, tuple(chosen), entries))
    return passes


def packs(passes: Sequence[Pass], length: int, max_tokens: int) -> Iterator[list[Pass]]:
    """Passes that run together, at most about `max_tokens` token places at once."""
    pack: list[Pass] = []
    n_tokens = 0
    for plan in passes:
        size = len(plan.entries) * len(plan.pairs) * (length - plan.first)
        if pack and n_tokens + size > max_tokens:
            yield pack
            pack, n_tokens = [], 0
        pack.append(plan)
        n_tokens += size
    if pack:
        yield pack


def run_pack(
    blocks: Blocks,
    plans: Sequence[Pass],
    base: PromptStates,
    values: dict[Site, tuple[Tensor, int]],
    local: dict[int, int],
) -> tuple[list[Tensor], int]:
    """Per pass the residuals after the last block at the last position, [entry x pair, d_model];
    and the number of block-token places run.

    values: per site what is written, [pair, position, ...], and the position of its place 0.
    local: number of each pair within the chunk.
    """
    n_layers = blocks.n_layers
    running = [_Running(blocks, plan, base, values, local) for plan in plans]
    for layer in range(min(run.joins[0] for run in running), n_layers):
        for run in running:
            run.join(layer)
        live = [run for run in running if run.state is not None]
        if layer < n_layers - 1:
            _run_block(blocks, layer, live, base.length)
        else:
            _run_last_block(blocks, live, base.length)
    for run in running:
        run.join(n_layers)
    found = [run.state[:, -1] for run in running if run.state is not None]
    return found, sum(run.n_block_tokens for run in running)


def _run_block(blocks: Blocks, layer: int, live: Sequence[_Running], length: int) -> None:
    parts = [run.part(layer) for run in live]
    edits = _packed_edits(layer, live, [part.states.shape[1] for part in parts])
    for run, state in zip(live, blocks.run_packed(layer, parts, length, edits=edits)):
        assert isinstance(state, Tensor)
        run.state = state


def _run_last_block(blocks: Blocks, live: Sequence[_Running], length: int) -> None:
    """Keys and values of all positions but the last; then the last one alone."""
    layer = blocks.n_layers - 1
    longer = [run for run in live if run.places > 1]
    own: dict[int, Segment] = {}
    if longer:
        parts = [run.part(layer, slice(None, -1)) for run in longer]
        widths = [run.places - 1 for run in longer]
        edits = _packed_edits(layer, longer, widths)
        kept = blocks.run_packed(layer, parts, length, edits=edits, keys_only=True)
        own = {id(run): found for run, found in zip(longer, kept) if isinstance(found, Segment)}
    finals = []
    for run in live:
        part = run.part(layer, slice(-1, None))
        mine = [own[id(run)]] if id(run) in own else []
        finals.append(PackedPart(part.states, length - 1, [*part.segments, *mine]))
    edits = _packed_edits(layer, live, [1] * len(live), last=True)
    for run, state in zip(live, blocks.run_packed(layer, finals, length, edits=edits)):
        assert isinstance(state, Tensor)
        run.state = state


def _packed_edits(
    layer: int, live: Sequence[_Running], widths: Sequence[int], *, last: bool = False
) -> list[Edit]:
    """Edits of keys and values at the first `width` places of each pass (at the last place, if
    `last`), addressed in the packed row."""
    edits: list[Edit] = []
    start = 0
    for run, width in zip(live, widths):
        assert run.state is not None
        for edit in run.key_value_edits(layer):
            places = edit.places - (run.places - 1 if last else 0)
            kept = (places >= 0) & (places < width)
            if bool(kept.any()):
                packed = start + edit.rows[kept] * width + places[kept]
                edits.append(Edit(edit.site, torch.zeros_like(packed), packed, edit.values[kept]))
        start += run.state.shape[0] * width
    return edits


def _join_layer(place: Site, n_layers: int) -> int:
    """The first block that runs on all positions of a row patched at a canonical site."""
    if place.component == "resid_post":
        return n_layers
    if place.component == "resid_pre" or place.component in KEY_VALUE_COMPONENTS:
        return place.layer
    return place.layer + 1


@dataclass(frozen=True)
class Entry:
    """The same site and group in every pair of a pass; `rows` has one row per pair."""

    place: Site
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Pass:
    """Rows that begin at position `first`: entry-major, row e * len(pairs) + j is entry e of
    pairs[j]; entries are ordered by the block at which they join."""

    first: int
    pairs: tuple[int, ...]
    entries: tuple[Entry, ...]

    def rows(self) -> Iterator[Row]:
        for entry in self.entries:
            yield from entry.rows


class _Running:
    """One pass under way."""

    def __init__(
        self,
        blocks: Blocks,
        plan: Pass,
        base: PromptStates,
        values: dict[Site, tuple[Tensor, int]],
        local: dict[int, int],
    ) -> None:
        self.blocks, self.plan, self.base, self.values = blocks, plan, base, values
        self.local = local
        self.n_pairs, self.places = len(plan.pairs), base.length - plan.first
        self.device = blocks.architecture.device
        chosen = [local[pair] for pair in plan.pairs]
        everyone = chosen == list(range(len(base.last)))
        self.which = None if everyone else torch.tensor(chosen, device=self.device)
        self.n_block_tokens = 0
        self.joins = [_join_layer(entry.place, blocks.n_layers) for entry in plan.entries]
        self.state: Tensor | None = None
        self.keyed: list[tuple[Entry, int]] = []

    def part(self, layer: int, places: slice = slice(None)) -> PackedPart:
        """The live rows at some of the pass's places, and what comes before the first place."""
        assert self.state is not None
        state = self.state[:, places]
        self.n_block_tokens += state.shape[0] * state.shape[1]
        segments = self.base.before(layer, self.plan.first, self.which)
        return PackedPart(state, self.plan.first, segments)

    def join(self, layer: int) -> None:
        """Add the rows that enter at this block to the live ones."""
        entries = [e for e, join in zip(self.plan.entries, self.joins) if join == layer]
        if not entries:
            return
        written = [e for e in entries if e.place.component in ("resid_pre", "resid_post")]
        keyed = [e for e in entries if e.place.component in KEY_VALUE_COMPONENTS]
        inner = [e for e in entries if e not in written and e not in keyed]
        # The order of the entries is the order of the rows.
        made: dict[int, Tensor] = {}
        for group, make in ((written, self._written), (keyed, self._keyed), (inner, self._inner)):
            if group:
                for entry, rows in zip(group, make(group).split(self.n_pairs)):
                    made[id(entry)] = rows
        before = 0 if self.state is None else self.state.shape[0] // self.n_pairs
        self.keyed = [(e, before + i) for i, e in enumerate(entries) if e in keyed]
        parts = [] if self.state is None else [self.state]
        self.state = torch.cat([*parts, *(made[id(entry)] for entry in entries)])

    def _written(self, entries: Sequence[Entry]) -> Tensor:
        """Recipients' residuals with the patched positions replaced."""
        place = entries[0].place
        if place.component == "resid_post":
            # Nothing moves between positions any more: only the last one is live.
            state = self._chosen(self.base.last[:, None]).repeat(len(entries), 1, 1)
            offset = self.base.length - 1
        else:
            state = self._residual(place.layer).repeat(len(entries), 1, 1)
            offset = self.plan.first
        for i, entry in enumerate(entries):
            rows, positions, pairs = self._index(entry, i)
            state[rows, positions - offset] = self._values(entry.place, pairs, positions).to(state)
        return state

    def _keyed(self, entries: Sequence[Entry]) -> Tensor:
        return self._residual(entries[0].place.layer).repeat(len(entries), 1, 1)

    def _inner(self, entries: Sequence[Entry]) -> Tensor:
        """Run the patched block where it is patched; the positions between keep the recipient's
        states, because keys and values of the block are not changed."""
        layer, first, length = entries[0].place.layer, self.plan.first, self.base.length
        stop = 1 + max(row.positions[-1] for entry in entries for row in entry.rows)
        state = self._residual(layer)[:, : stop - first].repeat(len(entries), 1, 1)
        indices = [self._index(entry, i) for i, entry in enumerate(entries)]
        edits: list[Edit] = []
        for place in dict.fromkeys(entry.place for entry in entries):
            mine = [found for entry, found in zip(entries, indices) if entry.place == place]
            rows, positions, pairs = (torch.cat(parts) for parts in zip(*mine))
            values = self._values(place, pairs, positions)
            if place.component == "pattern":
                values = values[..., :stop]
            edits.append(Edit(place, rows, positions - first, values))
        segments = self.base.before(layer, first, self.which)
        self.n_block_tokens += state.shape[0] * state.shape[1]
        result = self.blocks.run(layer, state, first, length, segments=segments, edits=edits)
        rows, positions, _ = (torch.cat(parts) for parts in zip(*indices))
        if layer == self.blocks.n_layers - 1:
            return result.states[:, -1:]
        after = self._residual(layer + 1).repeat(len(entries), 1, 1)
        after[rows, positions - first] = result.states[rows, positions - first]
        return after

    def _residual(self, layer: int) -> Tensor:
        """Recipients' block inputs from the pass's first position on, [pair, position, d]."""
        return self._chosen(self.base.residuals[layer][:, self.plan.first - self.base.shared :])

    def _chosen(self, state: Tensor) -> Tensor:
        """The pass's pairs out of all pairs of the chunk."""
        return state if self.which is None else state[self.which.to(state.device)]

    def _index(self, entry: Entry, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """(row of the pass, position, pair of the chunk) of every patched place, int64 [n]."""
        found = [
            (number * self.n_pairs + j, position, self.local[row.pair])
            for j, row in enumerate(entry.rows)
            for position in row.positions
        ]
        index = torch.tensor(found, device=self.device)
        return index[:, 0], index[:, 1], index[:, 2]

    def _values(self, place: Site, pairs: Tensor, positions: Tensor) -> Tensor:
        values, offset = self.values[place]
        return values[pairs.to(values.device), positions.to(values.device) - offset]

    def key_value_edits(self, layer: int) -> list[Edit]:
        edits = []
        for entry, number in self.keyed:
            if entry.place.layer == layer:
                rows, positions, pairs = self._index(entry, number)
                values = self._values(entry.place, pairs, positions)
                edits.append(Edit(entry.place, rows, positions - self.plan.first, values))
        return edits
