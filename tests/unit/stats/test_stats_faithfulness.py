"""Faithfulness curves: known areas on both axes, ratios of means, intervals over pairs."""

import math
from itertools import pairwise

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.faithfulness import (
    MIB_FRACTIONS,
    axis_positions,
    cmd,
    cpr,
    faithfulness_curve,
    trapezoid_area,
)
from interpflow.stats.record import DEGENERATE_VARIANCE, TOO_FEW_CLUSTERS, UNDEFINED_RATIO


def test_areas_by_hand_on_both_axes():
    fractions, f = (0.01, 0.1, 1.0), (0.0, 0.5, 1.5)
    # Linear: .09 · .25 + .9 · 1.0; logarithmic: ln 10 · (.25 + 1.0).
    assert cpr(f, fractions, axis="linear") == pytest.approx(0.0225 + 0.9)
    assert cpr(f, fractions, axis="log") == pytest.approx(math.log(10) * 1.25)
    # |1 − f| = 1, .5, .5.
    assert cmd(f, fractions, axis="linear") == pytest.approx(0.09 * 0.75 + 0.9 * 0.5)
    assert cmd(f, fractions, axis="log") == pytest.approx(math.log(10) * 1.25)


def test_perfect_circuit_on_the_published_grid():
    ones = np.ones(10)
    assert cpr(ones, axis="linear") == pytest.approx(0.999)
    assert cpr(ones, axis="log") == pytest.approx(math.log(1000))
    assert cmd(ones, axis="linear") == cmd(ones, axis="log") == 0.0


def test_the_axis_changes_which_sizes_count():
    early = np.r_[np.ones(5), np.zeros(5)]
    late = 1 - early
    for f, small in ((early, True), (late, False)):
        shares = [cpr(f, axis=axis) / cpr(np.ones(10), axis=axis) for axis in ("linear", "log")]
        assert (shares[1] > 10 * shares[0]) is small
    # A loop over the grid, written out: the logarithm is used, not only computed.
    by_hand = sum(
        (math.log(b) - math.log(a)) * (early[i] + early[i + 1]) / 2
        for i, (a, b) in enumerate(pairwise(MIB_FRACTIONS))
    )
    assert cpr(early, axis="log") == pytest.approx(by_hand)


def test_trapezoid_agrees_with_numpy():
    rng = np.random.default_rng(0)
    f, x = rng.normal(size=(3, 10)), np.sort(rng.random(10))
    assert trapezoid_area(f, x) == pytest.approx(np.trapezoid(f, x, axis=1))


def _runs(seed=0, n_pairs=40, noise=0.2):
    """circuit [pair, k] whose true f(k) is k^½, full and empty [pair]."""
    rng = np.random.default_rng(seed)
    truth = np.sqrt(MIB_FRACTIONS)
    gap = rng.gamma(4, 0.5, n_pairs)
    empty = rng.normal(size=n_pairs)
    circuit = empty[:, None] + gap[:, None] * truth + noise * rng.normal(size=(n_pairs, 10))
    circuit[:, -1] = empty + gap
    return circuit, empty + gap, empty


def test_points_are_ratios_of_means_and_pairs_are_kept():
    circuit = np.array([[1.0, 4.0], [0.5, 1.0]])
    full, empty = np.array([4.0, 1.0]), np.array([0.0, 0.0])
    found = faithfulness_curve(circuit, full, empty, (0.5, 1.0), n_resamples=49, seed=0)
    # With two pairs the gap is not distinguishable from 0.
    assert found.points[0].flags == (UNDEFINED_RATIO,)
    many = faithfulness_curve(
        np.tile(circuit, (20, 1)), np.tile(full, 20), np.tile(empty, 20), (0.5, 1.0),
        n_resamples=49, seed=0,
    )  # fmt: skip
    assert many.values == pytest.approx([1.5 / 5, 1.0])
    assert many.per_pair[:2].tolist() == [[0.25, 1.0], [0.5, 1.0]]


