"""Sweep: pairs x sites x groups of positions -> metric values, exactly and with little computing.

Base and donor run once per pair. Each patched row then starts at the patched block from the
base's own residual, with the base's keys and values for the positions before the patch, and
stops at the logits of the last position; rows of many sites and pairs share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.donors import DONORS, donor_values
from interpflow.engine.forward import Edit, KeysValues, Resume, run_forward
from interpflow.engine.metrics import Metric
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.engine.sites import Site
from interpflow.engine.sweep_collect import Collected
from interpflow.engine.sweep_plan import (
    Groups,
    Row,
    canonical,
    check_pairs,
    plan_rows,
)
from interpflow.engine.sweep_result import SweepResult
from interpflow.errors import UserError

# Stored states of one chunk of pairs: bounds the memory of a sweep whatever the number of pairs.
CHUNK_BYTES = 512 * 2**20
# Logits of one pass: rows that hold one token each would otherwise make a huge matrix of them.
PASS_LOGITS = 2**25


def sweep(
    model: Model,
    base_ids: Sequence[Sequence[int]],
    donor_ids: Sequence[Sequence[int]],
    sites: Sequence[Site],
    groups: Groups,
    metric: Metric,
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    donor: str = "activation",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    fast: bool = True,
) -> SweepResult:
    """Patch every group of positions at every site of each base run with the donor's states.

    base_ids, donor_ids: token ids per pair, of equal length within a pair.
    groups: groups[pair][g] = positions replaced together, None or empty where the pair has no
    such group (NaN in the result).
    metric: see `interpflow.engine.metrics`; it gets float32 logits (float64 for such a model).
    donor: "activation" replaces by the donor run's state at the same place;
    "random_norm_matched" by the base state moved as far as the donor's in a random direction.
    batch_tokens: token places per pass. progress: called with rows done and rows to do.
    fast=False runs every row whole, no-ops included: slow, for checking.
    Raises UserError for unequal lengths, unknown sites or positions, RuntimeError when a hook
    did not run.
    """
    n_groups = check_pairs(base_ids, donor_ids, groups)
    for site in sites:
        model.check_site(site)
    if donor not in DONORS:
        raise UserError(f"unknown donor {donor!r}", remedy=f"use one of {', '.join(DONORS)}")
    path = model.fastest_path if fast else "full"
    setting = _Setting(model, base_ids, donor_ids, tuple(sites), metric, batch_tokens, path)
    out = Collected((len(base_ids), len(sites), n_groups))
    lengths = sorted({len(row) for row in base_ids})
    planned = {}
    for length in lengths:
        for pairs in _chunks(setting, length):
            planned[tuple(pairs)] = plan_rows(
                pairs,
                base_ids,
                donor_ids,
                sites,
                groups,
                n_layers=model.n_layers,
                skip=fast,
                resume=path != "full",
            )
    total = sum(len(rows) for plan in planned.values() for rows in plan.values())
    for pairs, plan in planned.items():
        states = _run_pairs(setting, out, pairs, plan, donor, seed)
        for start, rows in plan.items():
            for chunk in _row_chunks(setting, rows, len(base_ids[pairs[0]])):
                _run_rows(setting, out, states, start, chunk)
                if progress is not None:
                    progress(int(out.ran.sum()), total)
    return out.result(setting.sites, path, groups)


def _chunks(setting: _Setting, length: int) -> Iterator[list[int]]:
    """Pairs of one length, few enough for their states to fit in CHUNK_BYTES."""
    model = setting.model
    pairs = [i for i, row in enumerate(setting.base_ids) if len(row) == length]
    kv = 2 * model.n_kv_heads * max(model.head_dim, model.d_model // model.n_heads)
    width = model.n_layers * (model.d_model + kv) + 2 * len(setting.sites) * model.d_model
    size = max(1, CHUNK_BYTES // (length * width * model.dtype.itemsize))
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _row_chunks(setting: _Setting, rows: list[Row], length: int) -> Iterator[list[Row]]:
    """Rows for one pass each; rows are ordered by first position, which all of a pass start at."""
    most = max(1, PASS_LOGITS // setting.model.vocab_size)
    start = 0
    while start < len(rows):
        first = rows[start].positions[0] if setting.path == "resume+prefix" else 0
        size = min(most, max(1, setting.batch_tokens // (length - first)))
        yield rows[start : start + size]
        start += size


def _run_pairs(
    setting: _Setting,
    out: Collected,
    pairs: Sequence[int],
    plan: dict[int, list[Row]],
    donor: str,
    seed: int,
) -> _States:
    """Run base and donor of these pairs and keep what the patched rows will need."""
    model = setting.model
    n_layers = model.n_layers
    starts = {start: _residual_site(start, n_layers) for start in plan if start > 0}
    places = list(dict.fromkeys(canonical(site, n_layers) for site in setting.sites))
    needs_base = places if donor != "activation" else []
    parts: list[dict[Site, Tensor]] = []
    donors: list[dict[Site, Tensor]] = []
    keys_values: list[KeysValues | None] = []
    length = len(setting.base_ids[pairs[0]])
    step = max(1, setting.batch_tokens // length)
    for begin in range(0, len(pairs), step):
        chosen = list(pairs[begin : begin + step])
        ids = setting.tensor(setting.base_ids, chosen)
        kept = run_forward(
            model.module,
            model.architecture,
            ids,
            capture=[*starts.values(), *needs_base],
            logits_at=_last(ids),
            keep_keys_values=setting.path == "resume+prefix",
        )
        out.add(out.base, setting.metric, kept.logits, chosen)
        parts.append(kept.states)
        keys_values.append(kept.keys_values)
        ids = setting.tensor(setting.donor_ids, chosen)
        other = run_forward(
            model.module, model.architecture, ids, capture=places, logits_at=_last(ids)
        )
        out.add(out.donor, setting.metric, other.logits, chosen)
        donors.append(other.states)
        out.count(2, 2 * ids.numel(), n_layers)
    base = _concatenated(parts)
    values = donor_values(
        donor, _concatenated(donors), base, pairs, setting.base_ids, setting.donor_ids, seed
    )
    kv = None
    if keys_values and all(part is not None for part in keys_values):
        layers = [[p[i] for p in keys_values if p is not None] for i in range(n_layers)]
        kv = tuple((torch.cat([k for k, _ in p]), torch.cat([v for _, v in p])) for p in layers)
    residuals = {start: base[site] for start, site in starts.items()}
    local = {pair: row for row, pair in enumerate(pairs)}
    return _States(local, setting.tensor(setting.base_ids, pairs), residuals, values, kv)


def _run_rows(
    setting: _Setting, out: Collected, states: _States, start: int, rows: Sequence[Row]
) -> None:
    """One pass over patched rows that start at one block."""
    model = setting.model
    device = states.ids.device
    source = torch.tensor([states.local[row.pair] for row in rows], device=device)
    first = rows[0].positions[0] if states.keys_values is not None else 0
    ids = states.ids[source, first:]
    resume = None
    if start > 0 or first > 0:
        prefix = None
        if first > 0 and states.keys_values is not None:
            prefix = tuple(
                _prefix(keys, values, source, first, runs=layer >= start)
                for layer, (keys, values) in enumerate(states.keys_values)
            )
        residual = states.residuals[start][source, first:] if start > 0 else None
        resume = Resume(start, residual, first, prefix)
    result = run_forward(
        model.module,
        model.architecture,
        ids,
        edits=_edits(states, source, first, rows),
        logits_at=_last(ids),
        resume=resume,
    )
    out.add_rows(setting.metric, result.logits, rows)
    out.count(1, ids.numel(), model.n_layers - start)


def _prefix(
    keys: Tensor, values: Tensor, source: Tensor, first: int, *, runs: bool
) -> tuple[Tensor, Tensor]:
    """Keys and values [rows, heads, first, d] of the positions before the pass; for a block that
    does not run only their length counts, and nothing is copied."""
    if not runs:
        blank = keys.new_zeros(1, 1, 1, 1).expand(len(source), 1, first, 1)
        return blank, blank
    source = source.to(keys.device)
    return keys[:, :, :first][source], values[:, :, :first][source]


def _edits(states: _States, source: Tensor, first: int, rows: Sequence[Row]) -> list[Edit]:
    by_place: dict[Site, tuple[list[int], list[int]]] = {}
    for i, row in enumerate(rows):
        at_rows, at_places = by_place.setdefault(row.place, ([], []))
        at_rows += [i] * len(row.positions)
        at_places += row.positions
    edits = []
    for place, (at_rows, at_places) in by_place.items():
        index = torch.tensor(at_rows, device=source.device)
        places = torch.tensor(at_places, device=source.device)
        values = states.values[place]
        chosen = values[source[index].to(values.device), places.to(values.device)]
        edits.append(Edit(place, index, places - first, chosen))
    return edits


def _residual_site(start: int, n_layers: int) -> Site:
    return Site("resid_pre", start) if start < n_layers else Site("resid_post", n_layers - 1)


def _last(ids: Tensor) -> Tensor:
    return torch.full((ids.shape[0],), ids.shape[1] - 1, device=ids.device)


def _concatenated(parts: Sequence[dict[Site, Tensor]]) -> dict[Site, Tensor]:
    return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}


@dataclass(frozen=True)
class _Setting:
    """What stays the same for the whole sweep."""

    model: Model
    base_ids: Sequence[Sequence[int]]
    donor_ids: Sequence[Sequence[int]]
    sites: tuple[Site, ...]
    metric: Metric
    batch_tokens: int
    path: str

    def tensor(self, ids: Sequence[Sequence[int]], pairs: Sequence[int]) -> Tensor:
        rows = [list(ids[pair]) for pair in pairs]
        return torch.tensor(rows, dtype=torch.int64, device=self.model.device)


@dataclass(frozen=True)
class _States:
    """Of one chunk of pairs: base ids and residuals, keys and values, and the values to write."""

    local: dict[int, int]
    ids: Tensor
    residuals: dict[int, Tensor]
    values: dict[Site, Tensor]
    keys_values: KeysValues | None
