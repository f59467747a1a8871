"""Patched rows as whole passes of the model's own code, with hooks.

For models whose blocks cannot be run one at a time, and as the oracle for those that can: nothing
here is shared with the fast way but the hooks. Depending on the path, a pass leaves out the blocks
before the patch ("resume") and the positions before it ("resume+prefix").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interpflow.engine.passes.forward import KeysValues, Resume, run_forward
from interpflow.engine.passes.recorder import Edit
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.collect import Collected, logit_rows, measured
from interpflow.engine.sweeps.donors import aligned_values, donor_values
from interpflow.engine.sweeps.plan import Row
from interpflow.engine.sweeps.setting import SweepSetting, concatenated, last_places


def run_whole_rows(
    setting: SweepSetting,
    out: Collected,
    pairs: Sequence[int],
    rows: Sequence[Row],
    progress: Callable[[int], None],
    *,
    measure_base: bool = True,
) -> None:
    """Run base, donor and patched rows of pairs of one length; calls progress(rows done).

    measure_base: run the base for its metric even where no patched row needs its states."""
    plan: dict[int, list[Row]] = {}
    for row in rows:
        start = 0 if setting.path == "full" else _start_layer(row.place, setting.model.n_layers)
        plan.setdefault(start, []).append(row)
    states = _run_pairs(setting, out, pairs, plan, measure_base)
    for start, mine in plan.items():
        mine.sort(key=lambda row: row.positions[0])
        for chunk in _row_chunks(setting, mine, len(setting.base_ids[pairs[0]])):
            _run_rows(setting, out, states, start, chunk)
            progress(len(chunk))


def _start_layer(site: Site, n_layers: int) -> int:
    """First block that has to run for a patch at a canonical site."""
    return n_layers if site.component == "resid_post" else site.layer


def _row_chunks(setting: SweepSetting, rows: list[Row], length: int) -> Iterator[list[Row]]:
    """Rows for one pass each; rows are ordered by first position, which all of a pass start at."""
    most = logit_rows(setting.model)
    start = 0
    while start < len(rows):
        first = rows[start].positions[0] if setting.path == "resume+prefix" else 0
        size = min(most, max(1, setting.batch_tokens // (length - first)))
        yield rows[start : start + size]
        start += size


def _run_pairs(
    setting: SweepSetting,
    out: Collected,
    pairs: Sequence[int],
    plan: dict[int, list[Row]],
    measure_base: bool,
) -> _States:
    """Run base and donor of these pairs and keep what the patched rows will need."""
    model = setting.model
    n_layers = model.n_layers
    starts = {start: _residual_site(start, n_layers) for start in plan if start > 0}
    places = list(dict.fromkeys(row.place for rows in plan.values() for row in rows))
    needs_base = places if setting.donor != "activation" else []
    parts: list[dict[Site, Tensor]] = []
    keys_values: list[KeysValues | None] = []
    keep = setting.path == "resume+prefix"
    run_base = measure_base or keep or bool(starts) or bool(needs_base)
    for chosen in _batches(setting, pairs if run_base else [], len(setting.base_ids[pairs[0]])):
        ids = setting.tensor(setting.base_ids, chosen)
        kept = run_forward(
            model.module,
            model.architecture,
            ids,
            capture=[*starts.values(), *needs_base],
            logits_at=last_places(ids),
            keep_keys_values=keep,
        )
        out.add(out.base, measured(setting.metric, kept.logits[:, 0], chosen), chosen)
        out.count(1, ids.numel(), ids.numel() * n_layers)
        parts.append(kept.states)
        keys_values.append(kept.keys_values)
    base = concatenated(parts) if parts else {}
    values = _donor_states(setting, out, pairs, places)
    views = [setting.donor_view(pair) for pair in range(len(setting.base_ids))]
    values = donor_values(setting.donor, values, base, pairs, setting.base_ids, views, setting.seed)
    kv = None
    if keys_values and all(part is not None for part in keys_values):
        layers = [[p[i] for p in keys_values if p is not None] for i in range(n_layers)]
        kv = tuple((torch.cat([k for k, _ in p]), torch.cat([v for _, v in p])) for p in layers)
    residuals = {start: base[site] for start, site in starts.items()}
    local = {pair: row for row, pair in enumerate(pairs)}
    return _States(local, setting.tensor(setting.base_ids, pairs), residuals, values, kv)


def _donor_states(
    setting: SweepSetting, out: Collected, pairs: Sequence[int], places: Sequence[Site]
) -> dict[Site, Tensor]:
    """Run the donors; their states at the base's positions, [pair, position, ...]."""
    model = setting.model
    found: dict[Site, dict[int, Tensor]] = {place: {} for place in places}
    for length in sorted({len(setting.donor_ids[pair]) for pair in pairs}):
        alike = [pair for pair in pairs if len(setting.donor_ids[pair]) == length]
        for chosen in _batches(setting, alike, length):
            ids = setting.tensor(setting.donor_ids, chosen)
            other = run_forward(
                model.module, model.architecture, ids, capture=places, logits_at=last_places(ids)
            )
            out.add(out.donor, measured(setting.metric, other.logits[:, 0], chosen), chosen)
            out.count(1, ids.numel(), ids.numel() * model.n_layers)
            for place in places:
                found[place].update(zip(chosen, other.states[place]))
    tables = [setting.donor_positions[i] if setting.donor_positions else None for i in pairs]
    length = len(setting.base_ids[pairs[0]])
    return {
        place: aligned_values([states[pair] for pair in pairs], tables, length)
        for place, states in found.items()
    }


def _batches(setting: SweepSetting, pairs: Sequence[int], length: int) -> Iterator[list[int]]:
    step = max(1, setting.batch_tokens // length)
    for start in range(0, len(pairs), step):
        yield list(pairs[start : start + step])


def _run_rows(
    setting: SweepSetting, out: Collected, states: _States, start: int, rows: Sequence[Row]
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
        logits_at=last_places(ids),
        resume=resume,
    )
    found = measured(setting.metric, result.logits[:, 0], [row.pair for row in rows])
    out.add_rows(found, rows)
    out.count(1, ids.numel(), ids.numel() * (model.n_layers - start))


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


@dataclass(frozen=True)
class _States:
    """Of one chunk of pairs: base ids and residuals, keys and values, and the values to write."""

    local: dict[int, int]
    ids: Tensor
    residuals: dict[int, Tensor]
    values: dict[Site, Tensor]
    keys_values: KeysValues | None
