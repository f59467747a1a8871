"""Activation patching over pairs of prompts: one component, every layer, every position or head.

Direction and sign: "denoise" patches the clean run's state into the corrupted run (what suffices to
bring the answer back), "noise" the corrupted run's state into the clean run (what is necessary to
keep it). An effect is the metric of the patched run minus the metric of the run that is patched:
under "denoise" a positive effect on `logit_diff` moves towards the clean answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.engine.pairs import Pair, as_pairs, donor_tables
from interpflow.engine.sites import Site, all_sites
from interpflow.engine.sweeps.gates import renumbered, run_gates
from interpflow.engine.sweeps.pair_metrics import METRICS, pair_metric
from interpflow.engine.sweeps.pair_sweep import PairSweep
from interpflow.engine.sweeps.site_sweep import sweep_sites
from interpflow.errors import UserError

DIRECTIONS = ("denoise", "noise")
CHECKS = ("full", "audit", "off")
Positions = Literal["all", "answer"] | Sequence[int] | Sequence[Sequence[Sequence[int]]]


def sweep(
    model: Model,
    pairs: Sequence[Pair | Mapping[str, Any]],
    component: str = "resid_post",
    positions: Positions = "all",
    direction: str = "denoise",
    metrics: str | Sequence[str] = ("logit_diff",),
    *,
    layers: Sequence[int] | None = None,
    oracle: bool = False,
    check: Literal["full", "audit", "off"] = "full",
    audit: float = 0.05,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PairSweep:
    """Patch one component at every layer and position (or head) and measure what it does.

    pairs: `Pair`s or mappings with the same keys. positions: "all" (each alone), "answer" (the
    last), a list of positions, or per pair a list of groups of positions, replaced together; as
    many groups in every pair, an empty one where a pair has none.
    metrics: of logit_diff, probability, kl, expected_value (see `pair_metric`).
    oracle: run every site by a whole pass of the model's own code (slow). check: "full" runs the
    gates and audits a share `audit` of the sites, "audit" the second alone, "off" neither (nor
    is the oracle checked against itself).
    Raises UserError for what cannot be swept, RuntimeError when a gate or the audit fails.
    """
    found = as_pairs(model, pairs)
    if direction not in DIRECTIONS:
        raise UserError(f"unknown direction {direction!r}", remedy="use denoise or noise")
    _check_options(check, audit, layers, batch_tokens)
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if not metrics:
        raise UserError("no metric is named", where="metrics", remedy=f"use {', '.join(METRICS)}")
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise UserError(f"unknown metric {unknown[0]!r}", remedy=f"use {', '.join(METRICS)}")
    denoise = direction == "denoise"
    base = [pair.corrupted if denoise else pair.clean for pair in found]
    donor = [pair.clean if denoise else pair.corrupted for pair in found]
    tables = donor_tables(found, denoise)
    sites = _sites(model, component, layers)
    groups = _groups(base, positions)
    if tables is not None:
        groups = [
            [_aligned(group, table) for group in chosen] for chosen, table in zip(groups, tables)
        ]
    metric = pair_metric(model, found, donor, metrics, batch_tokens=batch_tokens)
    gates = None
    if check == "full" and not oracle:
        # The gates compare runs position by position: pairs that need no alignment.
        equal = [i for i, pair in enumerate(found) if pair.alignment is None]
        if equal:
            gates = run_gates(
                model, [base[i] for i in equal], [donor[i] for i in equal],
                renumbered(metric, equal), seed=seed,
            )  # fmt: skip
            gates.require()
    result = sweep_sites(
        model, base, donor, sites, groups, metric, batch_tokens=batch_tokens, seed=seed,
        progress=progress, fast=not oracle, donor_positions=tables,
        audit=audit if check != "off" and not oracle else 0.0,
    )  # fmt: skip
    single = isinstance(positions, str) and positions == "answer"
    return PairSweep.of(result, found, component, direction, groups, gates, single)


def _check_options(
    check: str, audit: float, layers: Sequence[int] | None, batch_tokens: int
) -> None:
    if check not in CHECKS:
        raise UserError(f"unknown check {check!r}", remedy=f"use one of {', '.join(CHECKS)}")
    if not 0 <= audit <= 1:
        raise UserError(f"audit is {audit}, not a share", remedy="use a number from 0 to 1")
    if layers is not None and (not len(layers) or len(set(layers)) < len(layers)):
        raise UserError(
            "no layer is named, or one twice", where="layers", remedy="leave it out for all layers"
        )
    if batch_tokens < 1:
        raise UserError(f"batch_tokens is {batch_tokens}", remedy="use a positive number")


def _sites(model: Model, component: str, layers: Sequence[int] | None) -> list[Site]:
    sites = list(all_sites(model, [component], layers))
    for site in sites:
        model.check_site(site)
    return sites


def _groups(base: Sequence[Sequence[int]], positions: Positions) -> list[list[list[int]]]:
    """Per pair the groups of positions replaced together; as many in every pair."""
    longest = max(map(len, base))
    if isinstance(positions, np.ndarray):
        positions = positions.tolist()
    if positions == "all":
        return [[[p] if p < len(row) else [] for p in range(longest)] for row in base]
    if positions == "answer":
        return [[[len(row) - 1]] for row in base]
    if isinstance(positions, str):
        raise UserError(
            f"unknown positions {positions!r}", where="positions",
            remedy='use "all", "answer", a list of positions, or groups of positions per pair',
        )  # fmt: skip
    if all(isinstance(p, (int, np.integer)) for p in positions):
        shortest = min(map(len, base))
        outside = [p for p in positions if not -shortest <= int(p) < shortest]  # type: ignore[arg-type]
        if outside:
            raise UserError(
                f"position {outside[0]} lies outside a prompt of {shortest} tokens",
                where="positions",
            )
        return [[[int(p) % len(row)] for p in positions] for row in base]  # type: ignore[arg-type]
    if len(positions) != len(base):
        raise UserError(
            f"{len(positions)} lists of groups for {len(base)} pairs", where="positions"
        )
    return [[list(group or ()) for group in chosen] for chosen in positions]  # type: ignore[union-attr]


def _aligned(group: list[int], table: Sequence[int] | None) -> list[int]:
    """A group whose positions all have a donor position; else an empty one, which is not run."""
    if table is None or all(table[p] >= 0 for p in group):
        return group
    return []
