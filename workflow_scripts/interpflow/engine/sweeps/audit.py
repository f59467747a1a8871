"""Audit of a sweep: a random share of its sites run again by the model's own whole passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from interpflow.engine.metrics import DISCRETE_METRICS
from interpflow.engine.sweeps.collect import Collected
from interpflow.engine.sweeps.plan import Groups, Row, canonical
from interpflow.engine.sweeps.result import Audit
from interpflow.engine.sweeps.setting import SweepSetting
from interpflow.engine.sweeps.whole_rows import run_whole_rows

# Largest difference allowed, relative to the largest logit. A float32 sum taken in another order
# moves a logit by less than 1e-5 of that; bfloat16 keeps three digits.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-5}
LOW_PRECISION_TOLERANCE = 0.1
AUDITED_PAIRS = 4


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
    cells, one pair drawn for each; cells that were not run because they cannot change anything
    are among them. Raises RuntimeError when a value is off."""
    rows = _drawn(setting, groups, share)
    if not rows:
        return Audit(share, 0, 0.0, 0.0, 0.0, 1.0)
    oracle = replace(setting, path="full")
    out = Collected((len(setting.base_ids), len(setting.sites), len(groups[0])))
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(len(setting.base_ids[row.pair]), []).append(row)
    for mine in by_length.values():
        pairs = sorted({row.pair for row in mine})
        run_whole_rows(oracle, out, pairs, mine, lambda _n: None)
    first = [setting.base_ids[rows[0].pair]]
    logit_scale = float(setting.model.last_logits(first).abs().max()) or 1.0
    limit = tolerance_of(setting.model.dtype)
    worst, where = 0.0, ""
    for name, slow in out.values.items():
        if name in DISCRETE_METRICS:  # a tie may fall either way
            continue
        for row in rows:
            cell = (row.pair, row.site_index, row.group)
            gap = abs(float(values[name][cell]) - float(slow[cell]))
            if not gap <= worst:  # NaN is the worst of all
                worst = gap if gap == gap else math.inf
                where = f"{name} at {setting.sites[row.site_index]}, pair {row.pair}"
    audit = Audit(share, len(rows), worst, worst / logit_scale, limit, logit_scale)
    if not audit.relative <= limit:
        raise RuntimeError(
            f"the sweep misses the model's own pass by {audit.relative:.3g} of the logits' scale "
            f"(limit {limit:g}): {where}"
        )
    return audit


def _drawn(setting: SweepSetting, groups: Groups, share: float) -> list[Row]:
    generator = np.random.default_rng(np.random.SeedSequence([setting.seed, 0xA0D17]))
    # Few pairs: each costs two whole passes of its own.
    some = generator.permutation(len(groups))[:AUDITED_PAIRS].tolist()
    cells = [(s, g) for s in range(len(setting.sites)) for g in range(len(groups[0]))]
    n = min(len(cells), max(1, math.ceil(share * len(cells))))
    n_layers = setting.model.n_layers
    rows: list[Row] = []
    for index in sorted(generator.choice(len(cells), size=n, replace=False).tolist()):
        s, g = cells[index]
        having = [pair for pair in some if groups[pair][g]]
        if having:
            pair = having[int(generator.integers(len(having)))]
            positions: Sequence[int] = groups[pair][g] or ()
            place = canonical(setting.sites[s], n_layers)
            rows.append(Row(pair, s, g, place, tuple(sorted(positions))))
    return rows
