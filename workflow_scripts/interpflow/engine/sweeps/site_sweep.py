"""Sweep over sites: pairs x sites x groups of positions -> metric values, exactly and with little
computing.

Base and donor run once per pair; each patched row runs from the patched block and position on
(`joined_rows`), or, where the model does not allow that, as much of a whole pass as it must
(`whole_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from interpflow.engine.metrics import ColumnMetric, Metric
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.engine.passes.fast_modules import fast_modules
from interpflow.engine.passes.freed_pages import freed_pages_kept
from interpflow.engine.sites import Site
from interpflow.engine.sweeps.audit import audit_sweep
from interpflow.engine.sweeps.collect import Collected, logit_rows
from interpflow.engine.sweeps.donors import DONORS
from interpflow.engine.sweeps.joined_rows import run_joined_rows
from interpflow.engine.sweeps.path import foreign_hook, joining_blocks, sweep_path
from interpflow.engine.sweeps.plan import Groups, check_pairs, plan_rows
from interpflow.engine.sweeps.result import SweepResult
from interpflow.engine.sweeps.setting import SweepSetting
from interpflow.engine.sweeps.whole_rows import run_whole_rows
from interpflow.errors import UserError

# Stored states of one chunk of pairs: bounds the memory of a sweep whatever the number of pairs.
CHUNK_BYTES = 512 * 2**20


def sweep_sites(
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
    donor_positions: Sequence[Sequence[int] | None] | None = None,
    asked: np.ndarray | None = None,
    audit: float = 0.0,
) -> SweepResult:
    """Patch every group of positions at every site of each base run with the donor's states.

    base_ids, donor_ids: token ids per pair, of equal length within a pair unless aligned.
    groups: groups[pair][g] = positions replaced together, None or empty where the pair has no
    such group (NaN in the result).
    metric: see `interpflow.engine.metrics`; it gets float32 logits (float64 for such a model).
    donor: "activation" replaces by the donor run's state at the same place;
    "random_norm_matched" by the base state moved as far as the donor's in a random direction.
    batch_tokens: token places per pass. progress: called with cells done and cells in all.
    fast=False runs every row whole, no-ops included: slow, for checking.
    donor_positions: per pair, the donor position whose state is written at each base position (-1
    where there is none), or None for the same positions.
    asked: bool [site, group], the cells that are wanted (all if None); the others are NaN.
    audit: share of the (site, group) cells that are run again by whole passes and compared.
    Raises UserError for unequal lengths, unknown sites or positions, RuntimeError when a hook
    did not run.
    """
    n_groups = check_pairs(base_ids, donor_ids, groups, donor_positions)
    if asked is not None and asked.shape != (len(sites), n_groups):
        raise UserError(
            f"cells of shape {asked.shape}, expected ({len(sites)}, {n_groups})", where="asked"
        )
    model.check_ready()
    for site in sites:
        model.check_site(site)
    if donor not in DONORS:
        raise UserError(f"unknown donor {donor!r}", remedy=f"use one of {', '.join(DONORS)}")
    blocks = joining_blocks(model) if fast else None
    path = "joining" if blocks is not None else sweep_path(model) if fast else "full"
    # A hook of somebody else may make anything depend on anything.
    skip = fast and foreign_hook(model.module) is None
    setting = SweepSetting(
        model, base_ids, donor_ids, tuple(sites), metric, batch_tokens, path, donor, seed,
        donor_positions, asked,
    )  # fmt: skip
    if setting.aligned and any(site.component == "pattern" for site in sites):
        raise UserError(
            "patterns cannot be aligned: their keys are positions too", where="component",
            remedy="sweep q and k instead",
        )  # fmt: skip
    if donor != "activation" and any(site.component == "pattern" for site in sites):
        raise UserError(
            "a placebo of a pattern would look at tokens that are yet to come", where="donor",
            remedy="use it on q or k",
        )  # fmt: skip
    views = [setting.donor_view(pair) for pair in range(len(base_ids))]
    out = Collected((len(base_ids), len(sites), n_groups))
    wanted = setting.cells(n_groups)
    n_wanted = wanted.sum(axis=0).tolist()
    cells = [sum(n for n, group in zip(n_wanted, chosen) if group) for chosen in groups]
    done, total = 0, sum(cells)

    def advance(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        if progress is not None:
            progress(done, total)

    quick = fast_modules(model.module) if blocks is not None else nullcontext()
    with quick, freed_pages_kept():
        for length in sorted({len(row) for row in base_ids}):
            for pairs in _chunks(setting, length):
                rows = plan_rows(
                    pairs, base_ids, views, sites, groups,
                    asked=wanted, n_layers=model.n_layers, skip=skip,
                )  # fmt: skip
                before = done
                if blocks is not None:
                    run_joined_rows(setting, blocks, out, pairs, rows, advance)
                else:
                    run_whole_rows(setting, out, pairs, rows, advance)
                # The rest of the chunk's cells cannot change anything and were not run.
                advance(sum(cells[pair] for pair in pairs) - (done - before))
    result = out.result(setting.sites, path, groups, wanted)
    if audit <= 0:
        return result
    with freed_pages_kept():
        return replace(result, audit=audit_sweep(setting, result.values, groups, audit))


def _chunks(setting: SweepSetting, length: int) -> Iterator[list[int]]:
    """Pairs of one length, few enough for their states to fit in CHUNK_BYTES (and for a row of all
    logits each, where the metric may keep one)."""
    model = setting.model
    pairs = [i for i, row in enumerate(setting.base_ids) if len(row) == length]
    # Neighbours in this order share the most first tokens.
    pairs.sort(key=lambda pair: tuple(setting.base_ids[pair]))
    head_dim = model.head_dim or model.d_model // model.n_heads
    kv = 2 * model.n_kv_heads * head_dim
    heads = sum(length if site.component == "pattern" else head_dim
                for site in setting.sites if site.head is not None)  # fmt: skip
    others = sum(_width(model, site) for site in setting.sites if site.head is None)
    # Residuals and keys and values of the base; each site's states of base and donor.
    width = model.n_layers * (model.d_model + kv) + 2 * (heads + others)
    size = max(1, CHUNK_BYTES // (length * width * model.dtype.itemsize))
    if not isinstance(setting.metric, ColumnMetric):
        size = min(size, logit_rows(model))
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _width(model: Model, site: Site) -> int:
    """About how many numbers a position of the site holds (the neurons' number is a guess)."""
    return 4 * model.d_model if site.component == "mlp_act" else model.d_model
