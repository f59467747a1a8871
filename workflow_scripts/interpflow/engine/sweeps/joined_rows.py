"""Patched rows run block by block, each joining at the block it patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.passes.prompt_states import PromptStates, joined, run_prompts, shared_length
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.collect import Collected, measured_residuals
from interpflow.engine.sweeps.donors import aligned_values, donor_values
from interpflow.engine.sweeps.joining import packs, plan_passes, run_pack
from interpflow.engine.sweeps.plan import Row
from interpflow.engine.sweeps.setting import SweepSetting

# Attention scores held at once by a pass.
PASS_SCORES = 2**26


def run_joined_rows(
    setting: SweepSetting,
    blocks: Blocks,
    out: Collected,
    pairs: Sequence[int],
    rows: Sequence[Row],
    progress: Callable[[int], None],
) -> None:
    """Run base, donor and patched rows of pairs of one length; calls progress(rows done)."""
    n_layers, length = setting.model.n_layers, len(setting.base_ids[pairs[0]])
    places = list(dict.fromkeys(row.place for row in rows))
    layers = {place.layer for place in places} | {place.layer + 1 for place in places}
    placebo = setting.donor != "activation"
    # A placebo's directions are drawn for whole prompts, whatever they share; aligned states are
    # looked up in whole prompts.
    whole = placebo or setting.aligned
    prompts = [setting.base_ids[i] for i in pairs] + [setting.donor_ids[i] for i in pairs]
    shared = 0 if whole else shared_length(prompts)
    base = _run(setting, blocks, out, out.base, setting.base_ids, pairs, shared,
                residuals=layers & set(range(n_layers)), capture=places, keep=True,
                last_only=not whole)  # fmt: skip
    values = _donor_values(setting, blocks, out, pairs, shared, places, whole)
    if placebo:
        drawn = donor_values(
            setting.donor,
            {site: states for site, (states, _) in values.items()},
            {site: states for site, (states, _) in base.captured.items()},
            pairs, setting.base_ids, [setting.donor_view(i) for i in range(len(setting.base_ids))],
            setting.seed,
        )  # fmt: skip
        values = {site: (states, 0) for site, states in drawn.items()}
    local = {pair: i for i, pair in enumerate(pairs)}
    differs = {place: _differing(base.captured[place], values[place]) for place in places}
    rows = [row for row in rows if _changes(row, local[row.pair], differs)]
    most = min(setting.batch_tokens, PASS_SCORES // (setting.model.n_heads * length))
    planned = [plan_passes(alike, n_layers, most, length) for alike in _alike(setting, rows)]
    for plans in (pack for passes in planned for pack in packs(passes, length, most)):
        residuals, n_block_tokens = run_pack(blocks, plans, base, values, local)
        mine = [row for plan in plans for row in plan.rows()]
        found = measured_residuals(
            setting.model, setting.metric, torch.cat(residuals), [row.pair for row in mine]
        )
        out.add_rows(found, mine)
        n_tokens = sum(len(p.entries) * len(p.pairs) * (length - p.first) for p in plans)
        out.count(1, n_tokens, n_block_tokens)
        progress(len(mine))


def _alike(setting: SweepSetting, rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of sites that are patched at the same groups: they fill a table of a pass, and round as
    in a sweep over these sites alone."""
    alike: dict[bytes, list[Row]] = {}
    for row in rows:
        key = b"" if setting.asked is None else setting.asked[row.site_index].tobytes()
        alike.setdefault(key, []).append(row)
    return list(alike.values())


def _changes(row: Row, pair: int, differs: dict[Site, tuple[list[list[bool]], int]]) -> bool:
    """Whether what is written differs from what is there: a head whose outputs are the same in
    both runs has no effect, not a rounding error's worth of it."""
    found, first = differs[row.place]
    return any(found[pair][position - first] for position in row.positions)


def _differing(
    base: tuple[Tensor, int], written: tuple[Tensor, int]
) -> tuple[list[list[bool]], int]:
    """Whether any number of two states [pair, position, d] differs, [pair][position]; and the first
    position, that of the shorter one."""
    first = max(base[1], written[1])
    there, other = (states[:, first - at :] for states, at in (base, written))
    return (there != other).flatten(2).any(dim=-1).tolist(), first


def _donor_values(
    setting: SweepSetting,
    blocks: Blocks,
    out: Collected,
    pairs: Sequence[int],
    shared: int,
    places: Sequence[Site],
    whole: bool,
) -> dict[Site, tuple[Tensor, int]]:
    """Run the donors; per site their states at the base's positions, and the first position."""
    ids = setting.donor_ids
    if not setting.aligned:
        run = _run(setting, blocks, out, out.donor, ids, pairs, shared, capture=places,
                   last_only=not whole)  # fmt: skip
        return run.captured
    found: dict[Site, dict[int, Tensor]] = {place: {} for place in places}
    for length in sorted({len(ids[pair]) for pair in pairs}):
        mine = [pair for pair in pairs if len(ids[pair]) == length]
        run = _run(setting, blocks, out, out.donor, ids, mine, 0, capture=places, last_only=False)
        for place, (states, _) in run.captured.items():
            found[place].update(zip(mine, states))
    tables = setting.donor_positions or ()
    length = len(setting.base_ids[pairs[0]])
    return {
        place: (
            aligned_values([states[pair] for pair in pairs], [tables[i] for i in pairs], length), 0
        )
        for place, states in found.items()
    }  # fmt: skip


def _run(
    setting: SweepSetting,
    blocks: Blocks,
    out: Collected,
    into: dict,
    ids: Sequence[Sequence[int]],
    pairs: Sequence[int],
    shared: int,
    *,
    residuals: set[int] | tuple = (),
    capture: Sequence[Site] = (),
    keep: bool = False,
    last_only: bool = True,
) -> PromptStates:
    """Run whole prompts, as many at a time as the token budget allows, and measure them."""
    length = len(ids[pairs[0]])
    step = max(1, setting.batch_tokens // length)
    parts = []
    for start in range(0, len(pairs), step):
        chosen = pairs[start : start + step]
        tokens = setting.tensor(ids, chosen)
        part = run_prompts(
            blocks, tokens, shared=shared, residuals=residuals, capture=capture, keep=keep,
            last_only=last_only,
        )  # fmt: skip
        out.add(into, measured_residuals(setting.model, setting.metric, part.last, chosen), chosen)
        n_tokens = len(chosen) * (length - shared) + shared
        out.count(1, n_tokens, n_tokens * blocks.n_layers)
        parts.append(part)
    return joined(parts)
