"""What a sweep over pairs returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from interpflow.engine.pairs import TokenPair
from interpflow.engine.sites import HEAD_COMPONENTS, Site
from interpflow.engine.sweeps.gates import GateReport
from interpflow.engine.sweeps.result import Audit, SweepResult


@dataclass(frozen=True)
class PairSweep:
    """Effects of patching one component.

    effects: metric -> float64 [pair, layer, position]; components with heads: [pair, layer, head,
    position], or [pair, layer, head] when only the answer's position was asked for. "position" is
    the group of positions where groups were given. NaN where a pair has no such position; exactly
    0 where the patch provably changes nothing (`ran` is False there).
    values: the same for the patched runs' metrics. baseline_clean, baseline_corrupted: metric ->
    float64 [pair], the unpatched runs.
    positions: per pair and group, the positions patched.
    noise_floor: metric -> largest difference between computations that should agree.
    """

    component: str
    direction: str
    layers: tuple[int, ...]
    effects: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    baseline_clean: dict[str, np.ndarray]
    baseline_corrupted: dict[str, np.ndarray]
    ran: np.ndarray
    positions: tuple[tuple[tuple[int, ...], ...], ...]
    gates: GateReport | None
    audit: Audit | None
    noise_floor: dict[str, float]
    result: SweepResult

    @classmethod
    def of(
        cls,
        result: SweepResult,
        pairs: Sequence[TokenPair],
        component: str,
        direction: str,
        groups: Sequence[Sequence[Sequence[int]]],
        gates: GateReport | None,
        single: bool,
    ) -> PairSweep:
        """Sites of a sweep as axes: layer and, where there are heads, head."""
        layers = tuple(dict.fromkeys(site.layer for site in result.sites))
        n_heads = len(result.sites) // len(layers)
        with_heads = component in HEAD_COMPONENTS

        def shaped(array: np.ndarray) -> np.ndarray:
            if not with_heads:
                return array
            array = array.reshape(len(pairs), len(layers), n_heads, -1)
            return array[..., 0] if single else array

        denoise = direction == "denoise"
        noise = dict(gates.noise_floor) if gates is not None else {}
        if result.audit is not None:
            noise = {name: max(noise.get(name, 0.0), result.audit.worst) for name in result.values}
        return cls(
            component=component,
            direction=direction,
            layers=layers,
            effects={name: shaped(result.effect(name)) for name in result.values},
            values={name: shaped(values) for name, values in result.values.items()},
            baseline_clean=result.donor if denoise else result.base,
            baseline_corrupted=result.base if denoise else result.donor,
            ran=shaped(result.ran),
            positions=tuple(tuple(tuple(group) for group in chosen) for chosen in groups),
            gates=gates,
            audit=result.audit,
            noise_floor=noise,
            result=result,
        )

    def to_table(self) -> pa.Table:
        """One row per pair, site, group of positions and metric: value, effect, both baselines,
        the noise floor, and whether the patch was run or cannot change anything."""
        sites: tuple[Site, ...] = self.result.sites
        n_pairs, n_sites, n_groups = self.result.ran.shape
        pair, site, group = (
            index.ravel() for index in np.indices((n_pairs, n_sites, n_groups)).astype(np.int32)
        )
        kept = ~np.broadcast_to(self.result.empty[:, None, :], (n_pairs, n_sites, n_groups)).ravel()
        pair, site, group = pair[kept], site[kept], group[kept]
        positions = [list(self.positions[p][g]) for p, g in zip(pair, group)]
        common: dict[str, Any] = {
            "pair": pair,
            "component": np.full(len(pair), self.component),
            "layer": np.array([s.layer for s in sites], dtype=np.int32)[site],
            "head": pa.array([sites[s].head for s in site], type=pa.int32()),
            "group": group,
            "positions": pa.array(positions, type=pa.list_(pa.int32())),
            "direction": np.full(len(pair), self.direction),
            "ran": self.result.ran.ravel()[kept],
        }
        tables = []
        for name, values in self.result.values.items():
            value = values.ravel()[kept]
            tables.append(
                pa.table(
                    {
                        **common,
                        "metric": np.full(len(pair), name),
                        "value": value,
                        "effect": value - self.result.base[name][pair],
                        "baseline_clean": self.baseline_clean[name][pair],
                        "baseline_corrupted": self.baseline_corrupted[name][pair],
                        "noise_floor": np.full(len(pair), self.noise_floor.get(name, np.nan)),
                    }
                )
            )
        return pa.concat_tables(tables)
