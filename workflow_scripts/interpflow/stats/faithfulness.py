"""Faithfulness of circuits of growing size: f(k), the area under it (CPR) and off 1 (CMD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interpflow.errors import UserError
from interpflow.stats.ratios import fieller_g
from interpflow.stats.record import UNDEFINED_RATIO, Estimate, undefined
from interpflow.stats.units import Units, complete_units, group_sums
from interpflow.stats.weighted_bootstrap import DEFAULT_DRAWS, WeightDraws, draw_weights

FloatArray = NDArray[np.float64]

Axis = Literal["linear", "log"]

# Shares of the components kept, as in the circuit-localization track of MIB (Mueller et al. 2025).
MIB_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
AXES: tuple[Axis, ...] = ("linear", "log")


@dataclass(frozen=True)
class CurveArea:
    """An area over one axis: "linear" the fraction kept, "log" its natural logarithm.

    `length` is the extent of the axis: a constant height h gives the area h · length.
    """

    area: Estimate
    axis: Axis
    length: float

    @property
    def mean_height(self) -> float:
        """Area per length of the axis: comparable between axes and grids."""
        return self.area.estimate / self.length


@dataclass(frozen=True)
class FaithfulnessCurve:
    """f(k) at `fractions` [k], with its areas over both axes.

    `points` one record per fraction, `per_pair` [pair, k] the pairs' own faithfulness (NaN where
    a pair's full and empty runs agree), for looking at and never for averaging: `points` are
    ratios of means. CPR is the area under f (higher is better), CMD the area of |1 − f| (0 is
    best), both by the trapezoid rule at the grid points.
    """

    fractions: FloatArray
    points: tuple[Estimate, ...]
    per_pair: FloatArray
    cpr: dict[Axis, CurveArea]
    cmd: dict[Axis, CurveArea]

    @property
    def values(self) -> FloatArray:
        """f at the fractions [k]."""
        return np.array([point.estimate for point in self.points])


def axis_positions(fractions: ArrayLike, axis: Axis) -> FloatArray:
    """Positions of the fractions [k] on an axis.

    Raises UserError unless fractions increase inside [0, 1], or for 0 on a logarithmic axis.
    """
    x = np.asarray(fractions, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not (np.diff(x) > 0).all() or x[0] < 0 or x[-1] > 1:
        raise UserError(
            f"fractions {x.tolist()} do not increase inside [0, 1]",
            where="fractions",
            remedy="give at least two shares of the components kept, smallest first",
        )
    if axis not in AXES:
        raise UserError(f"unknown axis {axis!r}", remedy=f"use one of {list(AXES)}")
    if axis == "log" and x[0] == 0:
        raise UserError("a logarithmic axis has no place for the fraction 0", where="fractions")
    return np.log(x) if axis == "log" else x


def trapezoid_area(heights: ArrayLike, positions: ArrayLike) -> FloatArray:
    """Area [...] under `heights` [..., k] joined by straight lines at `positions` [k]."""
    y = np.asarray(heights, dtype=np.float64)
    widths = np.diff(np.asarray(positions, dtype=np.float64))
    return np.asarray((y[..., 1:] + y[..., :-1]) @ widths / 2)


def cpr(values: ArrayLike, fractions: ArrayLike = MIB_FRACTIONS, *, axis: Axis) -> float:
    """Circuit performance ratio: the area under f. `values` [k] at `fractions` [k]."""
    return float(trapezoid_area(_checked(values, fractions), axis_positions(fractions, axis)))


def cmd(values: ArrayLike, fractions: ArrayLike = MIB_FRACTIONS, *, axis: Axis) -> float:
    """Circuit-model distance: the area of |1 − f|. `values` [k] at `fractions` [k].

    Where f crosses 1 between two points the straight line between |1 − f| counts, as published.
    """
    distance = np.abs(1 - _checked(values, fractions))
    return float(trapezoid_area(distance, axis_positions(fractions, axis)))


def faithfulness_curve(
    circuit: ArrayLike,
    full: ArrayLike,
    empty: ArrayLike,
    fractions: ArrayLike = MIB_FRACTIONS,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = DEFAULT_DRAWS,
    seed: int,
) -> FaithfulnessCurve:
    """f(k) = (m(circuit_k) − m(empty)) / (m(full) − m(empty)), its CPR and CMD.

    `circuit` [pair, k] the metric with the circuit of each fraction alone, `full` [pair] with the
    whole model, `empty` [pair] with everything replaced; `clusters` [pair] or None. m(·) is the
    mean over pairs (Mueller et al. 2025), so f is a ratio of means. BCa intervals resample pairs
    (clusters whole), the same draws for every point and area. Pairs that are not finite anywhere
    are left out and counted. Undefined and flagged when the mean of full − empty does not differ
    from 0 at `level` (with one pair: when it is 0). Raises UserError for misfitting shapes or
    fractions.
    """
    kept, whole, nothing = (np.asarray(x, dtype=np.float64) for x in (circuit, full, empty))
    x = np.asarray(fractions, dtype=np.float64)
    axis_positions(x, "linear")
    if kept.shape != (len(whole), len(x)) or whole.shape != nothing.shape or whole.ndim != 1:
        raise UserError(
            f"circuit {kept.shape}, full {whole.shape}, empty {nothing.shape} and "
            f"{len(x)} fractions do not fit",
            remedy="give [pair, fraction], [pair] and [pair]",
        )
    gap = whole - nothing
    with np.errstate(divide="ignore", invalid="ignore"):
        per_pair = np.where(gap[:, None] != 0, (kept - nothing[:, None]) / gap[:, None], np.nan)
    units = complete_units(*(kept - nothing[:, None]).T, gap, clusters=clusters)
    # The fraction 0, where f is 0 by definition, has no place on a logarithmic axis.
    axes: list[Axis] = ["linear", "log"] if x[0] > 0 else ["linear"]
    names = [f"faithfulness at {share:g}" for share in x]
    areas: list[tuple[str, Axis]] = [(name, axis) for name in ("CPR", "CMD") for axis in axes]
    names += [f"{name} ({axis} fraction)" for name, axis in areas]
    records = _records(units, x, axes, names, level, n_resamples, seed)
    found = {
        key: CurveArea(record, key[1], float(np.ptp(axis_positions(x, key[1]))))
        for key, record in zip(areas, records[len(x) :], strict=True)
    }
    return FaithfulnessCurve(
        fractions=x,
        points=tuple(records[: len(x)]),
        per_pair=per_pair,
        cpr={axis: found["CPR", axis] for axis in axes},
        cmd={axis: found["CMD", axis] for axis in axes},
    )


def _records(
    units: Units,
    fractions: FloatArray,
    axes: list[Axis],
    names: list[str],
    level: float,
    n_resamples: int,
    seed: int,
) -> list[Estimate]:
    counts = {
        "ci_level": level,
        "n_units": units.n_rows,
        "n_clusters": units.n_clusters,
        "n_dropped": units.n_dropped,
    }
    if units.n_rows == 0 or not _has_gap(units, level):
        return [undefined(name, UNDEFINED_RATIO, **counts, seed=seed) for name in names]
    draws = _draws(units, fractions, axes, n_resamples, seed)
    counts.pop("ci_level")
    return [draws.estimate(k, name, level=level, **counts) for k, name in enumerate(names)]


def _has_gap(units: Units, level: float) -> bool:
    """Whether full and empty differ: Fieller's g < 1, or with one unit any difference at all."""
    gap = units.columns[-1]
    if units.n_groups < 2:
        return bool(gap.sum() != 0)
    return fieller_g(gap, clusters=units.codes, level=level) < 1


def _draws(
    units: Units, fractions: FloatArray, axes: list[Axis], n_resamples: int, seed: int
) -> WeightDraws:
    """Draws of f(k), then CPR over each axis, then CMD over each axis."""
    sums = group_sums(np.column_stack(units.columns), units.codes, units.n_groups)
    positions = [axis_positions(fractions, axis) for axis in axes]

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights @ sums
        with np.errstate(divide="ignore", invalid="ignore"):
            f = total[:, :-1] / total[:, -1:]
        areas = [trapezoid_area(y, x) for y in (f, np.abs(1 - f)) for x in positions]
        return np.column_stack([f, *areas])

    return draw_weights(statistic, units.n_groups, n_resamples=n_resamples, seed=seed)


def _checked(values: ArrayLike, fractions: ArrayLike) -> FloatArray:
    heights = np.asarray(values, dtype=np.float64)
    if heights.shape != np.shape(fractions):
        raise UserError(f"{heights.shape} values at {np.shape(fractions)} fractions")
    return heights
