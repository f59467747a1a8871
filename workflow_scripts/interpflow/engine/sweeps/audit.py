"""Audit of a sweep: a random share of its sites run again by the model's own whole passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from interpflow.engine.metrics import DISCRETE_METRICS, value_spans
from interpflow.engine.sweeps.audit_limits import largest_change
from interpflow.engine.sweeps.collect import Collected
from interpflow.engine.sweeps.plan import Groups, Row, canonical
from interpflow.engine.sweeps.result import Audit
from interpflow.engine.sweeps.setting import SweepSetting
from interpflow.engine.sweeps.whole_rows import run_whole_rows

# Largest error of a logit allowed, relative to the largest. A float32 sum taken in another order
# moves a logit by less than 1e-5 of that; bfloat16 keeps three digits.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-5}
LOW_PRECISION_TOLERANCE = 0.1
# Pairs that are always drawn from, and at most: each costs a whole pass of its donor, and where a
# placebo is written one of its base.
FEWEST_PAIRS, MOST_PAIRS = 4, 64
# Rows of each such pair, where that many can be afforded.
ROWS_PER_PAIR = 2


def tolerance_of(dtype: torch.dtype) -> float:
    """How far equivalent computations of a model of this type may be apart."""
    return TOLERANCES.get(dtype, LOW_PRECISION_TOLERANCE)


def audit_sweep(
    setting: SweepSetting,
    values: dict[str, np.ndarray],
    groups: Groups,
    share: float,
) -> Audit:
    """Compare `values` [pair, site, group] with whole passes at a share of all (site, group)
    cells, pairs dealt evenly (see `audited_rows`); cells that were not run because they cannot
    change anything are among them. What a difference may be follows from the metric
    (`audit_limits`). Raises RuntimeError when a value is off."""
    rows = audited_rows(setting, groups, share)
    limit = tolerance_of(setting.model.dtype)
    if not rows:
        return Audit(share, 0, 0, 0.0, 0.0, limit, 1.0)
    oracle = replace(setting, path="full")
    out = Collected((len(setting.base_ids), len(setting.sites), len(groups[0])))
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(len(setting.base_ids[row.pair]), []).append(row)
    for mine in by_length.values():
        pairs = sorted({row.pair for row in mine})
        run_whole_rows(oracle, out, pairs, mine, lambda _n: None, measure_base=False)
    first = [setting.base_ids[rows[0].pair]]
    logit_scale = float(setting.model.last_logits(first).abs().max()) or 1.0
    cells = tuple(np.array([(row.pair, row.site_index, row.group) for row in rows]).T)
    worst, relative, where = 0.0, 0.0, ""
    for name, slow in out.values.items():
        if name in DISCRETE_METRICS:  # a tie may fall either way
            continue
        gaps = np.abs(values[name][cells] - slow[cells])
        gaps = np.where(np.isnan(gaps), math.inf, gaps)  # NaN is the worst of all
        allowed = largest_change(
            name, slow[cells], limit * logit_scale, value_spans(setting.metric)
        )
        ratios = gaps / allowed
        worst = max(worst, float(gaps.max()))
        i = int(ratios.argmax())
        if limit * ratios[i] > relative:
            relative = limit * float(ratios[i])
            where = f"{name} at {setting.sites[rows[i].site_index]}, pair {rows[i].pair}"
    n_pairs = len({row.pair for row in rows})
    audit = Audit(share, len(rows), n_pairs, worst, relative, limit, logit_scale)
    if not audit.relative <= limit:
        raise RuntimeError(
            f"the sweep misses the model's own pass by {audit.relative:.3g} of the logits' scale "
            f"(limit {limit:g}): {where}"
        )
    return audit


def audited_rows(setting: SweepSetting, groups: Groups, share: float) -> list[Row]:
    """A random `share` of the (site, group) cells, each in one pair; the pairs take turns in random
    order. Where the pairs are many, all cells are dealt out again in random
    order until MOST_PAIRS have had ROWS_PER_PAIR. Pairs, and second rows of them, are left out
    where they would make the audit dearer than about `share` of the sweep by whole passes (never
    fewer pairs than FEWEST_PAIRS). No row is there twice."""
    generator = np.random.default_rng(np.random.SeedSequence([setting.seed, 0xA0D17]))
    n_pairs, n_layers = len(groups), setting.model.n_layers
    cells = np.argwhere(setting.cells(len(groups[0]))).tolist()
    if not cells:
        return []
    n = min(len(cells), max(1, math.ceil(share * len(cells))))
    # A pair's own passes are two at most, and a row is one.
    n_passes = int(share * n_pairs * len(cells))
    n_chosen = min(n_pairs, max(FEWEST_PAIRS, min(n_passes // 3, max(n, MOST_PAIRS))))
    n_rows = max(n, min(ROWS_PER_PAIR * n_chosen, n_passes - 2 * n_chosen))
    chosen = generator.permutation(n_pairs)[:n_chosen].tolist()
    drawn = [
        int(index)
        for _ in range(math.ceil(n_rows / len(cells)))
        for index in generator.permutation(len(cells))
    ]
    rows: list[Row] = []
    for number, index in enumerate(drawn[:n_rows]):
        s, g = cells[index]
        turn = number % n_chosen
        pair = next((p for p in chosen[turn:] + chosen[:turn] if groups[p][g]), None)
        if pair is not None:
            positions: Sequence[int] = groups[pair][g] or ()
            place = canonical(setting.sites[s], n_layers)
            rows.append(Row(pair, s, g, place, tuple(sorted(positions))))
    rows = list(dict.fromkeys(rows))
    return sorted(rows, key=lambda row: (row.pair, row.site_index, row.group))
