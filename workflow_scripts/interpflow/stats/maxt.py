"""Westfall–Young max-T over a map of cells by flipping whole units; simultaneous intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from interpflow.errors import UserError
from interpflow.stats.permutation import MAX_ENUMERATED, TIE_TOLERANCE, all_signs, draw_signs
from interpflow.stats.record import (
    DEGENERATE_VARIANCE,
    EMPTY_CELL,
    MIN_CLUSTERS,
    TOO_FEW_CLUSTERS,
    Estimate,
)
from interpflow.stats.units import codes_of, group_sums

FloatArray = NDArray[np.float64]

DEFAULT_RESAMPLES = 9999
# Largest [draws, cells] temporary, in numbers: 5e5 float64 is 4 MB, which stays near the cache.
_BLOCK = 500_000


@dataclass(frozen=True)
class MaxTMap:
    """Per-cell means and family-wise adjusted p-values over all cells, arrays [cells].

    `t` is the studentised mean; `p_raw` the cell's own sign-flip p; `p_single_step` and
    `p_step_down` control the family-wise error over the map (Westfall & Young 1993).
    `ci_low/high` are pointwise t intervals, `simultaneous_low/high` cover all cells together at
    `level`. A `degenerate` cell has no variance or fewer than two units: t = 0, no interval.
    """

    mean: FloatArray
    t: FloatArray
    p_raw: FloatArray
    p_single_step: FloatArray
    p_step_down: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    simultaneous_low: FloatArray
    simultaneous_high: FloatArray
    critical: float
    degenerate: NDArray[np.bool_]
    n_units: NDArray[np.intp]
    n_dropped: NDArray[np.intp]
    n_clusters: int | None
    level: float
    n_resamples: int
    exact: bool
    seed: int

    def estimate(self, cell: int, quantity: str, *, family: str = "") -> Estimate:
        """The record of one cell: pointwise interval, raw p, step-down adjusted p."""
        flags = ()
        if self.n_units[cell] == 0:
            flags = (EMPTY_CELL,)
        elif self.degenerate[cell]:
            flags = (DEGENERATE_VARIANCE,)
        if self.n_clusters is not None and self.n_clusters < MIN_CLUSTERS:
            flags = (*flags, TOO_FEW_CLUSTERS)
        return Estimate(
            quantity=quantity,
            estimate=self.mean[cell],
            ci_low=self.ci_low[cell],
            ci_high=self.ci_high[cell],
            ci_level=self.level,
            p_value=self.p_raw[cell],
            p_adjusted=self.p_step_down[cell],
            test="max_t_sign_flip",
            n_units=self.n_units[cell],
            n_clusters=self.n_clusters,
            n_dropped=int(self.n_dropped[cell]),
            n_resamples=self.n_resamples,
            seed=self.seed,
            family=family,
            flags=flags,
        )


@dataclass(frozen=True)
class _Grid:
    """Unit sums of a map, ready to be flipped: arrays [groups, cells] and [cells]."""

    sums: FloatArray
    weighted: FloatArray | None
    n_rows: FloatArray
    squares: FloatArray
    sizes_squared: FloatArray
    constant_size: FloatArray
    scale: FloatArray
    usable: NDArray[np.bool_]

    def studentized(self, signs: FloatArray) -> FloatArray:
        """|T| [draws, cells] for sign vectors [draws, groups]; 0 in cells that are not usable."""
        totals = signs @ self.sums
        mean = totals / self.n_rows
        cross = totals * self.constant_size if self.weighted is None else signs @ self.weighted
        variance = self.squares - 2 * mean * cross + mean**2 * self.sizes_squared
        variance *= self.scale
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(mean) / np.sqrt(np.maximum(variance, 0.0))
        t[:, ~self.usable] = 0.0
        return np.nan_to_num(t, nan=0.0, posinf=np.inf)


def _grid(sums: FloatArray, sizes: FloatArray) -> _Grid:
    n_rows = sizes.sum(axis=0)
    groups = (sizes > 0).sum(axis=0)
    even = bool(np.all(sizes == sizes.max(axis=0)))
    squares = (sums**2).sum(axis=0)
    sizes_squared = (sizes**2).sum(axis=0)
    safe = np.maximum(n_rows, 1)
    scale = np.where(groups > 1, groups / np.maximum(groups - 1, 1) / safe**2, 0.0)
    mean = sums.sum(axis=0) / safe
    residual = ((sums - sizes * mean) ** 2).sum(axis=0)
    # Equal values leave only rounding, about 1e-32 of the sum of squares, in the residual.
    usable = (groups > 1) & (residual > 1e-24 * np.maximum(squares, 1e-200))
    return _Grid(
        sums=sums,
        weighted=None if even else sums * sizes,
        n_rows=safe,
        squares=squares,
        sizes_squared=sizes_squared,
        constant_size=sizes.max(axis=0),
        scale=scale,
        usable=usable,
    )


def _sign_blocks(n_groups: int, n_cells: int, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    block = max(1, _BLOCK // max(n_cells, n_groups))
    if 2**n_groups <= MAX_ENUMERATED:
        # |T| is the same for a sign vector and its negative: half of them is the whole group.
        signs = np.column_stack([np.ones(2 ** (n_groups - 1)), all_signs(n_groups - 1)])
        yield from (signs[start : start + block] for start in range(0, len(signs), block))
        return
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, block):
        yield draw_signs(rng, min(block, n_resamples - start), n_groups)


def _prepare(values: ArrayLike, clusters: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or 0 in data.shape:
        raise UserError(f"a max-T map needs values [units, cells], got shape {data.shape}")
    present = np.isfinite(data)
    codes, n_groups = codes_of(clusters, len(data))
    sums = group_sums(np.where(present, data, 0.0), codes, n_groups)
    return sums, group_sums(present, codes, n_groups)


@dataclass(frozen=True)
class _Counts:
    """How many draws reach each cell's statistic ([cells]), and the centred maxima ([draws])."""

    raw: NDArray[np.int64]
    single: NDArray[np.int64]
    down: NDArray[np.int64]
    centred_maxima: FloatArray

    @property
    def n_draws(self) -> int:
        return len(self.centred_maxima)