def test_curve_finds_the_planted_shape_and_both_areas():
    found = faithfulness_curve(*_runs(), seed=0)
    truth = np.sqrt(MIB_FRACTIONS)
    assert found.values == pytest.approx(truth, abs=0.06)
    for axis in ("linear", "log"):
        assert found.cpr[axis].area.estimate == pytest.approx(cpr(found.values, axis=axis))
        assert found.cmd[axis].area.estimate == pytest.approx(cmd(found.values, axis=axis))
        assert found.cpr[axis].length == pytest.approx(
            float(np.ptp(axis_positions(MIB_FRACTIONS, axis)))
        )
        area = found.cpr[axis].area
        assert area.ci_low < cpr(truth, axis=axis) < area.ci_high
        assert axis in area.quantity
    assert found.cpr["linear"].mean_height == pytest.approx(
        cpr(found.values, axis="linear") / 0.999
    )
    # The whole model is faithful to itself in every draw.
    assert found.values[-1] == 1.0
    assert DEGENERATE_VARIANCE in found.points[-1].flags


def test_a_circuit_that_does_nothing_has_no_area_under_it():
    _, full, empty = _runs()
    nothing = np.tile(empty[:, None], 10)
    found = faithfulness_curve(nothing, full, empty, seed=0, n_resamples=49)
    assert (found.values == 0).all()
    assert found.cpr["linear"].area.estimate == 0
    assert found.cmd["linear"].area.estimate == pytest.approx(0.999)


def test_full_equal_to_empty_is_undefined():
    circuit, full, _ = _runs()
    found = faithfulness_curve(circuit, full, full, seed=0, n_resamples=49)
    assert np.isnan(found.values).all()
    assert np.isnan(found.per_pair).all()
    for area in (found.cpr["linear"].area, found.cmd["log"].area):
        assert area.flags == (UNDEFINED_RATIO,)
    # Differences that cancel over pairs are no total effect either.
    signs = np.tile([1.0, -1.0], 20)
    cancelled = faithfulness_curve(circuit, full, full - signs, seed=0, n_resamples=49)
    assert cancelled.points[0].flags == (UNDEFINED_RATIO,)
    assert np.isfinite(cancelled.per_pair).all()


def test_one_pair_has_a_curve_without_interval():
    circuit, full, empty = _runs(n_pairs=1)
    found = faithfulness_curve(circuit, full, empty, seed=0, n_resamples=9)
    assert found.values == pytest.approx(found.per_pair[0])
    assert TOO_FEW_CLUSTERS in found.points[0].flags
    assert math.isnan(found.points[0].ci_low)


def test_dropped_pairs_are_counted_and_clusters_widen():
    circuit, full, empty = _runs(n_pairs=12, noise=0.5)
    copies = [np.repeat(x, 6, axis=0) for x in (circuit, full, empty)]
    labels = np.repeat(np.arange(12), 6)
    naive = faithfulness_curve(*copies, seed=0, n_resamples=499)
    clustered = faithfulness_curve(*copies, clusters=labels, seed=0, n_resamples=499)
    ratio = clustered.points[4].half_width / naive.points[4].half_width
    assert ratio == pytest.approx(math.sqrt(6), rel=0.3)
    circuit[3, 2] = np.nan
    found = faithfulness_curve(circuit, full, empty, seed=0, n_resamples=49)
    assert (found.points[0].n_units, found.points[0].n_dropped) == (11, 1)


def test_interval_of_the_area_covers_its_truth():
    truth, hits, repeats = cpr(np.sqrt(MIB_FRACTIONS), axis="log"), 0, 1000
    for seed in range(repeats):
        runs = _runs(seed, n_pairs=40, noise=1.0)
        area = faithfulness_curve(*runs, seed=seed, n_resamples=199).cpr["log"].area
        hits += area.ci_low <= truth <= area.ci_high
    assert 0.925 <= hits / repeats <= 0.97


def test_fraction_zero_has_a_linear_axis_only():
    circuit, full, empty = _runs()
    found = faithfulness_curve(
        np.column_stack([empty, circuit]), full, empty, (0.0, *MIB_FRACTIONS), seed=0, n_resamples=9
    )
    assert list(found.cpr) == ["linear"]
    with pytest.raises(UserError, match="logarithmic"):
        cpr([0.0, 1.0], (0.0, 1.0), axis="log")


def test_wrong_use_is_refused():
    circuit, full, empty = _runs()
    with pytest.raises(UserError, match="do not fit"):
        faithfulness_curve(circuit[:, :3], full, empty, seed=0)
    with pytest.raises(UserError, match="increase"):
        faithfulness_curve(circuit[:, :2], full, empty, (0.5, 0.1), seed=0)
    with pytest.raises(UserError, match="increase"):
        cpr([1.0, 1.0], (0.1, 10), axis="linear")
    with pytest.raises(UserError, match="axis"):
        cpr([1.0, 1.0], (0.1, 1.0), axis="sqrt")  # type: ignore[arg-type]
