"""Probes of yes/no labels: planted signal, family-level leaks, transfer between kinds of rows."""

import numpy as np
import pytest

from interpflow.errors import UserError
from interpflow.stats.label_probe import (
    label_probe,
    paired_accuracy,
    permuted_labels,
    transfer_auroc,
)

FAMILIES = np.repeat(np.arange(40), 6)
LABELS = np.tile([False, True, False, True, True, False], 40)


def noise(seed: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(FAMILIES), width))


def test_planted_direction_is_read_and_noise_is_not() -> None:
    controls = permuted_labels(LABELS, FAMILIES, 20, seed=1)
    signal = noise(0)
    signal[:, 3] += 1.5 * LABELS
    found = label_probe(
        signal, LABELS, FAMILIES, FAMILIES, controls=controls,
        baselines={"length": noise(5, 1)}, n_resamples=199, seed=2,
    )  # fmt: skip
    assert found.auroc.task.estimate > 0.8
    assert found.auroc.selectivity.p_value == pytest.approx(1 / 21)
    assert found.auroc.gains["length"].ci_low > 0.1
    assert found.pairs.estimate > 0.8
    assert found.pairs.ci_low > 0.7
    nothing = label_probe(
        noise(0), LABELS, FAMILIES, FAMILIES, controls=controls, n_resamples=199, seed=2
    )
    assert nothing.auroc.task.ci_low < 0.5
    assert nothing.auroc.selectivity.p_value > 0.1
    assert nothing.pairs.ci_low < 0.5 < nothing.pairs.ci_high


def test_what_a_family_gives_away_does_not_raise_the_pairs_in_order() -> None:
    rng = np.random.default_rng(3)
    ranked, shuffled, ordered = [], [], []
    for seed in range(12):
        rate = rng.uniform(0.1, 0.9, 40)
        labels = rng.random(len(FAMILIES)) < rate[FAMILIES]
        features = np.column_stack([rate[FAMILIES], noise(seed)])
        controls = permuted_labels(labels, FAMILIES, 5, seed=seed)
        found = label_probe(
            features, labels, FAMILIES, FAMILIES, controls=controls, n_resamples=50, seed=seed
        )
        ranked.append(found.auroc.task.estimate)
        shuffled.append(found.auroc.control_scores.mean())
        ordered.append(found.pairs.estimate)
    assert np.mean(ranked) > 0.65
    assert np.mean(shuffled) > 0.65  # shuffled within families, as readable
    assert np.mean(ordered) == pytest.approx(0.5, abs=0.04)


def test_permuted_labels_keep_each_family_count() -> None:
    drawn = permuted_labels(LABELS, FAMILIES[::-1], 5, seed=0)
    assert drawn.shape == (240, 5)
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    for column in drawn.T:
        assert np.array_equal(np.bincount(FAMILIES[::-1], column), np.full(40, 3))


def test_pairs_in_order_known_answer() -> None:
    found = paired_accuracy([3, 1, 2, 5, 5, 9], [1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 1, 2])
    assert found.estimate == pytest.approx((1 + 0.5) / 2)
    assert (found.n_units, found.n_dropped) == (2, 1)


def test_transfer_finds_a_shared_direction_only() -> None:
    kinds = np.tile([0, 1, 0, 2, 1, 0], 40)  # 0: without the label
    folds = FAMILIES % 5
    shared, own = noise(6), noise(6)
    shared[:, 0] += 2 * (kinds > 0)
    own[:, 0] += 2 * (kinds == 1)
    own[:, 1] += 2 * (kinds == 2)
    args = (kinds > 0, FAMILIES, folds, kinds != 2, kinds != 1)
    assert transfer_auroc(shared, *args, n_resamples=99, seed=0).estimate > 0.85
    found = transfer_auroc(own, *args, n_resamples=99, seed=0)
    assert found.ci_low < 0.6
    alone = transfer_auroc(own, kinds > 0, FAMILIES, folds, kinds != 2, kinds == 2,
                           n_resamples=99, seed=0)  # fmt: skip
    assert alone.flags == ("SINGLE_CLASS",)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(UserError, match="groups"):
        label_probe(noise(0), LABELS, FAMILIES, FAMILIES // 8, seed=0)
