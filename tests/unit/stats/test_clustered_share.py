"""Shares of items in clusters: known answers, and never more exact than the clusters allow."""

from __future__ import annotations

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.clustered_share import clustered_proportion, clustered_share
from interpflow.stats.intervals import proportion


def test_clusters_of_one_item_are_a_plain_proportion() -> None:
    plain = proportion(90, 100)
    found = clustered_proportion([1] * 90 + [0] * 10, [1] * 100)
    assert found.estimate == plain.estimate
    # G/(G−1) leaves 99 items' worth.
    assert (found.ci_low, found.ci_high) == pytest.approx((plain.ci_low, plain.ci_high), abs=1e-3)
    assert (found.n_units, found.n_clusters) == (100, 100)


def test_copies_of_an_item_tell_nothing_new() -> None:
    once = clustered_share([1] * 40 + [0] * 10, [1] * 50)
    often = clustered_share([9] * 40 + [0] * 10, [9] * 50)
    assert once
    assert often
    assert often.n_effective == pytest.approx(once.n_effective)
    assert often.n_items == 450


def test_one_large_cluster_is_worth_little() -> None:
    found = clustered_share([100, *[1] * 10], [100, *[1] * 10])
    assert found
    assert found.n_effective == pytest.approx(110**2 / (100**2 + 10))


def test_ratio_variance_by_hand() -> None:
    right, sizes = np.array([3, 0, 2, 4]), np.array([3, 3, 2, 4])
    found = clustered_share(right, sizes)
    assert found
    share = 9 / 12
    variance = 4 / 3 * ((right - share * sizes) ** 2).sum() / 144
    assert found.n_effective == pytest.approx(share * (1 - share) / variance)


def test_nothing_and_nonsense() -> None:
    assert clustered_share([], []) is None
    assert clustered_proportion([], []).flags
    with pytest.raises(UserError):
        clustered_share([2], [1])