def _draws_at_least(maxima: FloatArray, bars: FloatArray) -> NDArray[np.int64]:
    ordered = np.sort(maxima)
    return len(ordered) - np.searchsorted(ordered, bars, side="left")


def _count(
    grid: _Grid, centred: _Grid, observed: FloatArray, order: NDArray[np.intp], blocks: Iterator
) -> _Counts:
    bar = observed - TIE_TOLERANCE * np.maximum(1.0, observed)
    bar[~grid.usable] = 0.0
    raw, single, down = (np.zeros(len(bar), dtype=np.int64) for _ in range(3))
    centred_maxima: list[FloatArray] = []
    for signs in blocks:
        t = grid.studentized(signs)
        raw += (t >= bar).sum(axis=0)
        # Running maximum from the smallest observed cell upwards: the cells not yet rejected.
        suffix = np.maximum.accumulate(t[:, order[::-1]], axis=1)[:, ::-1]
        down[order] += (suffix >= bar[order]).sum(axis=0)
        single += _draws_at_least(suffix[:, 0], bar)
        centred_t = centred.studentized(signs)
        centred_maxima.append(np.where(grid.usable, centred_t, 0.0).max(axis=1))
    return _Counts(raw, single, down, np.concatenate(centred_maxima))


def max_t(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int,
    level: float = 0.95,
) -> MaxTMap:
    """Max-T sign-flip test of every cell's mean against 0, and simultaneous intervals.

    `values` [units, cells]: real-donor minus placebo-donor effect of each unit; one sign per unit
    (per cluster if given) flips its whole row, so the dependence between cells is kept.
    Non-finite entries leave their unit out of that cell only, counted as dropped there. Up to 14
    units all sign vectors are enumerated. Memory stays bounded whatever the number of cells and
    draws.
    Raises UserError for values that are not two-dimensional or hold fewer than two units.
    """
    sums, sizes = _prepare(values, clusters)
    n_groups, n_cells = sums.shape
    if n_groups < 2:
        raise UserError("a max-T map needs at least two units", where="values")
    grid = _grid(sums, sizes)
    mean = sums.sum(axis=0) / grid.n_rows
    observed = grid.studentized(np.ones((1, n_groups)))[0]
    order = np.argsort(-observed, kind="stable")
    counts = _count(
        grid,
        _grid(sums - sizes * mean, sizes),
        observed,
        order,
        _sign_blocks(n_groups, n_cells, n_resamples, seed),
    )
    exact = 2**n_groups <= MAX_ENUMERATED
    extra = 0 if exact else 1
    missing = sizes.sum(axis=0) == 0
    step_down = (counts.down + extra) / (counts.n_draws + extra)
    step_down[order] = np.maximum.accumulate(step_down[order])
    critical = float(np.quantile(counts.centred_maxima, level, method="higher"))
    residual = ((sums - sizes * mean) ** 2).sum(axis=0)
    error = np.where(grid.usable, np.sqrt(residual * grid.scale), np.nan)
    df = np.maximum((sizes > 0).sum(axis=0) - 1, 1)
    reach = stdtrit(df, 0.5 + level / 2) * error
    mean = np.where(missing, np.nan, mean)
    return MaxTMap(
        mean=mean,
        t=observed,
        p_raw=np.where(missing, np.nan, (counts.raw + extra) / (counts.n_draws + extra)),
        p_single_step=np.where(missing, np.nan, (counts.single + extra) / (counts.n_draws + extra)),
        p_step_down=np.where(missing, np.nan, step_down),
        ci_low=mean - reach,
        ci_high=mean + reach,
        simultaneous_low=mean - critical * error,
        simultaneous_high=mean + critical * error,
        critical=critical,
        degenerate=~grid.usable,
        n_units=sizes.sum(axis=0).astype(np.intp),
        n_dropped=(len(np.asarray(values)) - sizes.sum(axis=0)).astype(np.intp),
        n_clusters=None if clusters is None else n_groups,
        level=level,
        n_resamples=2**n_groups if exact else counts.n_draws,
        exact=exact,
        seed=seed,
    )
