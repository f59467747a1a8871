"""What a sweep returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from interpflow.engine.sites import Site


@dataclass(frozen=True)
class Audit:
    """share of cells asked for, cells compared and pairs that they are of; the largest difference
    of a metric; the error of a logit, relative to the largest, that would explain the least
    explicable difference (see `audit_limits`), and what was allowed of it."""

    share: float
    n_cells: int
    n_pairs: int
    worst: float
    relative: float
    limit: float
    logit_scale: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SweepResult:
    """Metric values of every patched run of a sweep, and of the two unpatched runs.

    values: metric name -> float64 [pair, site, group]; NaN where the pair has no such group, and
    in cells that were not asked for.
    base, donor: metric name -> float64 [pair], the unpatched runs.
    ran: bool [pair, site, group]; False where the slot is empty or not asked for, or where the
    patch provably changes nothing, and then the value is the base value exactly.
    empty: bool [pair, group]. asked: bool [site, group].
    n_tokens: token places fed to forward passes, those of base and donor included;
    n_block_tokens: the same times the blocks that ran on them.
    path: what was left out of the patched passes ("full", "resume", "resume+prefix"; "joining":
    all that cannot change). audit: the comparison with whole passes, if one was asked for.
    """

    sites: tuple[Site, ...]
    values: dict[str, np.ndarray]
    base: dict[str, np.ndarray]
    donor: dict[str, np.ndarray]
    ran: np.ndarray
    empty: np.ndarray
    asked: np.ndarray
    n_rows_run: int
    n_rows_no_op: int
    n_rows_empty: int
    n_forwards: int
    n_tokens: int
    n_block_tokens: int
    path: str
    audit: Audit | None = None

    def effect(self, name: str) -> np.ndarray:
        """Patched minus base value, float64 [pair, site, group]; exactly 0 for a no-op."""
        return self.values[name] - self.base[name][:, None, None]

    def to_rows(self) -> list[dict[str, Any]]:
        """One row per pair, site, group and metric; empty slots have a NaN value."""
        rows = []
        n_pairs, _, n_groups = self.ran.shape
        for name, values in self.values.items():
            for pair in range(n_pairs):
                for s, site in enumerate(self.sites):
                    for group in range(n_groups):
                        rows.append(
                            {
                                "pair": pair,
                                "site": str(site),
                                "component": site.component,
                                "layer": site.layer,
                                "head": site.head,
                                "group": group,
                                "metric": name,
                                "value": float(values[pair, s, group]),
                                "base": float(self.base[name][pair]),
                                "donor": float(self.donor[name][pair]),
                                "ran": bool(self.ran[pair, s, group]),
                            }
                        )
        return rows
